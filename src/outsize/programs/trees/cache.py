"""Findings of files that were scanned before, by the content of the file.

A scan of a large repository may be cut off, and the next one reads mostly the same files. One text file, to which each
finished file adds a line: a checksum, the key (of the content, the weights and the settings), and the findings. A line
that was cut off or does not fit is passed over, and its file scanned again.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import xxhash

from ...errors import TreesError
from ...values import build
from ...values.ranges import Range
from .finding import Finding

#: A larger cache is begun anew: some 100,000 files.
MOST_BYTES = 2**27


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Entry:
    key: str
    functions: Annotated[int, Range(0, 2**40)]
    findings: tuple[Finding, ...]


class Cache:
    """Findings by content; paths are filled in by the reader.

    Args:
        path: the file; made with its folders where there is none.
        salt: what else the findings depend on (weights, settings).

    Raises:
        TreesError: it cannot be read or written.
    """

    def __init__(self, path: Path, salt: str) -> None:
        self._salt = salt
        self._known: dict[str, tuple[int, int]] = {}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            large = path.exists() and path.stat().st_size > MOST_BYTES
            self._file = path.open("w+b" if large else "a+b")
        except OSError as error:
            raise TreesError(f"cannot keep a cache in {path}: {error}") from error
        self._index()

    def _index(self) -> None:
        """Where the whole lines are; only they are kept in memory, not what they hold."""
        self._file.seek(0)
        at = 0
        for line in self._file:
            whole = line.endswith(b"\n") and line[16:17] == b" " and line[33:34] == b" "
            if whole and xxhash.xxh64_hexdigest(line[17:-1]).encode() == line[:16]:
                self._known[line[17:33].decode("ascii", "replace")] = (at, len(line))
            at += len(line)
        if at and not line.endswith(b"\n"):
            self._file.write(b"\n")

    def key(self, content: bytes) -> str:
        return xxhash.xxh64_hexdigest(self._salt.encode() + b"\0" + content)

    def get(self, key: str, path: str) -> tuple[int, list[Finding]] | None:
        """Functions and findings of a file with that content, as of `path`; None where it is not known."""
        if key not in self._known:
            return None
        start, size = self._known[key]
        self._file.seek(start)
        try:
            entry = build(_Entry, json.loads(self._file.read(size)[34:]))
        except (ValueError, RecursionError):
            return None
        if entry.key != key:
            return None
        return entry.functions, [dataclasses.replace(found, path=path) for found in entry.findings]

    def put(self, key: str, functions: int, findings: list[Finding]) -> None:
        plain = [dataclasses.asdict(found) | {"path": ""} for found in findings]
        body = (
            f"{key} ".encode() + json.dumps({"key": key, "functions": functions, "findings": plain}).encode()
        )
        line = xxhash.xxh64_hexdigest(body).encode() + b" " + body + b"\n"
        self._file.seek(0, 2)
        self._known[key] = (self._file.tell(), len(line))
        self._file.write(line)
        self._file.flush()

    def close(self) -> None:
        self._file.close()


@contextmanager
def opened(path: Path | None, weights: Path, settings: object) -> Iterator[Cache | None]:
    """A cache for scans with these weights and settings, closed at the end; None without a path.

    Raises:
        TreesError: it cannot be read or written.
    """
    if path is None:
        yield None
        return
    cache = Cache(path, f"{xxhash.xxh64_hexdigest(weights.read_bytes())} {settings!r}")
    try:
        yield cache
    finally:
        cache.close()
