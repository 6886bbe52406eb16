"""Train PyTorch networks that are too large for the memory at hand, under a byte budget that holds."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any, final

from .errors import BudgetError, BudgetWarning, OutsizeError

if TYPE_CHECKING:
    from .api import compile, meter, plan, record, release, report, resident

__version__ = "0.1.0"
__all__ = [
    "BudgetError",
    "BudgetWarning",
    "OutsizeError",
    "__version__",
    "compile",
    "meter",
    "plan",
    "record",
    "release",
    "report",
    "resident",
]

_ROOMS = ("codecs", "device", "errors", "integrations", "measure", "parallel", "programs", "values", "zoo")
_LAZY = ("compile", "meter", "plan", "record", "release", "report", "resident")


def __getattr__(name: str) -> Any:
    """The calls that need torch are imported when first asked for, so that `outsize --help` answers at once."""
    if name in _LAZY:
        api = importlib.import_module(".api", __name__)
        # Importing a subpackage binds its name here, and two of them are called like a public call.
        importlib.import_module(".report", __name__)
        globals().update({call: getattr(api, call) for call in _LAZY})
        return globals()[name]
    if name in _ROOMS:
        return importlib.import_module(f".{name}", __name__)
    raise AttributeError(f"module 'outsize' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*__all__, *_ROOMS})


@final
class _Package(ModuleType):
    """Keeps `outsize.plan` and `outsize.report` the calls of these names, whoever imports the rooms so called.

    Importing a submodule sets it as an attribute of its package, which would hide the call; the room stays
    reachable by `from outsize.plan import …`.
    """

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in _LAZY and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
