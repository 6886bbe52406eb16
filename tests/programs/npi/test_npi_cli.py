"""The command line: results alone on the last line, exit codes, standard input, CSV swaps."""

import json
import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from outsize.cli.main import app
from outsize.errors import NpiError
from outsize.programs.npi.library import LIBRARY


def call(*words, **options):
    return CliRunner().invoke(app, ["npi", *words], **options)


def last(*words, **options):
    result = call(*words, **options)
    assert result.exit_code == 0, result.output
    return result.stdout.strip().splitlines()[-1]


def test_run_prints_the_result_alone_on_the_last_line():
    assert last("run", "addition", "99999999999999999999", "1") == "1" + "0" * 20
    assert last("run", "merge_sort", "[3, 1, 2]", "--json") == "[1, 2, 3]"
    assert last("run", "binary_search", "[1, 4, 6]", "5") == "2"
    assert last("run", "breadth_first_search", "[[1], [2], [0]]", "1", "--engine", "network") == "[1, 2, 0]"


def test_arguments_from_standard_input():
    assert last("run", "addition", "-", input="1" * 5_000 + "\n" + "8" * 5_000 + "\n") == "9" * 5_000


def test_verify_writes_a_certificate(tmp_path):
    path = tmp_path / "c.json"
    assert call("verify", "addition", "--json", str(path)).exit_code == 0
    certificate = json.loads(path.read_text())
    assert certificate["holds"]
    assert certificate["sequences"] <= 704
    assert call("verify", "addition", "--against", str(path)).exit_code == 0
    assert isinstance(call("verify", "map", "--against", str(path)).exception, NpiError)


def test_verify_exits_1_when_it_does_not_hold(tmp_path):
    pairs = tmp_path / "f.csv"
    pairs.write_text("".join(f"{x},{x}\n" for x in range(100)))
    other = tmp_path / "map.safetensors"
    assert call("swap", "map", "--primitive", f"f={pairs}", "--out", str(other)).exit_code == 0
    assert call("verify", "map", "--weights", str(other)).exit_code == 1


def test_list():
    rows = json.loads(last("list", "--json"))
    assert [row["name"] for row in rows] == list(LIBRARY)
    assert {"addition", "subtraction", "multiplication", "map", "zip_with", "filter", "fold", "scan", "take_while",
            "bubble_sort", "insertion_sort", "merge_sort", "quick_sort", "binary_search", "topological_sort",
            "breadth_first_search", "reverse", "match", "merge", "bubble_sort_integers", "insertion_sort_integers",
            "merge_sort_integers", "quick_sort_integers", "merge_integers",
            "binary_search_integers", "less_integers"} == set(LIBRARY)  # fmt: skip


def test_trace_says_which_network_answered():
    result = call("trace", "map", "[3]")
    assert "write f(p1, v0)   (data: network f)" in result.stdout
    assert "at end(p0) = yes" in result.stdout
    assert result.stdout.strip().splitlines()[-1] == "[10]"


def test_train_saves_what_run_reads(tmp_path):
    path = tmp_path / "fold.safetensors"
    assert "proved" in call("train", "fold", "--out", str(path), "--seed", "3").stdout
    assert last("run", "fold", "[1, 2, 3]", "--weights", str(path)) == "6"


def test_swap_trains_from_a_csv_and_runs(tmp_path):
    pairs = tmp_path / "square.csv"
    pairs.write_text("x,y\n" + "".join(f"{x},{x * x}\n" for x in range(30)))
    assert last("swap", "map", "[3, 12]", "--primitive", f"f={pairs}") == "[9, 144]"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "no input/output pair"),
        ("1,2,3\n", "3 columns"),
        ("1,2\n1,3\n", "has the outputs 2 and 3"),
        ("1,2\nx,3\n", "not all integers"),
        (b"\xff\xfe\x00", "cannot be read as CSV|not all integers|no input"),
    ],
)
def test_bad_csv(tmp_path, content, says):
    path = tmp_path / "bad.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    error = call("swap", "map", "--primitive", f"f={path}").exception
    assert isinstance(error, NpiError)
    assert re.search(says, str(error))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("run", "adition", "1", "2"), "nearest is addition"),
        (("run", "addition", "1"), "takes 2 arguments"),
        (("run", "addition", "1", "x2"), "not a natural number"),
        (("run", "subtraction", "1", "2"), "must not be smaller"),
        (("run", "merge_sort", "[1, 2.5]"), "JSON list of integers"),
        (("run", "merge_sort", "[1,"), "not JSON"),
        (("run", "map", "[1, 999]"), "outside of its domain|input"),
        (("run", "binary_search", "[3, 1]", "1"), "ascending"),
        (("run", "topological_sort", "[[1], [0]]"), "cycle"),
        (("run", "topological_sort", "[[5]]"), "a graph is"),
        (("run", "breadth_first_search", "[[]]", "4"), "not in the graph"),
        (("run", "match", "\u4e16", "a"), "Latin-1"),
        (("run", "map", "[1]", "--engine", "fast"), "no engine"),
        (("run", "map", "[1]", "--engine", "tables", "--strict", "1"), "--strict"),
        (("run", "addition", "1", "2", "--strict", "1000"), "margin"),
        (("run", "bubble_sort", "[2, 1]", "--max-steps", "5"), "--max-steps"),
        (("run", "map", "[1]", "--weights", "/nowhere"), "not a trained template"),
        (("verify", "map", "--against", "/nowhere"), "not a certificate"),
        (("swap", "map"), "name a primitive"),
        (("swap", "map", "--primitive", "f"), "NAME=FILE"),
        (("swap", "map", "--primitive", "g=/nowhere"), "no primitive 'g'"),
    ],
)
def test_bad_input_is_one_clear_error(words, says):
    error = call(*words).exception
    assert isinstance(error, NpiError), error
    assert re.search(says, str(error)), str(error)


DOCS = (Path(__file__).parents[3] / "docs" / "npi.md").read_text()


def test_the_worked_commands_of_the_docs():
    pairs = re.findall(r"^\$ outsize npi (.+)\n(.+)$", DOCS, re.MULTILINE)
    assert len(pairs) >= 3
    for command, want in pairs:
        assert last(*shlex.split(command)) == want


def test_the_worked_program_of_the_docs(tmp_path, monkeypatch):
    """From a file, since a loop is lifted from its source."""
    (tmp_path / "clip_example.py").write_text(
        re.search(r"```python\n([^`]+def clip.+?)```", DOCS, re.DOTALL)[1]
    )
    monkeypatch.syspath_prepend(tmp_path)
    import clip_example

    assert clip_example.heads[2].tape.cells == [20, 2, 20, 7]
    assert clip_example.certificate.holds


def test_decisions_as_python_source(tmp_path):
    path = tmp_path / "decisions.py"
    assert call("verify", "reverse", "--python", str(path)).exit_code == 0
    compile(path.read_text(), "decisions.py", "exec")
    assert "def reverse_while1(p0, p1):" in path.read_text()
