"""Where in the user's code something happened: the lines that errors of the capture name."""

from __future__ import annotations

import sysconfig
import traceback
from collections.abc import Iterable
from pathlib import Path

import torch
from torch.fx import Node

_STANDARD = sysconfig.get_paths()["stdlib"]
_NOT_THEIRS = tuple(str(Path(file).parent) for file in (torch.__file__, Path(__file__).parent))


def is_users(filename: str) -> bool:
    """Whether a frame of that file is the user's, or of a library that the user chose: not torch's, Python's or ours."""
    standard = filename.startswith(_STANDARD) and "site-packages" not in filename
    return not (standard or filename.startswith((*_NOT_THEIRS, "<")))


def users_line(frames: Iterable[traceback.FrameSummary] | None = None) -> str:
    """The innermost frame of the user's, as a line to append to an error; empty where there is none.

    Args:
        frames: outermost first; those that run now where none are given.
    """
    stack = traceback.extract_stack() if frames is None else list(frames)
    users = [f for f in stack if is_users(f.filename)]
    if not users:
        return ""
    last = users[-1]
    return f'\nFile "{last.filename}", line {last.lineno}, in {last.name}\n    {last.line}'


def line_of(node: Node) -> str:
    """Where in the user's code a node comes from, likewise."""
    frames = (node.meta.get("stack_trace") or "").split('File "')[1:]
    users = [f for f in frames if is_users(f.split('"')[0])]
    return f'\nFile "{users[-1].rstrip()}' if users else ""
