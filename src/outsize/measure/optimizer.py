"""Bytes that an optimizer will hold, and those that its step needs for a moment, before its first step.

A twin of the optimizer takes two steps on fake tensors: nothing is allocated, and any optimizer that torch can trace
with fake tensors is counted, not only those known by name. The first step makes the state, the second shows the
temporary tensors.
"""

from __future__ import annotations

import weakref
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ..errors import CaptureError


@dataclass(frozen=True, kw_only=True)
class UpdateBytes:
    """What an optimizer adds to a step.

    Attributes:
        state: bytes of state, present or to come.
        workspace: bytes of temporary tensors at their peak.
    """

    state: int = 0
    workspace: int = 0


def update_bytes(optimizer: torch.optim.Optimizer) -> UpdateBytes:
    """State and workspace of an optimizer.

    Raises:
        CaptureError: the optimizer cannot take a step without real gradients (a closure, say).
    """
    with FakeTensorMode():
        groups = [group | {"params": [_twin(p) for p in group["params"]]} for group in optimizer.param_groups]
        for group in groups:
            if _runs_foreach(group):
                group["foreach"] = True  # torch's choice for tensors, but not for fake ones
            for parameter in group["params"]:
                if parameter.requires_grad:
                    parameter.grad = torch.empty_like(parameter)
        try:
            twin = _made_of(optimizer, groups)
            twin.step()
            with _Temporary() as temporary:
                twin.step()
        except Exception as error:
            if optimizer.state:  # sized by what is there; only the temporary bytes stay unknown
                return UpdateBytes(state=state_bytes(optimizer))
            raise CaptureError(
                f"the state of {type(optimizer).__name__} cannot be sized before its first step ({error}); "
                "take one optimizer step before outsize.compile, or leave optimizer= out and lower the budget"
            ) from error
        return UpdateBytes(
            state=state_bytes(optimizer) if optimizer.state else state_bytes(twin), workspace=temporary.peak
        )


def _runs_foreach(group: dict[str, Any]) -> bool:
    """Whether torch updates all parameters of a group at once, with temporary tensors for all: its default on a GPU."""
    undecided = (
        group.get("foreach", False) is None and not group.get("fused") and not group.get("differentiable")
    )
    return undecided and all(p.is_cuda for p in group["params"])


def _made_of(optimizer: torch.optim.Optimizer, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """A twin over other parameters; where its class asks for more than those, a copy of its attributes."""
    kind: Any = type(optimizer)
    with suppress(TypeError):
        return kind(groups)  # type: ignore[no-any-return]
    twin: Any = object.__new__(kind)
    twin.__dict__.update(optimizer.__dict__)
    twin.param_groups, twin.state = groups, defaultdict(dict)
    twin._optimizer_step_pre_hooks, twin._optimizer_step_post_hooks = OrderedDict(), OrderedDict()
    return twin  # type: ignore[no-any-return]


class _Temporary(TorchDispatchMode):
    """Counts the bytes of the tensors that are made meanwhile, and their peak."""

    def __init__(self) -> None:
        super().__init__()
        self.peak = self._alive = 0
        self._tensors: dict[int, int] = {}

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        given = {t.untyped_storage()._cdata for t in _tensors((args, kwargs))} - self._tensors.keys()
        result = func(*args, **(kwargs or {}))
        for tensor in _tensors(result):
            storage = tensor.untyped_storage()
            if storage._cdata not in given:  # neither a parameter nor a view of one
                self._note(storage._cdata, storage.nbytes(), tensor)
        return result

    def _note(self, key: int, nbytes: int, tensor: torch.Tensor) -> None:
        if key not in self._tensors:
            self._alive += nbytes
            self.peak = max(self.peak, self._alive)
        self._tensors[key] = self._tensors.get(key, 0) + 1
        weakref.finalize(tensor, self._gone, key, nbytes)

    def _gone(self, key: int, nbytes: int) -> None:
        self._tensors[key] -= 1
        if not self._tensors[key]:
            del self._tensors[key]
            self._alive -= nbytes


def _tensors(value: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, torch.Tensor)]


def _twin(parameter: torch.Tensor) -> torch.nn.Parameter:
    empty = torch.empty(parameter.shape, dtype=parameter.dtype, device=parameter.device)
    return torch.nn.Parameter(empty, requires_grad=parameter.requires_grad)


def state_bytes(optimizer: torch.optim.Optimizer) -> int:
    """Bytes of the state that an optimizer holds now."""
    tensors = [v for state in optimizer.state.values() for v in state.values() if isinstance(v, torch.Tensor)]
    return sum(t.untyped_storage().nbytes() for t in tensors)
