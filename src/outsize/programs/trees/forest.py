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
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...errors import TreesError

#: An integer array, or a mask; numpy's own stubs widen most results to this.
Ints = npt.NDArray[Any]

#: Version of the file written by `save_arrays`; readers refuse others.
FORMAT = "outsize-trees"
VERSION = 1


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
        return len(self.ptr) - 1

    @property
    def nodes(self) -> int:
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
        """Assert that every tree is one rooted tree in breadth-first order.

        Raises:
            TreesError: a parent that is missing, later than its child, cyclic, in another tree; children that
            are
                not contiguous; a tree without nodes.
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
        return self

    def tree(self, index: int) -> Forest:
        """One tree as a forest of its own (a view of the same arrays)."""
        return self.select([index])

    def select(self, trees: Sequence[int] | Ints) -> Forest:
        """The given trees, in the given order."""
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
        """Write one file, memory-mapped again by `Forest.load`."""
        save_arrays(path, "forest", _columns(self), {name: list(getattr(self, name)) for name in _TEXTS})

    @staticmethod
    def load(path: str | os.PathLike[str]) -> Forest:
        """Map a file written by `save`; nothing is read until it is used.

        Raises:
            TreesError: missing, truncated, of another kind or version.
        """
        arrays, texts = load_arrays(path, "forest")
        return Forest(**{**arrays, **texts})


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


def save_arrays(
    path: str | os.PathLike[str],
    content: str,
    arrays: Mapping[str, npt.NDArray[Any]],
    texts: Mapping[str, Any] | None = None,
) -> None:
    """Write arrays as one safetensors file with a versioned header, whole or not at all."""
    from safetensors.numpy import save_file

    target = Path(path)
    # One entry: the library writes several in an order that changes from run to run.
    header = {
        "outsize": json.dumps(
            {"format": FORMAT, "version": VERSION, "content": content, "texts": texts or {}}
        )
    }
    partial = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        save_file(
            {name: np.ascontiguousarray(a) for name, a in arrays.items()}, str(partial), metadata=header
        )
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def load_arrays(
    path: str | os.PathLike[str], content: str
) -> tuple[dict[str, npt.NDArray[Any]], dict[str, Any]]:
    """Map the arrays of a file written by `save_arrays`.

    Raises:
        TreesError: missing, truncated, of another kind or version.
    """
    from safetensors import SafetensorError, safe_open

    if not Path(path).is_file():
        raise TreesError(f"no such file: {path}")
    try:
        with safe_open(str(path), framework="np") as opened:
            header = json.loads((opened.metadata() or {}).get("outsize", "{}"))
        table = _offsets(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise TreesError(f"{path} is damaged or not a safetensors file: {error}") from error
    found = tuple(header.get(name) for name in ("format", "version", "content"))
    if found != (FORMAT, VERSION, content):
        raise TreesError(f"{path} holds {found}, this version reads {(FORMAT, VERSION, content)}")
    return {name: _map(path, *place) for name, place in table.items()}, header["texts"]


_TYPES = {"I8": "i1", "U8": "u1", "I16": "<i2", "I32": "<i4", "I64": "<i8", "U32": "<u4", "U64": "<u8",
          "F32": "<f4", "F16": "<f2", "BOOL": "?"}  # fmt: skip


def _offsets(path: str | os.PathLike[str]) -> dict[str, tuple[str, list[int], int]]:
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    return {
        name: (_TYPES[entry["dtype"]], entry["shape"], 8 + length + entry["data_offsets"][0])
        for name, entry in header.items()
        if name != "__metadata__"
    }


def _map(path: str | os.PathLike[str], dtype: str, shape: list[int], offset: int) -> npt.NDArray[Any]:
    if 0 in shape:
        return np.zeros(shape, dtype)
    return np.memmap(path, dtype=dtype, mode="r", offset=offset, shape=tuple(shape))
