"""Which device a step runs on: the one accelerator that any of its tensors lies on, or the processor."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from ..errors import OutsizeError

__all__ = ["CPU", "check_device", "device_of"]

CPU = torch.device("cpu")


def device_of(tensors: Iterable[torch.Tensor]) -> torch.device:
    """The device whose bytes a budget counts; scalars on the processor beside it do not matter.

    Raises:
        OutsizeError: the tensors lie on several accelerators, or on one that has no memory meter here.
    """
    found = sorted({str(t.device) for t in tensors if t.device.type not in ("cpu", "meta")})
    if len(found) > 1:
        raise OutsizeError(
            f"the module lies on several devices ({', '.join(found)}), and a budget is one device's: give "
            "outsize.compile the part on each, or train copies with outsize.parallel"
        )
    device = torch.device(found[0]) if found else CPU
    if device.type not in ("cpu", "cuda"):
        raise OutsizeError(f"no memory meter for a {device.type!r} device; 'cpu' and 'cuda' have one")
    return device


def check_device(name: str) -> None:
    """Whether a device of that name is there.

    Raises:
        OutsizeError: it is not, or it has no memory meter here.
    """
    kind, _, number = name.partition(":")
    count = torch.cuda.device_count() if kind == "cuda" else int(kind == "cpu")
    if (number and not number.isdigit()) or int(number or 0) >= count:
        known = ", ".join(["'cpu'", *(f"'cuda:{n}'" for n in range(torch.cuda.device_count()))])
        why = "" if kind != "cuda" or count else " (torch sees no GPU)"
        raise OutsizeError(f"there is no device {name!r} here{why}: give {known}")
