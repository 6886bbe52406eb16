"""Many trees as a few integer arrays.

A tree network that keeps nodes as objects, or pads every tree to the largest, spends its time and memory on
bookkeeping: padding 128 functions of the standard library to a common shape takes 134 times more slots than
there are edges. A `Forest` is a concatenation of trees in breadth-first order instead: the children of a node
are neighbours in memory, a batch is a gather of ranges, and every layer is a few flat array operations
without a loop over nodes.

Arrays are numpy; parents are counted from the start of their own tree, so that a tree can be cut out or moved
without a rewrite. Spans are byte offsets into the UTF-8 text that was parsed.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from ...errors import TreesError
from ...files import Door, open_sealed, save_sealed
from .columns import Ints as Ints
from .columns import check_columns, check_texts, check_within

#: Of the files written by `Forest.save`; readers refuse others.
FORMAT, VERSION = "forest", 1
DOOR = Door(
    kind="a forest", remedy="write it again with Forest.save", error=TreesError, most_bytes=64 * 2**30
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Forest:
    """Trees in breadth-first order, packed end to end.

    Attributes:
        ptr: `[trees + 1]` int64, the range of each tree's nodes.
        parent: `[nodes]` int32, the parent counted from the tree's first node; -1 at a root.
        kind: `[nodes]` int16, an index into `kinds`.
        field: `[nodes]` int16, the role under the parent, an index into `fields`.
        token: `[nodes]` int32, an index into `tokens` (0 is the empty text).
        pos: `[nodes]` int32, the place among the siblings, from 0. Usually ascending in memory; a swap of two
            siblings exchanges their `pos` and moves nothing.
        start: `[nodes]` int32, first byte of the node in the source.
        end: `[nodes]` int32, one past the last byte.
        kinds, fields, tokens: the texts the indices stand for.
    """

    ptr: Ints
    parent: Ints
    kind: Ints
    field: Ints
    token: Ints
    pos: Ints
    start: Ints
    end: Ints
    kinds: Sequence[str] = ()
    fields: Sequence[str] = ()
    tokens: Sequence[str] = ()

    @property
    def trees(self) -> int:
        """How many trees there are."""
        return len(self.ptr) - 1

    @property
    def nodes(self) -> int:
        """How many nodes there are, in all trees."""
        return len(self.parent)

    @property
    def tree_of(self) -> Ints:
        """`[nodes]` int64: which tree each node belongs to."""
        return np.repeat(np.arange(self.trees), np.diff(self.ptr))

    @property
    def absolute_parent(self) -> Ints:
        """`[nodes]` int64: the parent as an index into the whole forest; -1 at a root."""
        base = np.repeat(np.asarray(self.ptr[:-1], np.int64), np.diff(self.ptr))
        return np.where(self.parent < 0, -1, self.parent + base)

    def check(self) -> Forest:
        """Assert that every tree is one rooted tree in breadth-first order, and every index within its list.

        Raises:
            TreesError: a parent that is missing, later than its child, cyclic, in another tree; children that are
                not contiguous; a tree without nodes; a kind, field or token without a text; places among siblings
                that are taken twice; a span that ends before it begins.
        """
        _check_shape(self)
        size = np.diff(self.ptr)
        first = np.asarray(self.ptr[:-1], np.int64)
        local = np.arange(self.nodes) - np.repeat(first, size)
        root = local == 0
        if (self.parent[root] != -1).any():
            tree = int(np.flatnonzero(self.parent[first] != -1)[0])
            raise TreesError(f"tree {tree}: the first node must be the root (parent -1)")
        bad = np.flatnonzero(~root & ((self.parent < 0) | (self.parent >= local)))
        if len(bad):
            node = int(bad[0])
            raise TreesError(
                f"node {node}: parent {int(self.parent[node])} must be an earlier node of the same tree "
                f"(0 … {int(local[node]) - 1}); order it with Forest.from_parents"
            )
        step = np.diff(self.parent)
        if (step[~root[1:] & ~root[:-1]] < 0).any():
            raise TreesError("children of one node must be neighbours: order with Forest.from_parents")
        _check_contents(self)
        return self

    def tree(self, index: int) -> Forest:
        """One tree as a forest of its own (a view of the same arrays).

        Args:
            index: which one, from 0.

        Returns:
            a forest of one tree.
        """
        return self.select([index])

    def select(self, trees: Sequence[int] | Ints) -> Forest:
        """The given trees, in the given order.

        Args:
            trees: indices, in any order; one may come twice.

        Returns:
            a forest of those, with the same texts.

        Raises:
            TreesError: an index that the forest does not have.
        """
        chosen = np.asarray(trees, np.int64)
        if len(chosen) and (chosen.min() < 0 or chosen.max() >= self.trees):
            raise TreesError(f"tree {int(chosen.max())} was asked for, the forest has {self.trees}")
        index, ptr = ranges(np.asarray(self.ptr), chosen)
        names = ("parent", "kind", "field", "token", "pos", "start", "end")
        return dataclasses.replace(self, ptr=ptr, **{name: getattr(self, name)[index] for name in names})

    @staticmethod
    def from_parents(parents: Sequence[Sequence[int]] | Sequence[Ints], **columns: Any) -> Forest:
        """A forest from parent arrays in any order (a root has parent -1), with optional `[nodes]` columns.

        Nodes are put in breadth-first order, siblings in the order given; columns follow their nodes.

        Args:
            parents: for each tree, the index of each node's parent in it; -1 at the root.
            columns: `kind`, `field`, `token`, `start`, `end`, each `[nodes]` over all trees; and the texts `kinds`,
                `fields`, `tokens`.

        Returns:
            the forest, checked.

        Raises:
            TreesError: no root, several roots, a cycle, a parent out of range.
        """
        orders, packed, places = [], [], []
        base = 0
        for tree, parent in enumerate(parents):
            array = np.asarray(parent, np.int64).reshape(-1)
            order = _breadth_first(array, tree)
            rank = np.empty_like(order)
            rank[order] = np.arange(len(order))
            ordered = np.where(array[order] < 0, -1, rank[np.maximum(array[order], 0)])
            orders.append(order + base)
            packed.append(ordered)
            places.append(_places(ordered))
            base += len(array)
        ptr = np.concatenate([[0], np.cumsum([len(p) for p in packed])]).astype(np.int64)
        texts: dict[str, Any] = {name: columns.pop(name, ()) for name in ("kinds", "fields", "tokens")}
        index = np.concatenate(orders) if orders else np.zeros(0, np.int64)
        types = {"kind": np.int16, "field": np.int16, "token": np.int32, "start": np.int32, "end": np.int32}
        data: dict[str, Any] = {
            name: np.asarray(columns.pop(name, np.zeros(base)), dtype)[index] for name, dtype in types.items()
        }
        if columns:
            raise TreesError(f"unknown columns {sorted(columns)}; a forest has {sorted(types)}")
        empty = np.zeros(0, np.int32)
        parent_column = np.concatenate(packed or [empty]).astype(np.int32)
        pos = np.concatenate(places or [empty]).astype(np.int32)
        return Forest(ptr=ptr, parent=parent_column, pos=pos, **data, **texts).check()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one file, memory-mapped again by `Forest.load`.

        Args:
            path: the file, which is replaced.
        """
        texts = {name: list(getattr(self, name)) for name in _TEXTS}
        save_sealed(path, _columns(self), format=FORMAT, version=VERSION, about=texts)

    @staticmethod
    def load(path: str | os.PathLike[str]) -> Forest:
        """Map a file written by `save`; its checksum and every index are checked first.

        Args:
            path: what `save` wrote.

        Returns:
            the forest; its arrays are read from the file as they are used.

        Raises:
            TreesError: missing, damaged, of another kind or version, or not a forest.
        """
        found = open_sealed(path, DOOR, format=FORMAT, version=VERSION)
        try:
            check_columns(found.arrays, DTYPES)
            check_texts(found.about, _TEXTS)
            columns: dict[str, Any] = {**found.arrays, **found.about}
            return Forest(**columns).check()
        except (TreesError, ValueError) as error:
            raise DOOR.fail(path, error) from error


#: dtype of each column.
DTYPES = {
    "ptr": "int64", "parent": "int32", "kind": "int16", "field": "int16", "token": "int32", "pos": "int32",
    "start": "int32", "end": "int32",
}  # fmt: skip
_TEXTS = ("kinds", "fields", "tokens")


def _columns(forest: Forest) -> dict[str, Ints]:
    names = [field.name for field in dataclasses.fields(forest) if field.name not in _TEXTS]
    return {name: getattr(forest, name) for name in names}


def _check_shape(forest: Forest) -> None:
    sizes = {name: len(column) for name, column in _columns(forest).items() if name != "ptr"}
    if len(set(sizes.values())) > 1:
        raise TreesError(f"columns of one forest differ in length: {sizes}")
    ptr = np.asarray(forest.ptr)
    if len(ptr) < 1 or ptr[0] != 0 or ptr[-1] != forest.nodes:
        raise TreesError(f"ptr must run from 0 to {forest.nodes} nodes, got {ptr[:1]} … {ptr[-1:]}")
    if (np.diff(ptr) < 1).any():
        raise TreesError(f"tree {int(np.flatnonzero(np.diff(ptr) < 1)[0])} has no nodes")


def _check_contents(forest: Forest) -> None:
    """Indices into the texts (where there are any), places among siblings, spans."""
    for name, texts in (("kind", forest.kinds), ("field", forest.fields), ("token", forest.tokens)):
        if len(texts):
            check_within(name, getattr(forest, name), 0, len(texts))
    parent = forest.absolute_parent
    inner = np.flatnonzero(parent >= 0)
    count = np.bincount(parent[inner], minlength=forest.nodes)
    first = np.cumsum(count) - count  # of a node's children, among all nodes that have a parent
    place = np.asarray(forest.pos, np.int64)[inner]
    slot = first[parent[inner]] + place
    taken = np.zeros(len(inner), np.bool_)
    fine = (place >= 0) & (place < count[parent[inner]])
    taken[slot[fine]] = True
    if not fine.all() or not taken.all():
        raise TreesError("pos must give each of n siblings another place from 0 to n - 1")
    wrong = np.flatnonzero((forest.start < 0) | (forest.end < forest.start))
    if len(wrong):
        node = int(wrong[0])
        raise TreesError(f"node {node} spans the bytes {int(forest.start[node])} to {int(forest.end[node])}")


def _breadth_first(parent: Ints, tree: int) -> Ints:
    """Level by level; one stable sort per level, so the cost is that of the levels, never of recursion."""
    count = len(parent)
    if count == 0:
        raise TreesError(f"tree {tree} has no nodes")
    if parent.min() < -1 or parent.max() >= count:
        raise TreesError(f"tree {tree}: parents must lie in -1 … {count - 1}")
    roots = np.flatnonzero(parent < 0)
    if len(roots) != 1:
        raise TreesError(f"tree {tree} has {len(roots)} roots (parent -1), it needs exactly one: "
                         "a cycle or two separate pieces cannot be a tree")  # fmt: skip
    children = np.argsort(parent, kind="stable")[1:]
    counts = np.bincount(parent[parent >= 0], minlength=count)
    first = np.concatenate([[0], np.cumsum(counts)])
    levels, level, seen = [], roots, 0
    while len(level):
        levels.append(level)
        seen += len(level)
        level = children[expand(first[level], counts[level])]
    if seen != count:
        raise TreesError(f"tree {tree}: {count - seen} of {count} nodes hang on a cycle, not on the root")
    return np.concatenate(levels)


def _places(parent: Ints) -> Ints:
    """Rank among the siblings, for parents in breadth-first order."""
    index = np.arange(len(parent))
    starts = np.concatenate([[True], parent[1:] != parent[:-1]])
    return index - np.maximum.accumulate(np.where(starts, index, 0))


def expand(first: Ints, count: Ints) -> Ints:
    """`[first[0] … first[0] + count[0] - 1, first[1] …]`: ranges spelled out."""
    count = np.asarray(count, np.int64)
    total = int(count.sum())
    skipped = np.cumsum(count) - count
    return np.repeat(np.asarray(first, np.int64) - skipped, count) + np.arange(total)


def ranges(ptr: Ints, chosen: Ints) -> tuple[Ints, Ints]:
    """Elements of the chosen ranges of a `ptr` array, and the `ptr` of the result."""
    count = ptr[chosen + 1] - ptr[chosen]
    return expand(ptr[chosen], count), np.concatenate([[0], np.cumsum(count)]).astype(np.int64)
