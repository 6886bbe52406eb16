"""Where in the user's code something happened: the lines that errors of the capture name."""

from __future__ import annotations

import traceback
from collections.abc import Iterable
from pathlib import Path

import torch

#: Whose frames are not the user's.
_OURS = tuple(str(Path(file).parent) for file in (torch.__file__, Path(__file__).parent))


def users_line(frames: Iterable[traceback.FrameSummary] | None = None) -> str:
    """The innermost frame of the user's, as a line to append to an error; empty where there is none.

    Args:
        frames: outermost first; those that run now where none are given.
    """
    stack = traceback.extract_stack() if frames is None else list(frames)
    users = [f for f in stack if not f.filename.startswith(_OURS) and not f.filename.startswith("<")]
    if not users:
        return ""
    last = users[-1]
    return f'\nFile "{last.filename}", line {last.lineno}, in {last.name}\n    {last.line}'
