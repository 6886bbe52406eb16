"""Code outside of functions: every statement in one unit, with the names it sees, at the right lines."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from outsize.cli.main import app
from outsize.programs.trees import scan, store
from outsize.programs.trees.functions import Functions
from outsize.programs.trees.grammar import LITERAL, OPERATION, VARIABLE
from outsize.programs.trees.model import Detector, DetectorConfig
from outsize.programs.trees.python_front import Source, python_functions, python_outside
from outsize.programs.trees.rewrites import candidates

from .samples import MODULES, module
from .test_scan import git

SCRIPT = """\
import os
first, last = 3, 9


def helper(a=first + 1):
    return a - 1


@decorated(first - 2)
class Table(Base):
    \"\"\"text\"\"\"
    low = 1
    high = low * 7
    read = lambda self: self.low + low

    def size(self):
        return self.high % 2

    class Inner:
        width = 5


if first < last:

    def late():
        return 6

    for step in range(first):
        print("ä", step - last)
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    store.save(Detector(DetectorConfig(width=16, layers=2, rows=512, inner=8, head=8)), path)
    return path


def places(text: bytes, found: Functions, *kinds: int) -> list[tuple[int, bytes]]:
    """Start and text of the places of some kinds, in the order of the text."""
    forest = found.forest
    node = forest.ptr[found.owner("place")] + found["place_node"]
    return sorted(
        (int(forest.start[n]), text[forest.start[n] : forest.end[n]])
        for n, kind in zip(node, found["place_kind"])
        if kind in kinds
    )


@pytest.mark.parametrize("nodes", [1, 12, 256])
def test_units_hold_what_no_function_holds(nodes: int) -> None:
    text = Source(SCRIPT).text
    found, lines = python_outside(SCRIPT, run_nodes=nodes)
    found.forest.check()
    assert found.count == len(lines)
    assert [t for _, t in places(text, found, OPERATION)] == [b"-", b"*", b"+", b"<", b"-"]
    assert [t for _, t in places(text, found, LITERAL)] == [b"3", b"9", b"2", b"1", b"7", b"5"]
    names = [t for _, t in places(text, found, VARIABLE)]
    # `low` in the lambda is no name of the class: its scopes do not see the body.
    assert names == [b"low", b"first", b"last", b"first", b"step", b"last"]
    own = sorted(line for spans in lines for low, high in spans for line in range(low, high + 1))
    code = [number for number, line in enumerate(SCRIPT.splitlines(), 1) if line]
    inside = {5, 6, 16, 17, 25, 26}
    assert [n for n in own if n in code] == [n for n in code if n not in inside]


@pytest.mark.parametrize("name", MODULES)
def test_runs_change_no_place_and_overlap_no_function(name: str) -> None:
    text = module(name)
    whole, runs = (python_outside(text, run_nodes=nodes)[0] for nodes in (10**9, 20))
    assert runs.count >= whole.count
    for kind in (OPERATION, LITERAL):
        assert places(text, runs, kind) == places(text, whole, kind)
    functions = python_functions(text)
    spans = [
        (int(functions.forest.start[r]), int(functions.forest.end[r])) for r in functions.forest.ptr[:-1]
    ]
    for start, said in places(text, runs, OPERATION, LITERAL, VARIABLE):
        assert said
        assert not any(low <= start < high for low, high in spans)


def test_a_run_knows_the_names_of_earlier_ones() -> None:
    code = "import os.path as where, sys\nfrom m import n\na = 1\nunused = 4\ndef f(): pass\nb = a, n, where, f, b\n"
    found, lines = python_outside(code, run_nodes=1)
    assert lines[-1] == [(6, 6)]
    last = found.select([found.count - 1])
    assert {last.forest.tokens[t] for t in last["symbol_token"]} == {"a", "n", "where", "f", "b"}
    table = candidates(last)
    assert len(set(table.place.tolist())) == 5  # each of the five that are read
    assert table.count == 25  # with every name as a candidate


def test_a_finding_at_the_top_level_is_at_its_line(tmp_path: Path, model: Path) -> None:
    file = tmp_path / "a.py"
    file.write_text(SCRIPT)
    arguments = ["trees", "scan", str(file), "--model", str(model), "--json", "-", "--min-probability", "0"]
    rows = json.loads(CliRunner().invoke(app, arguments).stdout)
    lines = SCRIPT.split("\n")
    said = {
        (r["line"], lines[r["line"] - 1][r["column"] - 1 : r["end_column"] - 1]): r["repair"] for r in rows
    }
    assert {line for line, _ in said} == {2, 5, 6, 9, 12, 13, 14, 17, 20, 23, 26, 28, 29}
    assert said[29, "last"] in {"first", "step", "helper", "Table", "late", "os"}
    assert said[29, 'print("ä", step - last)'] == 'print(step - last, "ä")'
    assert (13, "*") in said
    assert (17, "%") in said


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("step - last", "step + last", {2, 23, 28, 29}),
        ("low * 7", "low * 8", {9, 12, 13, 14}),
        ("return 6", "return 7", {26}),
        ("return a - 1", "return a - 2", {5, 6}),
    ],
)
def test_diff_keeps_to_the_unit_of_the_changed_line(
    tmp_path: Path, model: Path, old: str, new: str, expected: set[int]
) -> None:
    (tmp_path / "a.py").write_text(SCRIPT)
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "first")
    (tmp_path / "a.py").write_text(SCRIPT.replace(old, new))
    # From another folder: the repository is that of the path.
    arguments = ["trees", "scan", str(tmp_path), "--diff", "HEAD", "--model", str(model), "--json", "-"]
    result = CliRunner().invoke(app, [*arguments, "--min-probability", "0"])
    lines = {row["line"] for row in json.loads(result.stdout)}
    assert lines == expected


def test_diff_covers_decorators(tmp_path: Path, model: Path) -> None:
    (tmp_path / "a.py").write_text("@keep(3)\ndef f(a, b):\n    return a - b\n")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "first")
    (tmp_path / "a.py").write_text("@keep(4)\ndef f(a, b):\n    return a - b\n")
    arguments = ["trees", "scan", str(tmp_path), "--diff", "HEAD", "--model", str(model), "--json", "-"]
    rows = json.loads(CliRunner().invoke(app, [*arguments, "--min-probability", "0"]).stdout)
    assert {row["line"] for row in rows} == {1, 3}


def test_class_bodies_have_lower_odds(tmp_path: Path, model: Path) -> None:
    """The same body in a class, with the odds that were measured, against no change of odds."""
    (tmp_path / "a.py").write_text("class A:\n    low = 1\n    high = low * 7\n")
    detector, calibration, _ = store.load(model)
    config = scan.ScanConfig(min_probability=0)

    def probabilities() -> list[float]:
        found = scan.scan([tmp_path / "a.py"], detector, calibration, config, warn=print)
        return [f.probability for f in sorted(found, key=lambda f: (f.line, f.column))]

    lowered = probabilities()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scan, "CLASS_ODDS", 1.0)
        raw = probabilities()
    assert len(raw) == 4
    odds = [(a / (1 - a)) / (b / (1 - b)) for a, b in zip(lowered, raw, strict=True)]
    assert odds == pytest.approx([scan.CLASS_ODDS] * 4, rel=1e-3)
