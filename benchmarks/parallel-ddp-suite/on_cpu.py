"""What lets torch's GPU-gated tests run without a GPU: gates are lifted, and every device they name is the CPU.

Import it before `torch.testing._internal.distributed.distributed_test`, in every process.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.testing._internal.common_distributed as gates
from torch import nn
from torch.overrides import TorchFunctionMode


def _open(*_: Any) -> Callable[[Any], Any]:
    return lambda test: test


class OnCpu(TorchFunctionMode):
    """Every device that a torch function is given, by number or by name, becomes the CPU."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if kwargs.get("device") is not None:
            kwargs["device"] = "cpu"
        if func is torch.Tensor.cuda:
            return args[0]
        if func is torch.Tensor.to and len(args) > 1 and _names_device(args[1]):
            args = (args[0], "cpu", *args[2:])
        return func(*args, **kwargs)


def _names_device(given: Any) -> bool:
    return isinstance(given, (str, torch.device)) or type(given) is int


def install() -> None:
    """Replace the gates and torch's ways to a GPU. Not undone: for a process that does nothing else."""
    gates.skip_if_lt_x_gpu = _open
    gates.nccl_skip_if_lt_x_gpu = _open
    gates.skip_if_no_gpu = lambda test: test
    torch.cuda.set_device = lambda *_, **__: None
    torch.cuda.synchronize = lambda *_, **__: None
    torch.cuda.current_device = lambda: 0
    torch.cuda.device_count = lambda: 2
    nn.Module.cuda = lambda self, *_, **__: self  # type: ignore[assignment]
    plain = nn.Module.to

    def to(self: nn.Module, *args: Any, **kwargs: Any) -> nn.Module:
        if args and _names_device(args[0]):
            args = ("cpu", *args[1:])
        if kwargs.get("device") is not None:
            kwargs["device"] = "cpu"
        return plain(self, *args, **kwargs)

    nn.Module.to = to  # type: ignore[assignment]
    OnCpu().__enter__()
