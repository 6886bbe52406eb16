"""`outsize trees scan` as people run it, on good files and bad ones."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner, Result

from outsize.cli.main import app
from outsize.errors import TreesError
from outsize.programs.trees import reporting, scan, store
from outsize.programs.trees.changes import changed_lines
from outsize.programs.trees.model import Detector, DetectorConfig

CODE = """\
def copy(src, dst, mode):
    if not os.path.exists(src):
        raise IOError("ä", src, 1)
    x = 1
    x -= mode.a + mode.b
    return\tshutil.copy(dst,  src)  # ä


def area(width, height):
    return width * height
"""
KINDS = {"variable-misuse", "argument-swap", "wrong-operator", "wrong-literal", "wrong-attribute"}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    sizes = DetectorConfig(width=16, layers=2, rows=512, inner=8, head=8)
    store.save(Detector(sizes), path, calibration=store.Calibration(threshold=0.999))
    return path


def invoke(*args: object) -> Result:
    return CliRunner().invoke(app, ["trees", "scan", *map(str, args)], catch_exceptions=True)


def test_json_spans_are_the_places(tmp_path: Path, model: Path) -> None:
    file = tmp_path / "a.py"
    file.write_text(CODE)
    result = invoke(file, "--json", "-", "--model", model, "--min-probability", 0)
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert {key for row in found for key in row} == {
        "path", "line", "column", "end_line", "end_column", "kind", "repair", "probability", "function", "evidence",
        "fingerprint",
    }  # fmt: skip
    assert [row["probability"] for row in found] == sorted(
        (row["probability"] for row in found), reverse=True
    )
    assert {row["kind"] for row in found} == KINDS
    said = {}
    for row in found:
        assert row["line"] == row["end_line"]
        text = CODE.split("\n")[row["line"] - 1][row["column"] - 1 : row["end_column"] - 1]
        said.setdefault(row["kind"], set()).add((text, row["repair"]))
    assert {text for text, _ in said["variable-misuse"]} == {"src", "dst", "mode", "width", "height"}
    assert ("shutil.copy(dst,  src)", "shutil.copy(src,  dst)") in said["argument-swap"]
    assert {text for text, _ in said["wrong-operator"]} == {"-=", "+", "*"}
    assert all(repair.endswith("=") for text, repair in said["wrong-operator"] if text == "-=")
    assert {text for text, _ in said["wrong-attribute"]} == {"a", "b"}
    assert {text for text, _ in said["wrong-literal"]} == {"1"}


def test_text_underlines_the_place(tmp_path: Path, model: Path) -> None:
    file = tmp_path / "a.py"
    file.write_text(CODE)
    result = invoke(file, "--model", model, "--top", 50, "--min-probability", 0)
    lines = result.stdout.split("\n")
    at = next(i for i, line in enumerate(lines) if "→ shutil.copy(src, dst)" in line)
    assert lines[at - 2].startswith(f"{file}:6:12: ")
    assert lines[at].index("^") == lines[at - 1].index("shutil")
    assert lines[at].count("^") == len("shutil.copy(dst,  src)")
    assert lines[at].startswith(" " * 14 + "\t^")


def test_top_and_thresholds(tmp_path: Path, model: Path) -> None:
    file = tmp_path / "a.py"
    file.write_text(CODE)
    assert len(json.loads(invoke(file, "--json", "-", "--model", model, "--top", 2, "--all").stdout)) == 2
    assert json.loads(invoke(file, "--json", "-", "--model", model, "--min-probability", 1).stdout) == []
    assert invoke(file, "--model", model, "--all", "--fail-above", 0).exit_code == 1
    plain, rare = (
        json.loads(invoke(file, "--json", "-", "--model", model, "--min-probability", 0, *more).stdout)
        for more in ((), ("--prior", 0.01))
    )
    assert all(a["probability"] >= b["probability"] for a, b in zip(plain, rare, strict=True))


def test_sarif_has_the_places(tmp_path: Path, model: Path) -> None:
    file, out = tmp_path / "a.py", tmp_path / "out.sarif"
    file.write_text(CODE)
    assert invoke(file, "--sarif", out, "--model", model, "--all").exit_code == 0
    log = json.loads(out.read_text())
    assert log["version"] == "2.1.0"
    (run,) = log["runs"]
    assert {rule["id"] for rule in run["tool"]["driver"]["rules"]} == KINDS
    first = run["results"][0]
    region = first["locations"][0]["physicalLocation"]["region"]
    assert {"startLine", "startColumn", "endLine", "endColumn"} == set(region)
    assert first["fixes"][0]["artifactChanges"][0]["replacements"][0]["insertedContent"]["text"]


def test_bad_files_are_one_warning_each(tmp_path: Path, model: Path) -> None:
    bad = {
        "syntax.py": b"def f(:\n", "bytes.py": b"\xff\xfe\x00\x01", "empty.py": b"",
        "deep.py": b"x = " + b"(" * 10_000 + b"1" + b")" * 10_000, "b.c": b"int x;", "a.cobol": b"x",
        "signs.py": b"def f():\n    return " + b"-" * 100_000 + b"1\n", "null.py": b"a\0b",
    }  # fmt: skip
    for name, content in bad.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "good.py").write_text(CODE)
    (tmp_path / "gone.py").symlink_to(tmp_path / "nowhere.py")
    names = [*bad, "good.py", "gone.py", "missing.py"]
    result = invoke(*(tmp_path / name for name in names), "--model", model, "--json", "-", "--all")
    assert result.exit_code == 0, result.output
    assert {Path(row["path"]).name for row in json.loads(result.stdout)} == {"good.py"}
    warned = [line for line in result.stderr.split("\n") if line.startswith("warning: ")]
    assert len(warned) == len(names) - 2, warned  # all but good.py and empty.py
    for name in names:
        assert sum(name in line for line in warned) == (name not in ("good.py", "empty.py")), name


def test_too_large_a_file_and_functions_in_portions(tmp_path: Path, model: Path) -> None:
    file = tmp_path / "a.py"
    file.write_text(CODE * 40)
    detector, calibration, _ = store.load(model)
    said: list[str] = []
    small = scan.ScanConfig(max_bytes=1000, min_probability=0.001)
    assert list(scan.scan([file], detector, calibration, small, warn=said.append)) == []
    assert "more than the 1,000 that a scan takes" in said[0]
    whole, parts = (
        reporting.ranked(
            scan.scan(
                [file],
                detector,
                calibration,
                scan.ScanConfig(batch_nodes=nodes, min_probability=0.001),
                warn=said.append,
            ),
            None,
        )
        for nodes in (10**6, 300)
    )
    assert [(f.line, f.column, f.repair) for f in whole] == [(f.line, f.column, f.repair) for f in parts]


def test_folders_are_walked_in_order_without_hidden_ones(tmp_path: Path) -> None:
    for name in ("b/x.py", "a/y.py", ".venv/z.py", "a/__pycache__/c.py", "a/data.txt", "a/.hidden/q.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    found = [str(p.relative_to(tmp_path)) for p in scan.find_files([tmp_path], print)]
    assert found == ["a/y.py", "b/x.py"]


def git(folder: Path, *args: str) -> None:
    identity = ("-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "init.defaultBranch=main")
    subprocess.run(["git", *identity, *args], cwd=folder, check=True, capture_output=True)


def test_diff_keeps_to_changed_functions(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "pkg" / "a.py"
    file.parent.mkdir()
    file.write_text(CODE)
    (tmp_path / "same.py").write_text(CODE)
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "first")
    file.write_text(CODE.replace("width * height", "width + height"))
    monkeypatch.chdir(tmp_path)
    assert changed_lines("HEAD", tmp_path) == {file: [(10, 10)]}
    rows = json.loads(
        invoke(".", "--diff", "HEAD", "--model", model, "--json", "-", "--min-probability", 0).stdout
    )
    assert {(row["path"], row["line"]) for row in rows} == {("pkg/a.py", 10)}
    for revision, match in (("nonsense", "bad revision"), ("--output=x", "is not a revision")):
        with pytest.raises(TreesError, match=match):
            changed_lines(revision, tmp_path)


def test_what_cannot_be_done_is_said(tmp_path: Path, model: Path) -> None:
    file = tmp_path / "a b.py"
    file.write_text(CODE)
    os.mkfifo(tmp_path / "pipe.py")  # must not wait for a writer
    result = invoke(tmp_path, "--model", model, "--sarif", "-", "--all")
    assert f"warning: {tmp_path / 'pipe.py'}: not a regular file" in result.stderr
    (uri,) = set(re.findall(r'"uri": "(.*)"', result.stdout))
    assert uri == f"{tmp_path}/a%20b.py"
    for arguments, match in (
        ((tmp_path / "absent", tmp_path / "gone"), "no such file or folder: .*absent, .*gone"),
        ((file, "--json", "-", "--sarif", "-"), "cannot both go to stdout"),
        ((file, "--diff", "HEAD"), "git in .*not a git repository"),
    ):
        with pytest.raises(TreesError, match=match):
            raise invoke(*arguments, "--model", model).exception or AssertionError(arguments)
    assert invoke(tmp_path / "absent", file, "--model", model).exit_code == 0


def test_nothing_that_is_scanned_runs(tmp_path: Path, model: Path) -> None:
    file = tmp_path / "a.py"
    act = f"open({str(tmp_path / 'ran')!r}, 'w')"
    file.write_text(f"{act}\n\n\ndef f(a, b={act}):\n    return a\n")
    assert invoke(file, "--model", model).exit_code == 0
    assert not (tmp_path / "ran").exists()


def test_a_missing_or_damaged_model_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "m.safetensors").write_bytes(b"1234567890")
    for name in ("m.safetensors", "absent"):
        result = invoke(tmp_path, "--model", tmp_path / name)
        assert isinstance(result.exception, TreesError)
