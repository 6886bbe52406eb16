"""Operators whose kernels call products, which autocast casts, and which a dispatch mode would hide from it.

Inside of `__torch_dispatch__` autocast is off: what reaches it has been cast already. A kernel that calls `bmm` itself
(`F.affine_grid`), or an operator that somebody has written in Python, would run otherwise than in the plain step, so for
those it is switched on again. Whether it was on is known when the module is called, and can no longer be asked inside of
the mode: an autocast that the module enters itself is noticed by its depth.
"""

from __future__ import annotations

from typing import Any, final

import torch

from ..errors import CaptureError
from ..fx.operators import casts_inside, is_named

__all__ = ["Casting"]

#: Autocast runs `torch.pinverse`, which calls it, in float32, and `torch.linalg.pinv` not.
_UNCLEAR = ("linalg_pinv",)


@final
class Casting:
    """Of one call.

    Args:
        device_type: the step's.
    """

    def __init__(self, device_type: str) -> None:
        self._type, self._on = device_type, torch.is_autocast_enabled(device_type)
        self._dtype, self._depth = torch.get_autocast_dtype(device_type), _depth()

    def concerns(self, func: Any) -> bool:
        """Whether an operator runs otherwise where autocast is on."""
        return _depth() > 0 and casts_inside(func)

    def run(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Run an operator as the plain step would.

        Raises:
            CaptureError: the module has entered an autocast itself, and nobody can tell whether it is on; or who calls.
        """
        if not self.concerns(func):
            return func(*args, **kwargs)
        if _depth() != self._depth:
            raise CaptureError(
                f"{func} runs inside of a torch.autocast that the module enters itself. An observed step cannot be "
                "equal to the plain one there: enter autocast around the module's call"
            )
        if self._on and is_named(func, _UNCLEAR):
            raise CaptureError(
                f"{func}: under autocast torch.linalg.pinv and torch.pinverse compute differently, and an observed step "
                f"cannot tell which of them was called: call it inside of torch.autocast({self._type!r}, enabled=False)"
            )
        with torch.autocast(self._type, self._dtype, enabled=self._on):
            return func(*args, **kwargs)


def _depth() -> int:
    """How many autocasts have been entered."""
    torch.autocast_increment_nesting()
    return torch.autocast_decrement_nesting()
