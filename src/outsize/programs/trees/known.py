"""Findings that somebody has seen already: a comment in the line, or a file of fingerprints.

A finding is worth reading once. `# outsize: ignore` in a line keeps its findings away, `# outsize: ignore[KIND]` those of
one kind. A baseline lists files and fingerprints: these are made of the function's name, the kind and the line's own
text, so that they hold when lines are added above or weights change the repair, and end with the line.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePath
from typing import Annotated

import xxhash

from ...errors import TreesError
from ...files import Door
from ...values import load_json
from ...values.ranges import Range
from .finding import Finding

_IGNORE = re.compile(rb"#\s*outsize:\s*ignore\b(?:\[([\w\s,-]*)\])?")
_DOOR = Door(
    kind="a baseline", remedy="write it again with `outsize trees scan --write-baseline`", error=TreesError,
    most_bytes=2**26,
)  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class Baseline:
    """What `--write-baseline` writes.

    Attributes:
        version: of the way in which fingerprints are made.
        findings: entries of those to keep away.
    """

    version: Annotated[int, Range(1, 1)] = 1
    findings: tuple[str, ...] = ()


def ignored(lines: Iterable[bytes], kind: str) -> bool:
    """Whether one of the lines says that findings of this kind are not wanted there."""
    for line in lines:
        if (match := _IGNORE.search(line)) is not None:
            kinds = match[1]
            if kinds is None or kind in kinds.decode().replace(",", " ").split():
                return True
    return False


def fingerprint(function: str, kind: str, line: bytes, column: int) -> str:
    """16 hexadecimal digits, the same wherever the file lies.

    Args:
        function: the outermost function or class, empty at the top level.
        kind: of the finding.
        line: the text of its first line.
        column: where in the line it begins, from 0; indentation does not count.
    """
    text = line.strip()
    inside = column - (len(line) - len(line.lstrip()))
    parts = [function, kind, text.decode("utf-8", "replace"), str(inside)]
    return xxhash.xxh64_hexdigest("\0".join(parts).encode("utf-8", "surrogatepass"))


def entry(finding: Finding) -> str:
    """The finding's line of a baseline; `./a.py` and `a.py` are the same file."""
    return f"{PurePath(finding.path).as_posix()}:{finding.fingerprint}"


def read_baseline(path: Path) -> frozenset[str]:
    """Raises:
    TreesError: no such file, or not a baseline.
    """
    return frozenset(load_json(Baseline, path, _DOOR).findings)


def baseline_text(findings: Iterable[Finding]) -> str:
    """As `read_baseline` reads it, one entry a line."""
    return json.dumps({"version": 1, "findings": sorted({entry(f) for f in findings})}, indent=1) + "\n"


def lines_of(text: bytes, starts: Sequence[int], first: int, last: int) -> Iterator[bytes]:
    """The lines `first … last` (from 1) of a text whose lines begin at `starts`."""
    for number in range(first, min(last, len(starts)) + 1):
        end = starts[number] if number < len(starts) else len(text)
        yield text[starts[number - 1] : end].rstrip(b"\r\n")
