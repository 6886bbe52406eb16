"""`outsize plan`: one plan, a sweep, hardware that is not here; nothing is trained."""

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner, Result

from outsize import BudgetError
from outsize.cli.main import app
from outsize.cli.plan import TECHNIQUES
from outsize.errors import OutsizeError
from outsize.measure import known_hardware
from outsize.values import Plan, from_json


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)
    torch._dynamo.reset()


def plan(*arguments: str) -> Result:
    return CliRunner(env={"COLUMNS": "160"}).invoke(app, ["plan", *arguments])


def test_the_plan_keeps_the_share_that_was_asked(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    result = plan("--tiny", "--budget", "70%", "--json", str(path))
    assert result.exit_code == 0, (result.output, result.exception)
    made = from_json(Plan, path.read_text())
    assert made.budget_bytes == int(0.7 * made.plain_peak_bytes)
    assert made.predicted_peak_bytes <= made.budget_bytes
    assert made.decisions
    assert not made.estimated
    assert "70.0 % of the plain peak" in result.stdout


def test_absent_hardware_needs_no_bytes(tmp_path: Path) -> None:
    """A batch whose step needs tens of gigabytes, planned without allocating a sample."""
    path, batch = tmp_path / "plan.json", ("--batch", "65536", "--size", "64")
    options = ("--hardware", "h100-pcie", "--budget", "50%", "--json", str(path))
    result = plan("resnet50", "--tiny", *batch, *options)
    assert result.exit_code == 0, (result.output, result.exception)
    made = from_json(Plan, path.read_text())
    assert made.estimated
    assert made.plain_peak_bytes > 20 * 2**30
    assert made.predicted_peak_bytes <= made.budget_bytes == int(0.5 * made.plain_peak_bytes)
    assert "estimated" in result.stdout


def test_a_sweep_falls_with_the_budget(tmp_path: Path) -> None:
    path, html = tmp_path / "sweep.json", tmp_path / "sweep.html"
    result = plan("--tiny", "--sweep", "--points", "4", "--json", str(path), "--html", str(html))
    assert result.exit_code == 0, (result.output, result.exception)
    lines = json.loads(path.read_text())
    assert set(lines) == set(TECHNIQUES)
    for line in lines.values():
        plans = [from_json(Plan, json.dumps(item)) for item in line]
        assert 1 <= len(plans) <= 4
        assert [p.budget_bytes for p in plans] == sorted(p.budget_bytes for p in plans)
        assert all(p.predicted_peak_bytes <= p.budget_bytes for p in plans)
        assert plans[-1].predicted_step_seconds <= plans[0].predicted_step_seconds
    assert html.read_text().count("<polyline") == len(TECHNIQUES)


def test_the_help_names_all_known_hardware() -> None:
    text = CliRunner().invoke(app, ["plan", "--help"], terminal_width=200).stdout
    assert all(name in text for name in known_hardware())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--tiny", "--hardware", "abacus"), "abacus"),
        (("--tiny", "--planner", "oracle"), "oracle"),
        (("--tiny", "--html", "x.html"), "add --sweep"),
        (("--tiny", "--budget", "9 apples"), "9 apples"),
        (("--tiny", "--budget", "3%"), "smallest"),
    ],
)
def test_bad_input_is_told(arguments: tuple[str, ...], said: str) -> None:
    result = plan(*arguments)
    assert isinstance(result.exception, OutsizeError), (result.output, result.exception)
    assert said in str(result.exception)
    if said == "smallest":
        assert isinstance(result.exception, BudgetError)
