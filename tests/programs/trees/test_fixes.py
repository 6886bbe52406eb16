"""Fixes between two releases: what is taken for one, what is not, and what a file of them holds."""

from __future__ import annotations

import dataclasses
import zipfile
from pathlib import Path

import numpy as np
import pytest

from outsize.errors import TreesError
from outsize.programs.trees import fixes, history
from outsize.programs.trees.batch import collate
from outsize.programs.trees.grammar import ATTRIBUTE, LITERAL, OPERATION, SWAP, VARIABLE
from outsize.programs.trees.inject import Bugs
from outsize.programs.trees.words import WordTable

BODY = """\
    def bound(self, x, low, high):
        '''low or high?'''
        if x < low:
            return self.near(low, high)
        return self.start + self.stop(x, 1)
"""
FIXED = {
    VARIABLE: ("if x < low", "if x < high"),
    SWAP: ("near(low, high)", "near(high, low)"),
    OPERATION: ("if x < low", "if x <= low"),
    LITERAL: ("(x, 1)", "(x, 0)"),
    ATTRIBUTE: ("return self.near", "return self.start"),
}
NOT_FIXED = [
    ("if x < low", "if x < middle"),  # a name that is nowhere in the function
    ("low or high?", "high or low?"),  # a comment
    ("x, low, high", "x, low, top"),
    ("self.near(", "self.close("),
    ("(x, 1)", "(x, 400)"),
]


def edit(change: tuple[str, str]) -> fixes.Edit | None:
    before = history.dedented(BODY.split("\n"))
    one, two = fixes.packed(before), fixes.packed(before.replace(*change))
    assert one is not None
    assert two is not None
    return fixes.edit_between(one, two)


@pytest.mark.parametrize("kind", sorted(FIXED))
def test_each_kind_of_fix_is_recognised(kind: int) -> None:
    found = edit(FIXED[kind])
    assert found is not None
    assert found.kind == kind


@pytest.mark.parametrize("change", NOT_FIXED)
def test_other_changes_are_none(change: tuple[str, str]) -> None:
    assert edit(change) is None


def wheel(folder: Path, version: str, modules: dict[str, str]) -> Path:
    path = folder / f"p-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in modules.items():
            archive.writestr(name, text)
    return path


def test_changes_between_two_releases(tmp_path: Path) -> None:
    head = "import os\n\n\nclass A:\n"
    old = (
        head
        + BODY
        + "\n    @property\n    def same(self):\n        return 1\n\n\ndef last(a, b):\n    return a - b\n"
    )
    new = old.replace("if x < low", "if x <= low").replace("a - b", "a + b - a")
    modules = {"p/a.py": old, "p/b.py": old, "p/tests/c.py": old, "p/bad.py": old}
    one = history.Release(wheel(tmp_path, "1", modules))
    changed = {"p/a.py": new, "p/b.py": old, "p/tests/c.py": new, "p/bad.py": "\0", "p/new.py": new}
    two = history.Release(wheel(tmp_path, "2", changed))
    (found,) = history.changes(one, two)
    assert (found.path, found.name, found.line) == ("p/a.py", "A.bound", 3)
    assert found.before == history.dedented(BODY.rstrip("\n").split("\n"))
    assert found.after == found.before.replace("<", "<=")
    same = sorted((module, name) for module, name, _ in history.unchanged(one, two))
    assert same == [("p/a.py", "A.same"), ("p/b.py", "A.bound"), ("p/b.py", "A.same"), ("p/b.py", "last")]
    one.close()
    two.close()


def test_functions_are_cut_where_they_end() -> None:
    text = (
        "def f(\n    a,\n):\n    def g():\n        return a\n\n# between\n    return g\n\n\nasync def f(a): return a\n"
        "class B:\n    def f(self): pass\n    class C:\n        def f(self):\n            pass\n    def g(self): pass\n"
    )
    found = history.blocks(text)
    assert list(found) == [("f", 0), ("f", 1), ("B.f", 0), ("B.C.f", 0), ("B.g", 0)]
    assert found["f", 0] == text.split("\n")[:8]


def test_a_renaming_is_not_many_fixes() -> None:
    renamed = [fixes.Edit(kind=VARIABLE, place=i, right=0, words=("a", "b")) for i in range(4)]
    other = fixes.Edit(kind=VARIABLE, place=9, right=0, words=("a", "c"))
    assert fixes.without_renamings([*renamed, other]).tolist() == [4]
    assert fixes.without_renamings([*renamed[:3], other]).tolist() == [0, 1, 2, 3]


def mined() -> fixes.Fixes:
    before = history.dedented(BODY.split("\n"))
    rows = []
    for kind, change in FIXED.items():
        text = f"{before}\n".replace("bound", f"bound{kind}")
        one, two = fixes.packed(text), fixes.packed(text.replace(*change))
        assert one is not None
        assert two is not None
        found = fixes.edit_between(one, two)
        assert found is not None
        rows.append((f"p{kind % 2}", one, two, found))
    return fixes.Fixes.of([*rows, rows[0]])


def test_labels_are_repairs_of_the_batch(tmp_path: Path) -> None:
    found = mined()
    assert found.count == len(FIXED)
    found.save(tmp_path, "x")
    again = fixes.Fixes.load(tmp_path, "x")
    assert again.projects == ["p0", "p1"]
    for one in (found, again, again.select(np.array([4, 1, 0, 2, 3]))):
        words = WordTable(one.before.forest.tokens, 512)
        batch = collate(one.before.select(np.arange(one.count)), words, one.bugs())
        assert (batch.repair >= 0).all()
        kinds = batch.place_kind[batch.candidate_place[batch.repair]]
        assert kinds.tolist() == one.kind.tolist()
    bugs = again.bugs()
    assert isinstance(bugs, Bugs)


def test_labels_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    found = mined()
    for name, value in (("place", 99), ("kind", 3), ("project", 2)):
        wrong = {name: np.full(found.count, value, np.int32)}
        dataclasses.replace(found, **wrong).save(tmp_path, "x")
        with pytest.raises(TreesError, match="a set of fixes"):
            fixes.Fixes.load(tmp_path, "x")
    with pytest.raises(TreesError, match="no fix"):
        fixes.Fixes.of([])
