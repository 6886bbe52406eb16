"""The one door to the C module: `kernels` is the module, or None where it could not be built.

Callers ask `available()` and keep a torch path; the absence is said once, as a warning, by whoever needed it
(`warn_missing`), never silently.
"""

from __future__ import annotations

import functools
import importlib
import warnings
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from ._native import Kernels

__all__ = ["available", "kernels", "warn_missing"]


def _load() -> Kernels | None:
    try:
        return cast("Kernels", importlib.import_module("outsize.native._native"))
    except ImportError:
        return None


kernels: Kernels | None = _load()


def available() -> bool:
    """Whether the C module was built for this machine."""
    return kernels is not None


@functools.cache
def warn_missing(purpose: str) -> None:
    """Say once per purpose that the C module is absent and what is used instead."""
    warnings.warn(
        f"outsize was installed without its C module, so {purpose}; install a C compiler and run "
        "`pip install --force-reinstall --no-deps .` to build it",
        RuntimeWarning,
        stacklevel=3,
    )
