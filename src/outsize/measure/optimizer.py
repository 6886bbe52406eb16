"""Bytes that an optimizer will hold, before its first step has made them.

A twin of the optimizer takes one step on fake tensors: nothing is allocated, and any optimizer that torch can trace
with fake tensors is counted, not only those known by name.
"""

from __future__ import annotations

from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from ..errors import CaptureError


def state_bytes(optimizer: torch.optim.Optimizer) -> int:
    """Bytes of optimizer state, present or to come.

    Raises:
        CaptureError: the optimizer cannot take a step without real gradients (a closure, say).
    """
    if optimizer.state:
        return _held(optimizer)
    kind: Any = type(optimizer)
    with FakeTensorMode():
        groups = [group | {"params": [_twin(p) for p in group["params"]]} for group in optimizer.param_groups]
        for group in groups:
            for parameter in group["params"]:
                if parameter.requires_grad:
                    parameter.grad = torch.empty_like(parameter)
        try:
            twin = kind(groups)
            twin.step()
        except Exception as error:
            raise CaptureError(
                f"the state of {type(optimizer).__name__} cannot be sized before its first step ({error}); "
                "take one optimizer step before outsize.compile, or leave optimizer= out and lower the budget"
            ) from error
        return _held(twin)


def _twin(parameter: torch.Tensor) -> torch.nn.Parameter:
    empty = torch.empty(parameter.shape, dtype=parameter.dtype, device=parameter.device)
    return torch.nn.Parameter(empty, requires_grad=parameter.requires_grad)


def _held(optimizer: torch.optim.Optimizer) -> int:
    tensors = [v for state in optimizer.state.values() for v in state.values() if isinstance(v, torch.Tensor)]
    return sum(t.untyped_storage().nbytes() for t in tensors)
