"""Which lines a git change touched, so that a scan can keep to them."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

from ...errors import TreesError

_HUNK = re.compile(r"@@ -\S+ \+(\d+)(?:,(\d+))? @@")


def changed_lines(revision: str, folder: Path) -> dict[Path, list[tuple[int, int]]]:
    """First and last changed line of every hunk, by file, between a revision and the working tree.

    Raises:
        TreesError: git is missing, no repository, no such revision.
    """
    if revision.startswith("-"):
        raise TreesError(f"{revision!r} is not a revision")
    root = Path(_git(["rev-parse", "--show-toplevel"], folder).strip())
    text = _git(
        [
            "-c",
            "core.quotePath=false",
            "diff",
            "--no-color",
            "--no-ext-diff",
            "--no-renames",
            "-U0",
            revision,
            "--",
        ],
        root,
    )
    found: dict[Path, list[tuple[int, int]]] = {}
    current: Path | None = None
    for line in text.split("\n"):
        if line.startswith("+++ "):
            name = line[4:].rstrip("\t")
            current = None if name == "/dev/null" else (root / name.removeprefix("b/")).resolve()
        elif current is not None and (match := _HUNK.match(line)):
            first, count = int(match[1]), int(match[2] or 1)
            # A pure removal has no lines of its own; the line before it stands for the place.
            found.setdefault(current, []).append((max(first, 1), first + max(count, 1) - 1))
    return found


def touches(spans: Sequence[tuple[int, int]], first: int, last: int) -> bool:
    """Whether any span meets the lines `first … last`."""
    return any(low <= last and high >= first for low, high in spans)


def _git(arguments: list[str], folder: Path) -> str:
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, check=False)
    except OSError as error:
        raise TreesError(f"cannot run git: {error}") from error
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().split("\n")[0]
        raise TreesError(f"git in {folder}: {said}")
    return done.stdout.decode("utf-8", "surrogateescape")
