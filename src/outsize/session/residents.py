"""The tensors of a module that are there between its steps."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch

from ..device.parts import parts

__all__ = ["buffers", "named_bytes", "owned", "shapes"]


def owned(module: torch.nn.Module | None) -> Iterator[torch.Tensor]:
    """Parameters, their gradients and buffers; of a module that is gone, none."""
    for parameter in module.parameters() if module is not None else ():
        yield parameter
        if parameter.grad is not None:
            yield parameter.grad
    yield from module.buffers() if module is not None else ()


def buffers(module: torch.nn.Module | None) -> dict[int, str]:
    """What to call its buffers, by storage."""
    named = module.named_buffers() if module is not None else ()
    return {
        part.untyped_storage()._cdata: f"the buffer {name!r}"
        for name, buffer in named
        for part in parts(buffer)
    }


def shapes(args: Iterable[Any], module: torch.nn.Module | None) -> str:
    """What a module is called with, in words: dtypes and shapes, its own tensors left out."""
    own = {part.untyped_storage()._cdata for tensor in owned(module) for part in parts(tensor)}
    given = (
        a
        for a in args
        if isinstance(a, torch.Tensor) and not any(p.untyped_storage()._cdata in own for p in parts(a))
    )
    return ", ".join(f"{str(a.dtype).removeprefix('torch.')}{list(a.shape)}" for a in given)


def named_bytes(module: torch.nn.Module | None, args: Iterable[Any], device: torch.device) -> dict[int, int]:
    """Bytes on the device of the module, its gradients and what it is called with, by storage."""
    tensors = (
        t for t in (*owned(module), *args) if isinstance(t, torch.Tensor) and t.device.type == device.type
    )
    storages = (part.untyped_storage() for t in tensors for part in parts(t))
    return {storage._cdata: storage.nbytes() for storage in storages}
