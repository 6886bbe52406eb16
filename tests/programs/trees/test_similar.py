"""Rewrites keep the meaning, the matcher learns to see through them, and the search finds a function's copy."""

from __future__ import annotations

import ast
import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from outsize.cli.main import app
from outsize.errors import TreesError
from outsize.programs.trees import similar
from outsize.programs.trees.python_front import python_functions
from outsize.programs.trees.same_meaning import REWRITES, Fresh, rewritten, thoroughly

from .samples import module

#: Functions of one list of whole numbers; each rewrite applies to one of them at least.
PROGRAMS = {
    "for_to_while": "def f(a):\n    s = 0\n    for x in a:\n        if x == 3:\n            continue\n"
    "        if x > 7:\n            break\n        s += x\n    return s, a",
    "comprehension_to_loop": "def f(a):\n    b = [x * x for x in a if x % 2]\n    return [y + 1 for y in b]",
    "guard_to_else": "def f(a):\n    if not a:\n        return -1\n    b = a[0]\n    return b * 2",
    "else_to_guard": "def f(a):\n    if len(a) > 3:\n        return a[:3]\n    else:\n        a = a + [1]\n    return a",
    "branches_exchanged": "def f(a):\n    if not a:\n        x = 1\n    else:\n        x = 2\n    return x",
    "reordered": "def f(a):\n    x = 1\n    y = a\n    z = x\n    return x, y, z",
}
INPUTS = [[], [1], [3, 1, 4, 1, 5], [9, 2, 6], list(range(12))]


def run(function: ast.AST) -> list[object]:
    space: dict = {}
    exec(compile(ast.unparse(function), "test", "exec"), space)
    return [space["f"](list(values)) for values in INPUTS]


@pytest.mark.parametrize("name", PROGRAMS)
def test_each_rewrite_applies_and_keeps_the_results(name: str) -> None:
    function = ast.parse(PROGRAMS[name]).body[0]
    assert isinstance(function, ast.FunctionDef)
    (rewrite,) = [r for r in REWRITES if r.__name__ == name]
    applied = 0
    for at in range(len(function.body)):
        block = rewrite(list(function.body), at, Fresh(function), function)
        if block is not None:
            changed = ast.fix_missing_locations(
                ast.FunctionDef("f", function.args, block, [], lineno=1, type_params=[])
            )
            assert ast.unparse(changed) != ast.unparse(function)
            assert run(changed) == run(function)
            applied += 1
    assert applied


@pytest.mark.parametrize("name", PROGRAMS)
def test_many_rewrites_together_keep_the_results(name: str) -> None:
    function = ast.parse(PROGRAMS[name]).body[0]
    for seed in range(10):
        changed, applied = rewritten(function, random.Random(seed), most=5)
        assert applied
        assert run(changed) == run(function), ast.unparse(changed)


#: All families in one function, nested, several times.
EVERYTHING = """
def f(a):
    x = 1
    y = a
    low = [p + x for p in y if p < 4]
    high = [q - x for q in y if q >= 4]
    total = 0
    for v in low:
        if v == 2:
            continue
        for w in high:
            if w > v + 5:
                break
            if w % 2:
                total += w
            else:
                total -= v
    if total > 9:
        return total
    elif not high:
        return -1
    z = 3
    u = 4
    if total < z:
        return [u * r for r in low]
    return low, high, total
"""


@pytest.mark.parametrize("text", [*PROGRAMS.values(), EVERYTHING])
def test_thorough_rewriting_keeps_the_results(text: str) -> None:
    function = ast.parse(text).body[0]
    seen = set()
    for seed in range(8):
        changed, applied = thoroughly(function, random.Random(seed))
        seen |= set(applied)
        assert run(changed) == run(function), ast.unparse(changed)
        assert [n for n in ast.walk(changed) if isinstance(n, ast.For)] == []
        assert ast.unparse(thoroughly(function, random.Random(seed))[0]) == ast.unparse(changed)
    assert seen
    if text is EVERYTHING:
        assert seen == {rewrite.__name__ for rewrite in REWRITES}


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("def f(a):\n    for x in a:\n        pass\n    else:\n        a = 1\n    return a", "for_to_while"),
        ("def f(a, x):\n    b = [x for x in a]\n    return b, x", "comprehension_to_loop"),
        ("def f(a):\n    b = [b for b in a]\n    return b", "comprehension_to_loop"),
        ("def f(a):\n    x = 1\n    y = x\n    return y", "reordered"),
        ("def f(a):\n    x = a.pop()\n    y = a.pop()\n    return x, y", "reordered"),
        ("def f(a):\n    if a:\n        a = 2\n    return a", "guard_to_else"),
    ],
)
def test_where_the_conditions_do_not_hold_nothing_is_done(text: str, name: str) -> None:
    function = ast.parse(text).body[0]
    assert isinstance(function, ast.FunctionDef)
    (rewrite,) = [r for r in REWRITES if r.__name__ == name]
    for at in range(len(function.body)):
        assert rewrite(list(function.body), at, Fresh(function), function) is None


TINY = similar.MatcherConfig(width=16, layers=2, rows=256, inner=8, out=16)


def test_renaming_locals_changes_no_bit() -> None:
    torch.manual_seed(0)
    model = similar.Matcher(TINY).eval()
    one = python_functions("def f(a, b):\n    c = a.size\n    return [x + c for x in g(b)]\n")
    other = python_functions("def h(q, r):\n    s = q.size\n    return [t + s for t in g(r)]\n")
    third = python_functions("def h(q, r):\n    s = q.shape\n    return [t + s for t in g(r)]\n")
    a, b, c = (similar.embed(model, functions) for functions in (one, other, third))
    np.testing.assert_array_equal(a, b)
    assert np.abs(a - c).max() > 1e-4
    np.testing.assert_allclose(np.linalg.norm(a, axis=1), 1, rtol=1e-5)


def test_the_matcher_learns(tmp_path: Path) -> None:
    found = list(similar.pairs([module("calendar"), module("textwrap")], 0, most=3))
    left, right = similar.packed_pairs(found)
    assert left.count == right.count == len(found) > 20
    torch.manual_seed(0)
    model = similar.Matcher(TINY)
    losses: list[float] = []
    similar.train_matcher(model, left, right, steps=15, batch=16, said=lambda step, loss: losses.append(loss))
    assert losses[-1] < 0.7 * losses[0]
    rows = np.arange(left.count)
    assert similar.recall_at_1(similar.embed(model, right), similar.embed(model, left), rows) > 0.5
    similar.save_matcher(model, tmp_path / "m.safetensors")
    back = similar.load_matcher(tmp_path / "m.safetensors")
    np.testing.assert_allclose(similar.embed(back, left), similar.embed(model, left), atol=0.02)
    (tmp_path / "m.safetensors").write_bytes(b"123")
    for path in (tmp_path / "m.safetensors", tmp_path / "absent"):
        with pytest.raises(TreesError, match=r"damaged|no trained matcher"):
            similar.load_matcher(path)


def test_ties_are_no_hits() -> None:
    same = np.ones((3, 2))
    assert similar.recall_at_1(same, same, np.arange(3)) == 0
    eye = np.eye(3)
    assert similar.recall_at_1(eye, eye, np.arange(3)) == 1


def test_search_from_the_command_line(tmp_path: Path) -> None:
    torch.manual_seed(0)
    similar.save_matcher(similar.Matcher(TINY), tmp_path / "m.safetensors")
    (tmp_path / "a.py").write_text(
        "x = 1\n\ndef f(a, b):\n    return a.size + len(b)\n\ndef g():\n    pass\n"
    )
    (tmp_path / "b.py").write_text("class K:\n    def h(p, q):\n        return p.size + len(q)\n")
    (tmp_path / "c.py").write_text("def (:\n")
    shared = ["--in", str(tmp_path), "--model", str(tmp_path / "m.safetensors"), "--json", "-"]
    result = CliRunner().invoke(app, ["trees", "similar", f"{tmp_path / 'a.py'}:4", *shared])
    assert result.exit_code == 0, result.output
    rows = json.loads(result.stdout)
    assert [(Path(r["path"]).name, r["name"], r["line"], r["end_line"], r["similarity"]) for r in rows[:2]] == [
        ("a.py", "f", 3, 4, 1.0), ("b.py", "h", 2, 3, 1.0),
    ]  # fmt: skip
    assert result.stderr.count("warning: ") == 1
    for place, match in (
        (f"{tmp_path / 'a.py'}:1", "lines with functions: 3-4, 6-7"),
        ("a.py", "is not FILE:LINE"),
        ("absent.py:1", "cannot read absent.py: No such file"),
        (f"{tmp_path / 'a.py'}:4 --in absent", "absent: no such file or folder"),
    ):
        failed = CliRunner().invoke(app, ["trees", "similar", *shared, *place.split()])
        assert isinstance(failed.exception, TreesError)
        assert match in str(failed.exception)
