"""`outsize trees similar`: which functions of a folder do the same as this one?"""

from __future__ import annotations

import dataclasses
from bisect import bisect_right
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from ...errors import TreesError
from .functions import Functions
from .python_front import Source
from .scan import ScanConfig, find_files, read_functions
from .similar import Matcher, embed


@dataclasses.dataclass(frozen=True, kw_only=True)
class Match:
    """One function: where it starts and ends (lines from 1), and its similarity, at most 1."""

    path: str
    line: int
    end_line: int
    name: str
    similarity: float


def function_at(path: Path, line: int) -> Functions:
    """The outermost function that holds a line, as a set of one.

    Raises:
        TreesError: unreadable, or no function there; says which lines have one.
    """
    try:
        source, functions = read_functions(path, ScanConfig())
    except OSError as error:
        raise TreesError(f"cannot read {path}: {error.strerror}") from error
    spans = [(low, high) for _, low, high in _spans(source, functions)]
    found = [i for i, (low, high) in enumerate(spans) if low <= line <= high]
    if not found:
        known = ", ".join(f"{low}-{high}" for low, high in spans[:8]) or "none"
        raise TreesError(f"{path}:{line} is in no function; lines with functions: {known}")
    return functions.select(found[:1])


def similar(
    model: Matcher, query: Functions, folder: Path, *, top: int, warn: Callable[[str], None],
    seen: Callable[[], None] = lambda: None,
) -> list[Match]:  # fmt: skip
    """The `top` functions below a folder nearest to the query, the nearest first.

    A function is embedded and forgotten file by file; kept are the best so far.

    Raises:
        TreesError: no such folder.
    """
    if not folder.exists():
        raise TreesError(f"{folder}: no such file or folder")
    wanted = embed(model, query)[0]
    best: list[Match] = []
    for path in find_files([folder], warn):
        seen()
        try:
            source, functions = read_functions(path, ScanConfig())
        except (TreesError, OSError) as error:
            warn(str(error) if str(path) in str(error) else f"{path}: {error}")
            continue
        if not functions.count:
            continue
        scores = embed(model, functions) @ wanted
        for (name, low, high), score in zip(
            _spans(source, functions), np.round(scores.astype(float), 4).tolist()
        ):
            best.append(Match(path=str(path), line=low, end_line=high, name=name, similarity=score))
        best = sorted(best, key=lambda m: (-m.similarity, m.path, m.line))[:top]
    return best


def _spans(source: Source, functions: Functions) -> Iterator[tuple[str, int, int]]:
    roots = np.asarray(functions.forest.ptr[:-1])
    for root in roots.tolist():
        low, high = int(functions.forest.start[root]), int(functions.forest.end[root])
        name = functions.forest.tokens[int(functions.forest.token[root])]
        yield name, bisect_right(source.lines, low), bisect_right(source.lines, max(high - 1, low))
