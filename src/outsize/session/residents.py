"""The tensors of a module that are there between its steps."""

from __future__ import annotations

from collections.abc import Iterator

import torch

__all__ = ["buffers", "owned"]


def owned(module: torch.nn.Module | None) -> Iterator[torch.Tensor]:
    """Parameters, their gradients and buffers; of a module that is gone, none."""
    for parameter in module.parameters() if module is not None else ():
        yield parameter
        if parameter.grad is not None:
            yield parameter.grad
    yield from buffers(module)


def buffers(module: torch.nn.Module | None) -> Iterator[torch.Tensor]:
    """Its buffers."""
    if module is not None:
        yield from module.buffers()
