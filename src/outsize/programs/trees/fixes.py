"""One-line fixes of the kinds that the detector knows, and the set of them as one file.

A change between two releases is one of the detector's rewrites, or it is something else. Both versions are packed; if
they have the same shape and one node's token differs, or two arguments have changed places, and the table of rewrites
of the older version has that very rewrite, the change is taken: the older version as the function with a bug, the newer
one as its repair. That leaves out what brings a new name, which no rewrite could have proposed.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import TreesError
from ...files import Door, open_sealed, save_sealed
from .forest import Ints
from .functions import Functions, concatenate
from .grammar import ATTRIBUTE, LITERAL, OPERATION, SWAP, VARIABLE
from .inject import Bugs, swap_siblings
from .python_front import python_functions
from .rewrites import candidates

#: Functions outside of this range are left out, as in `corpus`; a longer one may be mended as well.
MIN_NODES, MAX_NODES = 10, 1024
#: The same exchange of words in more functions of one release is a renaming, not a mistake; of one operator or number,
#: a new convention.
MOST_ALIKE = {VARIABLE: 3, ATTRIBUTE: 3, SWAP: 3, OPERATION: 8, LITERAL: 8}
FORMAT, VERSION = "fixes", 1
_LABELS = ("kind", "place", "right", "project")
_DOOR = Door(
    kind="a set of fixes", remedy="mine it again with benchmarks/trees-real/collect.py", error=TreesError,
    most_bytes=2**34,
)  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class Edit:
    """One rewrite of one function.

    Attributes:
        kind: of the place.
        place: row of the function's own place table.
        right: what is to stand there: a symbol of the function's own table, an operator's number, a token, or 1 for an
            exchange.
        words: what stood there and what stands there now, as text.
    """

    kind: int
    place: int
    right: int
    words: tuple[str, str]


def packed(text: str) -> Functions | None:
    """The one function of a text; None where it is not one, or not of a size to be judged."""
    try:
        found = python_functions(text, max_nodes=MAX_NODES)
    except TreesError:
        return None
    return found if found.count == 1 and found.forest.nodes >= MIN_NODES else None


def edit_between(before: Functions, after: Functions) -> Edit | None:
    """The rewrite of `before` (one function) that gives `after`; None where there is none."""
    old, new = before.forest, after.forest
    if old.nodes != new.nodes:
        return None
    one = [old.tokens[i] for i in old.token.tolist()]
    two = [new.tokens[i] for i in new.token.tolist()]
    same_shape = all(
        np.array_equal(getattr(old, n), getattr(new, n)) for n in ("kind", "parent", "field", "pos")
    )
    if same_shape:
        differ = [i for i in range(len(one)) if one[i] != two[i]]
        if len(differ) == 1:
            return _token_edit(before, differ[0], (one[differ[0]], two[differ[0]]))
    if Counter(one) == Counter(two):
        return _exchange(before, _reading(after))
    return None


def _token_edit(before: Functions, node: int, words: tuple[str, str]) -> Edit | None:
    table = candidates(before)
    mine = np.flatnonzero((before["place_node"][table.place] == node) & ~table.current & (table.kind != SWAP))
    for row in mine.tolist():
        place, value, kind = int(table.place[row]), int(table.value[row]), int(table.kind[row])
        if _spelled(before, kind, value) == words[1]:
            return Edit(kind=kind, place=place, right=value, words=words)
    return None


def _spelled(functions: Functions, kind: int, value: int) -> str:
    from .grammar import OPERATORS

    if kind == OPERATION:
        return OPERATORS[value]
    return functions.forest.tokens[int(functions["symbol_token"][value]) if kind != LITERAL else value]


def _reading(functions: Functions) -> list[tuple[int, str]]:
    forest = functions.forest
    order = np.argsort(functions.order)
    return [(int(forest.kind[i]), forest.tokens[int(forest.token[i])]) for i in order.tolist()]


def _exchange(before: Functions, wanted: list[tuple[int, str]]) -> Edit | None:
    for row in np.flatnonzero(before["place_kind"] == SWAP).tolist():
        tried = before.select([0])
        a, b = int(tried["place_a"][row]), int(tried["place_b"][row])
        swap_siblings(tried, 0, a, b)
        if _reading(tried) == wanted:
            return Edit(kind=SWAP, place=row, right=1, words=("", ""))
    return None


def without_renamings(edits: Sequence[Edit]) -> Ints:
    """Indices of the edits of one release that are not one of many alike."""
    count = Counter((edit.kind, *edit.words) for edit in edits)
    return np.array(
        [i for i, e in enumerate(edits) if count[e.kind, *e.words] <= MOST_ALIKE[e.kind]], np.int64
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fixes:
    """Functions with a bug, each beside itself without it.

    Attributes:
        before, after: as many functions each.
        kind, place, right: `[fixes]`, as in `Edit`.
        project: `[fixes]` index into `projects`.
        projects: names.
    """

    before: Functions
    after: Functions
    kind: Ints
    place: Ints
    right: Ints
    project: Ints
    projects: Sequence[str]

    @property
    def count(self) -> int:
        return len(self.kind)

    @staticmethod
    def of(found: Iterable[tuple[str, Functions, Functions, Edit]]) -> Fixes:
        """From `(project, before, after, edit)`; a fix of a function that was seen before is left out.

        Raises:
            TreesError: none at all.
        """
        from .dedup import exact_keys

        rows = list(found)
        if not rows:
            raise TreesError("no fix was found")
        before = concatenate([row[1] for row in rows])
        _, first = np.unique(exact_keys(before), return_index=True)
        keep = np.sort(first)
        projects = sorted({row[0] for row in rows})
        labels = {
            name: np.array([getattr(rows[i][3], name) for i in keep.tolist()], np.int32)
            for name in ("kind", "place", "right")
        }
        return Fixes(
            before=before.select(keep), after=concatenate([row[2] for row in rows]).select(keep), **labels,
            project=np.array([projects.index(rows[i][0]) for i in keep.tolist()], np.int32),
            projects=projects,
        )  # fmt: skip

    def select(self, chosen: Ints) -> Fixes:
        labels = {name: getattr(self, name)[chosen] for name in _LABELS}
        return dataclasses.replace(
            self, before=self.before.select(chosen), after=self.after.select(chosen), **labels
        )

    def bugs(self) -> Bugs:
        """The labels as `collate` takes them for `before`."""
        row = np.asarray(self.before["place_ptr"][:-1]) + self.place
        named = np.isin(self.kind, (VARIABLE, ATTRIBUTE))
        right = np.where(named, np.asarray(self.before["symbol_ptr"][:-1]) + self.right, self.right)
        return Bugs(kind=self.kind.astype(np.int64), place=row, right=right, wrong=np.full(self.count, -1))

    def save(self, folder: Path, name: str) -> None:
        """Write `NAME.before.forest`, `NAME.after.forest` and `NAME.labels`."""
        folder.mkdir(parents=True, exist_ok=True)
        self.before.save(folder / f"{name}.before.forest")
        self.after.save(folder / f"{name}.after.forest")
        labels = {label: np.asarray(getattr(self, label), np.int32) for label in _LABELS}
        about: dict[str, Any] = {"projects": list(self.projects)}
        save_sealed(folder / f"{name}.labels", labels, format=FORMAT, version=VERSION, about=about)

    @staticmethod
    def load(folder: Path, name: str) -> Fixes:
        """Read what `save` wrote.

        Raises:
            TreesError: missing, damaged, or labels that do not fit the functions.
        """
        path = folder / f"{name}.labels"
        found = open_sealed(path, _DOOR, format=FORMAT, version=VERSION)
        projects = found.about.get("projects")
        if sorted(found.arrays) != sorted(_LABELS) or not isinstance(projects, list):
            raise _DOOR.fail(path, "it does not hold the labels of fixes")
        fixes = Fixes(
            before=Functions.load(folder / f"{name}.before.forest"),
            after=Functions.load(folder / f"{name}.after.forest"),
            projects=[str(p) for p in projects], **dict(found.arrays),
        )  # fmt: skip
        if problem := fixes._misfit():
            raise _DOOR.fail(path, problem)
        return fixes

    def _misfit(self) -> str:
        """How labels and functions do not agree; empty where they do."""
        sizes = {self.before.count, self.after.count, *(len(getattr(self, name)) for name in _LABELS)}
        if len(sizes) != 1:
            return f"labels and functions differ in number: {sorted(sizes)}"
        places = np.diff(self.before["place_ptr"])
        if ((self.place < 0) | (self.place >= places)).any():
            return "a label names a place that its function does not have"
        if not np.array_equal(self.before["place_kind"][self.bugs().place], self.kind):
            return "a label's kind is not its place's"
        if ((self.project < 0) | (self.project >= len(self.projects))).any():
            return "a label names a project that is not listed"
        return ""
