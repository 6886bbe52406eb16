"""Which line of the user's a message is about."""

from __future__ import annotations

import sys
import traceback
from os.path import basename, dirname

from ...errors import NpiError

__all__ = ["caller", "unrecordable"]

_HERE = dirname(__file__)


def unrecordable(name: str, error: Exception) -> NpiError:
    """What to say of a program that fails on what `read` and pointers are under a recorder."""
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [f for f in frames if dirname(f.filename) != _HERE]
    where = f" at {basename(theirs[-1].filename)}:{theirs[-1].lineno}" if theirs else ""
    return NpiError(
        f"{name} fails while it is recorded{where} ({type(error).__name__}: {error}). There, a value knows arithmetic "
        "and comparisons and a pointer its own methods only; put other computation into a function of the values, "
        "which becomes a primitive"
    )


def caller() -> str:
    """File and line of the nearest frame outside of this folder."""
    frame = sys._getframe(1)
    while dirname(frame.f_code.co_filename) == _HERE and frame.f_back is not None:
        frame = frame.f_back
    return f"{basename(frame.f_code.co_filename)}:{frame.f_lineno}"
