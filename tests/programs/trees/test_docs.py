"""The commands of docs/trees.md run as they stand, and the shipped files are what the card says."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from outsize.cli.main import app
from outsize.programs.trees import similar, store

ROOT = Path(__file__).parents[3]
GUIDE = (ROOT / "docs" / "trees.md").read_text()


def test_the_commands_of_the_guide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, code in re.findall(r"```python file=(\S+)\n(.*?)```", GUIDE, re.DOTALL):
        Path(name).write_text(code)
    (block,) = re.findall(r"```console\n(.*?)```", GUIDE, re.DOTALL)
    commands = [shlex.split(line[2:]) for line in block.splitlines() if line.startswith("$ ")]
    assert len(commands) == 3
    outputs = []
    for program, *arguments in commands:
        assert program == "outsize"
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code in (0, 1), (arguments, result.output, result.exception)
        outputs.append(result.stdout)
    (shown,) = re.findall(r"```text\n(.*?)```", GUIDE, re.DOTALL)
    probability = re.compile(r"(?<=: )0\.\d\d(?= )")
    assert probability.sub("P", outputs[0]) == probability.sub("P", shown)
    # The last digit may turn with the processor's order of additions.
    given, printed = (list(map(float, probability.findall(text))) for text in (outputs[0], shown))
    assert given == pytest.approx(printed, abs=0.011)
    found = json.loads(Path("findings.json").read_text())
    assert {finding["line"] for finding in found} <= set(range(1, 14))
    assert json.loads(Path("findings.sarif").read_text())["runs"][0]["results"]
    assert outputs[2].startswith("clamp.py:9-13: 1.000 total_area")


def test_the_shipped_files_are_small_and_described() -> None:
    for path in (store.SHIPPED, similar.SHIPPED):
        assert path.stat().st_size < 10_000_000
    detector, calibration, history = store.load()
    assert detector.tree.layers == detector.config.layers
    assert 0 < calibration.threshold < 1
    card = (ROOT / "docs" / "trees-model-card.md").read_text()
    assert f"{history['functions']:,}" in card
    similar.load_matcher()


def test_a_planted_operator_bug_comes_first(tmp_path: Path) -> None:
    """The shipped detector on a plain mistake: a running total that is subtracted. The guide says what it proposes."""
    code = "def total(prices, counts):\n    result = 0\n    for price, count in zip(prices, counts):\n"
    file = tmp_path / "a.py"
    file.write_text(code + "        result -= price * count\n    return result\n")
    result = CliRunner().invoke(app, ["trees", "scan", str(file), "--all", "--json", "-", "--top", "1"])
    (first,) = json.loads(result.stdout)
    assert (first["line"], first["kind"]) == (4, "wrong-operator")
    assert first["repair"] == "*="
    assert "`result -= price * count` it names the operator first, and proposes `*=`" in GUIDE
