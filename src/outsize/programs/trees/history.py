"""What changed in a function from one release of a package to the next, read from archives.

People's mistakes are to be had where they were mended: in a function that is the same in two releases but for one line.
A release is a wheel, an archive of text; nothing of it is imported or run. Most of two neighbouring releases is equal,
so the archive's own checksums say which modules to look at, and a cut along the indentation says which functions of
these differ, before anything is parsed.
"""

from __future__ import annotations

import dataclasses
import re
import textwrap
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from .corpus import LEFT_OUT

#: A longer module is data, not code.
MOST_BYTES = 2**21
_WORD = re.compile(r"is\s+not\b|not\s+in\b|\w+|[<>=!*/|&^+%-]+|\S")
_HEAD = re.compile(r"([ \t]*)(?:async[ \t]+)?(def|class)[ \t]+(\w+)")
Key = tuple[str, str, int]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Change:
    """One function in two releases that differ in one line of it.

    Attributes:
        path, name: the module within the archive, the function with the classes around it.
        before, after: the function's text, from `def` on.
        line: the line that differs, from 1 within the text.
    """

    path: str
    name: str
    before: str
    after: str
    line: int


class Release:
    """The modules of one wheel, tests and vendored copies left out."""

    def __init__(self, path: Path) -> None:
        self._archive = zipfile.ZipFile(path)
        self.modules: dict[str, tuple[int, int]] = {
            member.filename: (member.CRC, member.file_size)
            for member in self._archive.infolist()
            if member.filename.endswith(".py") and member.file_size <= MOST_BYTES
            and not any(part in f"/{member.filename}" for part in LEFT_OUT)
        }  # fmt: skip

    def text(self, module: str) -> str:
        """Its text, or nothing where it is not UTF-8 or the archive is damaged there."""
        try:
            return self._archive.read(module).decode("utf-8")
        except (UnicodeDecodeError, zipfile.BadZipFile, OSError, ValueError):
            return ""

    def close(self) -> None:
        self._archive.close()


def blocks(text: str) -> dict[tuple[str, int], list[str]]:
    """The outermost functions of a module by qualified name and number among those of that name: their lines.

    Cut by indentation, which is wrong where a text in quotes stands to the left of its function; such a piece does
    not parse later on and is left out then.
    """
    found: dict[tuple[str, int], list[str]] = {}
    around: list[tuple[int, str]] = []
    lines = text.split("\n")
    at = 0
    while at < len(lines):
        match = _HEAD.match(lines[at])
        if match is None:
            at += 1
            continue
        depth = len(match[1].expandtabs())
        around = [(d, n) for d, n in around if d < depth]
        if match[2] == "class":
            around.append((depth, match[3]))
            at += 1
            continue
        end = _end(lines, at, depth)
        name = ".".join([*(n for _, n in around), match[3]])
        number = 0
        while (name, number) in found:
            number += 1
        found[name, number] = lines[at:end]
        at = end
    return found


def _end(lines: Sequence[str], start: int, depth: int) -> int:
    """One past the last line that belongs to the function that begins in line `start`."""
    last = start
    for at in range(start + 1, len(lines)):
        line = lines[at]
        bare = line.strip()
        if not bare or bare[0] == "#":
            continue
        if len(line) - len(line.lstrip()) <= depth and bare[0] not in ")]}":
            break
        last = at
    return last + 1


def changes(old: Release, new: Release) -> Iterator[Change]:
    """Functions that are the same in both but for one line, in which one word or the order of words differs."""
    for module, mark in new.modules.items():
        if module not in old.modules or old.modules[module] == mark:
            continue
        before, after = blocks(old.text(module)), blocks(new.text(module))
        for key in before.keys() & after.keys():
            one, two = before[key], after[key]
            if len(one) != len(two) or one == two:
                continue
            differ = [at for at, (a, b) in enumerate(zip(one, two)) if a != b]
            if len(differ) == 1 and may_be_one_rewrite(one[differ[0]], two[differ[0]]):
                texts = {"before": dedented(one), "after": dedented(two)}
                yield Change(path=module, name=key[0], line=differ[0] + 1, **texts)


def may_be_one_rewrite(before: str, after: str) -> bool:
    """Whether the words of two lines differ in one, or in their order: nothing else is worth parsing."""
    one, two = _WORD.findall(before), _WORD.findall(after)
    if len(one) != len(two):
        # A number may gain or lose its sign.
        return abs(len(one) - len(two)) == 1 and ("-1" in before) != ("-1" in after)
    differ = sum(a != b for a, b in zip(one, two))
    return differ == 1 or (differ > 1 and sorted(one) == sorted(two))


def unchanged(old: Release, new: Release) -> Iterator[tuple[str, str, str]]:
    """`(module, name, text)` of the functions whose text is the same in both."""
    for module, mark in new.modules.items():
        if module not in old.modules:
            continue
        after = blocks(new.text(module))
        before = after if old.modules[module] == mark else blocks(old.text(module))
        for key, lines in after.items():
            if before.get(key) == lines:
                yield module, key[0], dedented(lines)


def dedented(lines: Sequence[str]) -> str:
    """The function as if it stood at the left margin."""
    return textwrap.dedent("\n".join(lines)) + "\n"
