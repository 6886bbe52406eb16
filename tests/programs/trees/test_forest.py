"""Packed forests: order, checks, files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outsize.errors import TreesError
from outsize.programs.trees import Forest, parse
from outsize.programs.trees.functions import Functions, preorder
from outsize.programs.trees.python_front import python_functions


@pytest.mark.parametrize(
    ("parents", "match"),
    [
        ([], "has no nodes"),
        ([0], "0 roots"),
        ([1, 0], "0 roots"),
        ([-1, -1], "2 roots"),
        ([-1, 2, 1], "hang on a cycle"),
        ([-1, 5], "parents must lie"),
        ([-1, -2], "parents must lie"),
    ],
)
def test_what_is_no_tree(parents: list[int], match: str) -> None:
    with pytest.raises(TreesError, match=match):
        Forest.from_parents([parents])


def test_check_names_the_node() -> None:
    good = Forest.from_parents([[-1, 0, 0, 1]])
    for parent, match in (
        ([-1, 0, 0, 3], "node 3"),
        ([0, 0, 0, 1], "must be the root"),
        ([-1, 0, 1, 0], "neighbours"),
    ):
        bad = Forest(**{**vars(good), "parent": np.array(parent, np.int32)})
        with pytest.raises(TreesError, match=match):
            bad.check()
    with pytest.raises(TreesError, match="differ in length"):
        Forest(**{**vars(good), "kind": good.kind[:2]}).check()


@st.composite
def shuffled_trees(draw: st.DrawFn) -> list[list[int]]:
    trees = []
    for _ in range(draw(st.integers(1, 3))):
        n = draw(st.integers(1, 30))
        parent = [-1] + [draw(st.integers(0, i - 1)) for i in range(1, n)]
        names = draw(st.permutations(range(n)))
        renamed = [0] * n
        for node, above in enumerate(parent):
            renamed[names[node]] = -1 if above < 0 else names[above]
        trees.append(renamed)
    return trees


@settings(max_examples=60, deadline=None)
@given(shuffled_trees())
def test_order_keeps_every_tree(parents: list[list[int]]) -> None:
    columns = np.concatenate([np.arange(len(p)) for p in parents])
    forest = Forest.from_parents(parents, token=columns)
    for index, parent in enumerate(parents):
        tree = forest.tree(index)
        for above, name in zip(tree.parent.tolist(), tree.token.tolist()):
            assert parent[name] == (-1 if above < 0 else tree.token[above])
    order, last = preorder(forest)
    for index in range(forest.trees):
        low, high = forest.ptr[index : index + 2]
        assert sorted(order[low:high]) == list(range(high - low))
        walked = walk(forest.tree(index))
        assert [walked.index(n) for n in range(high - low)] == order[low:high].tolist()
        for node in range(low, high):
            inside = [n for n in range(low, high) if order[node] <= order[n] < last[node]]
            assert len(inside) == sum(
                descends(forest.tree(index), n - low, node - low) for n in range(low, high)
            )


def walk(tree: Forest) -> list[int]:
    stack, out = [0], []
    while stack:
        node = stack.pop()
        out.append(node)
        stack.extend(reversed(np.flatnonzero(tree.parent == node).tolist()))
    return out


def descends(tree: Forest, node: int, above: int) -> bool:
    while node >= 0 and node != above:
        node = int(tree.parent[node])
    return node == above


def test_select_repeats_and_reorders() -> None:
    forest = Forest.from_parents([[-1, 0], [-1], [-1, 0, 0]])
    picked = forest.select([2, 0, 2]).check()
    assert np.diff(picked.ptr).tolist() == [3, 2, 3]
    with pytest.raises(TreesError, match="tree 3 was asked"):
        forest.select([3])


def test_a_file_is_mapped_and_whole(tmp_path: Path) -> None:
    forest = parse("def f(a):\n    return a + 'ä'\n")
    forest.save(tmp_path / "x.forest")
    back = Forest.load(tmp_path / "x.forest")
    assert isinstance(back.parent, np.memmap)
    for name in ("ptr", "parent", "kind", "field", "token", "pos", "start", "end"):
        np.testing.assert_array_equal(getattr(back, name), getattr(forest, name))
    assert list(back.tokens) == list(forest.tokens)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x.forest"]


def test_damaged_and_foreign_files(tmp_path: Path) -> None:
    path = tmp_path / "x.forest"
    parse("x = 1\ny = x + 2\n").save(path)
    data = path.read_bytes()
    for cut in (0, 4, 40, len(data) - 3):
        path.write_bytes(data[:cut])
        with pytest.raises(TreesError, match="damaged"):
            Forest.load(path)
    path.write_bytes(data.replace(b'\\"version\\": 1', b'\\"version\\": 9'))
    with pytest.raises(TreesError, match="this version reads"):
        Forest.load(path)
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(TreesError, match="checksum does not match"):
        Forest.load(path)
    python_functions("def f(x): return x").save(path)
    with pytest.raises(TreesError, match="'functions'"):
        Forest.load(path)
    with pytest.raises(TreesError, match="no such file"):
        Functions.load(tmp_path / "absent")


def test_ten_thousand_levels() -> None:
    forest = Forest.from_parents([[-1, *range(9999)]])
    order, last = preorder(forest)
    np.testing.assert_array_equal(order, np.arange(10_000))
    assert set(last.tolist()) == {10_000}
