"""Functions as trees, with what may be wrong in each: names and where they occur, and the suspicious places.

A forest alone says what hangs under what. To judge a name one must also know which other names could stand
there, and where each of them is used; to judge an operator, which others fit without parentheses. `Functions`
adds these three tables to a forest, one tree per function, all counted from the start of their function:

* symbols: a local variable, or an attribute of one base name (`self.x`), with the stretch of the function
  that sees it. Symbols of one group compete: all locals are group 0, the attributes of each base are a group.
* occurrences: each node where a symbol is written, grouped by symbol.
* places: each node that can be suspected, its kind (`grammar.PLACES`) and three integers about it:

  | kind | a | b | c |
  |---|---|---|---|
  | variable, attribute | its symbol | | 1 |
  | swap (one row per pair) | first argument's node | second argument's node | 1 if order matters |
  | operator | its number | bit set: operators that fit here | bit set: those that change the meaning |
  | literal | its token | | 1 |
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence

import numpy as np

from ...errors import TreesError
from ...files import Door, open_sealed, save_sealed
from .columns import check_columns, check_texts
from .forest import DTYPES, Forest, Ints, ranges
from .grammar import RESERVED
from .wellformed import check_functions

#: Table name → its columns. Every table has a `<table>_ptr` of `[functions + 1]`.
TABLES = {
    "symbol": ("symbol_token", "symbol_group", "symbol_low", "symbol_high"),
    "occurrence": ("occurrence_node", "occurrence_symbol", "occurrence_role"),
    "place": ("place_node", "place_kind", "place_a", "place_b", "place_c"),
    "alias": ("alias_a", "alias_b"),
}
#: Of the files written by `Functions.save`; readers refuse others.
FORMAT, VERSION = "functions", 1
DOOR = Door(
    kind="packed functions", remedy="build them again with `outsize trees corpus`", error=TreesError,
    most_bytes=64 * 2**30,
)  # fmt: skip
NODE_COLUMNS = ("parent", "kind", "field", "token", "pos", "start", "end", "order", "last")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Functions:
    """Packed functions: a forest, and the tables of the module's text.

    Attributes:
        forest: one tree per function.
        order: `[nodes]` int32, rank of the node in a walk from left to right (preorder), from 0 in each
            function.
        last: `[nodes]` int32, one past the rank of the node's last descendant.
        symbol_low, symbol_high: the ranks between which the symbol is visible.
        columns: all tables by column name, and their `_ptr` arrays; in a corpus also `distribution`,
            `[functions]`.
    """

    forest: Forest
    order: Ints
    last: Ints
    columns: dict[str, Ints]

    @property
    def count(self) -> int:
        return self.forest.trees

    def __getitem__(self, name: str) -> Ints:
        return self.columns[name]

    def select(self, chosen: Sequence[int] | Ints) -> Functions:
        """The given functions, in the given order; copies."""
        index = np.asarray(chosen, np.int64)
        nodes, _ = ranges(np.asarray(self.forest.ptr), index)
        columns: dict[str, Ints] = {}
        for table, names in TABLES.items():
            rows, ptr = ranges(self.columns[f"{table}_ptr"], index)
            columns[f"{table}_ptr"] = ptr
            columns |= {name: self.columns[name][rows] for name in names}
        if "distribution" in self.columns:
            columns["distribution"] = np.asarray(self.columns["distribution"])[index]
        return Functions(
            forest=self.forest.select(index), order=self.order[nodes], last=self.last[nodes], columns=columns
        )

    def compact(self) -> Functions:
        """The same functions with no more tokens than they use, besides the reserved ones.

        A selection keeps the list of all; a large file in many portions would be spelled out once for each.
        """
        forest, symbol = self.forest, self.columns["symbol_token"]
        used = np.unique(np.concatenate([np.arange(len(RESERVED)), forest.token, symbol]))
        tokens = [forest.tokens[index] for index in used.tolist()]
        return dataclasses.replace(
            self,
            forest=dataclasses.replace(
                forest, token=np.searchsorted(used, forest.token).astype(np.int32), tokens=tokens
            ),
            columns={**self.columns, "symbol_token": np.searchsorted(used, symbol).astype(np.int32)},
        )

    def owner(self, table: str) -> Ints:
        """`[rows]`: which function each row of a table belongs to."""
        return np.repeat(np.arange(self.count), np.diff(self.columns[f"{table}_ptr"]))

    def owner_of(self, table: str, row: int) -> int:
        """Which function one row of a table belongs to."""
        return int(np.searchsorted(self.columns[f"{table}_ptr"], row, side="right")) - 1

    def save(self, path: str | os.PathLike[str]) -> None:
        forest = self.forest
        nodes = {name: getattr(forest, name) for name in ("ptr", *NODE_COLUMNS[:-2])}
        texts = {"kinds": list(forest.kinds), "fields": list(forest.fields), "tokens": list(forest.tokens)}
        arrays = {**nodes, "order": self.order, "last": self.last, **self.columns}
        save_sealed(path, arrays, format=FORMAT, version=VERSION, about=texts)

    @staticmethod
    def load(path: str | os.PathLike[str]) -> Functions:
        """Map a file written by `save`; its checksum and every index are checked first.

        Raises:
            TreesError: missing, damaged, of another kind or version, or with tables that do not fit the trees.
        """
        found = open_sealed(path, DOOR, format=FORMAT, version=VERSION)
        arrays, texts = dict(found.arrays), found.about
        try:
            check_columns(arrays, _DTYPES, optional=("distribution",))
            check_texts(texts, ("kinds", "fields", "tokens"))
            nodes = {name: arrays.pop(name) for name in ("ptr", *NODE_COLUMNS[:-2])}
            forest = Forest(**{**nodes, **texts}).check()
            ranks = {name: arrays.pop(name) for name in NODE_COLUMNS[-2:]}
            functions = Functions(forest=forest, **ranks, columns=arrays)
            check_functions(functions)
        except (TreesError, ValueError) as error:
            raise DOOR.fail(path, error) from error
        return functions


_DTYPES = {
    **DTYPES, "order": "int32", "last": "int32", "distribution": "int32",
    **{f"{table}_ptr": "int64" for table in TABLES},
    **{name: "int32" for names in TABLES.values() for name in names},
}  # fmt: skip


def levels(forest: Forest) -> list[Ints]:
    """Node indices by depth, roots first."""
    parent = forest.absolute_parent
    level = np.asarray(forest.ptr[:-1], np.int64)
    children, counts = np.flatnonzero(parent >= 0), np.bincount(parent[parent >= 0], minlength=forest.nodes)
    first = np.concatenate([[0], np.cumsum(counts)])
    found = []
    while len(level):
        found.append(level)
        index, _ = ranges(first, level)
        level = children[index]
    return found


def preorder(forest: Forest) -> tuple[Ints, Ints]:
    """Rank of every node in a walk from left to right, and one past its last descendant: `[nodes]` int32
    each.

    Two passes over the levels of the whole forest (sizes from the bottom, ranks from the top), so the depth
    of a tree costs array operations and no recursion. Siblings are taken in memory order.
    """
    parent = forest.absolute_parent
    depth = levels(forest)
    size = np.ones(forest.nodes, np.int64)
    for level in reversed(depth[1:]):
        np.add.at(size, parent[level], size[level])
    before = np.zeros(forest.nodes, np.int64)
    if len(depth) > 1:
        child = np.concatenate(depth[1:])
        running = np.cumsum(size[child]) - size[child]
        starts = np.concatenate([[True], parent[child][1:] != parent[child][:-1]])
        base = running[np.maximum.accumulate(np.where(starts, np.arange(len(child)), 0))]
        before[child] = running - base
    order = np.zeros(forest.nodes, np.int64)
    for level in depth[1:]:
        order[level] = order[parent[level]] + 1 + before[level]
    return order.astype(np.int32), (order + size).astype(np.int32)


def concatenate(parts: Sequence[Functions]) -> Functions:
    """Functions of several files or packages as one set, their tokens merged into one list."""
    if not parts:
        raise TreesError("no functions to put together")
    known: dict[str, int] = {}
    tokens: list[str] = []
    maps = [merge_tokens(part.forest.tokens, known, tokens) for part in parts]
    first = parts[0].forest
    nodes = {
        name: np.concatenate([getattr(part.forest, name) for part in parts])
        for name in NODE_COLUMNS[:-2]
        if name != "token"
    }
    forest = Forest(
        ptr=_joined_ptr([np.asarray(part.forest.ptr) for part in parts]), **nodes,
        token=np.concatenate([m[part.forest.token] for m, part in zip(maps, parts)]),
        kinds=first.kinds, fields=first.fields, tokens=tokens,
    )  # fmt: skip
    columns: dict[str, Ints] = {}
    for table, names in TABLES.items():
        columns[f"{table}_ptr"] = _joined_ptr([part[f"{table}_ptr"] for part in parts])
        columns |= {name: np.concatenate([part[name] for part in parts]) for name in names}
    columns["symbol_token"] = np.concatenate([m[part["symbol_token"]] for m, part in zip(maps, parts)])
    return Functions(
        forest=forest, columns=columns,
        order=np.concatenate([part.order for part in parts]),
        last=np.concatenate([part.last for part in parts]),
    )  # fmt: skip


def merge_tokens(texts: Sequence[str], known: dict[str, int], tokens: list[str]) -> Ints:
    """Numbers of `texts` in the growing list `tokens`: `[len(texts)]` int32."""
    numbers = np.empty(len(texts), np.int32)
    for index, text in enumerate(texts):
        number = known.get(text)
        if number is None:
            number = known[text] = len(tokens)
            tokens.append(text)
        numbers[index] = number
    return numbers


def _joined_ptr(ptrs: Sequence[Ints]) -> Ints:
    sizes = np.concatenate([np.diff(ptr) for ptr in ptrs])
    return np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
