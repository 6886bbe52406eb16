"""Which back end runs: the one asked for, or the fastest that takes the tensor's device."""

from __future__ import annotations

import torch

from ..errors import CodecError
from ..native import warn_missing
from .contract import Backend
from .kernels import Triton
from .native import Native
from .reference import Reference

__all__ = ["backends", "choose"]

#: Fastest first.
_ALL: dict[str, Backend] = {"triton": Triton(), "native": Native(), "reference": Reference()}


def backends() -> tuple[str, ...]:
    """Names of the back ends that run on this machine, fastest first."""
    return tuple(name for name, backend in _ALL.items() if backend.available())


def choose(name: str | Backend | None, device: torch.device) -> Backend:
    """The back end called `name`, or the fastest for `device`.

    Raises:
        CodecError: unknown, not available here, or not for this device.
    """
    if name is None:
        found = next(b for b in _ALL.values() if b.available() and b.supports(device))
        if device.type == "cpu" and found.name == "reference":
            warn_missing("codecs run in plain torch, about ten times slower")
        return found
    if isinstance(name, Backend):
        backend, name = name, name.name
    elif isinstance(name, str) and name in _ALL:
        backend = _ALL[name]
    else:
        raise CodecError(f"there is no back end {name!r}: choose one of {', '.join(map(repr, _ALL))}")
    usable = ", ".join(map(repr, backends()))
    if not backend.available():
        raise CodecError(f"the back end {name!r} does not run on this machine: {usable} do")
    if not backend.supports(device):
        raise CodecError(
            f"the back end {name!r} takes no tensors on {device}: leave backend=None to have one chosen"
        )
    return backend
