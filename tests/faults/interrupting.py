"""An exception at any chosen moment of a piece of work, as Ctrl-C or a time limit raises it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import outsize

PACKAGE = str(Path(outsize.__file__).parent)


class Struck(KeyboardInterrupt):
    """The interrupt; its own class, so that no other is taken for it."""


@contextmanager
def tracing(
    moment: Callable[[FrameType], bool], *, instructions: bool, under: str = PACKAGE
) -> Iterator[None]:
    """Raise before each line or instruction of the package for which `moment` says so, on this thread."""

    def local(frame: FrameType, event: str, _: Any) -> Any:
        if event == ("opcode" if instructions else "line") and moment(frame):
            sys.settrace(None)
            raise Struck
        return local

    def start(frame: FrameType, event: str, _: Any) -> Any:
        if not frame.f_code.co_filename.startswith(under):
            return None
        frame.f_trace_opcodes = instructions
        return local

    before = sys.gettrace()
    sys.settrace(start)
    try:
        yield
    finally:
        sys.settrace(before)


def moments(work: Callable[[], object], *, instructions: bool, under: str = PACKAGE) -> list[tuple[str, int]]:
    """Every moment of the work at which an interrupt may strike: file and line."""
    seen: list[tuple[str, int]] = []

    def note(frame: FrameType) -> bool:
        seen.append((frame.f_code.co_filename, frame.f_lineno))
        return False

    with tracing(note, instructions=instructions, under=under):
        work()
    return seen


def struck(work: Callable[[], object], at: int, *, instructions: bool, under: str = PACKAGE) -> bool:
    """Do the work, with an interrupt at its `at`-th moment. Whether it came through to the caller."""
    left = at

    def countdown(_: FrameType) -> bool:
        nonlocal left
        left -= 1
        return left < 0

    try:
        with tracing(countdown, instructions=instructions, under=under):
            work()
    except Struck:
        return True
    return False
