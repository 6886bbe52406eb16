"""`outsize train` end to end at tiny sizes: the budget holds, the loss falls, the plan changes no bit."""

import dataclasses
import itertools
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner, Result

from outsize import BudgetError, zoo
from outsize.cli.main import app
from outsize.cli.train import MODELS
from outsize.errors import OutsizeError, TierError, UnitError, WorkloadError
from outsize.values import RunRecord, from_json
from outsize.zoo import training

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)
    torch._dynamo.reset()


def train(*arguments: str) -> Result:
    return CliRunner(env={"COLUMNS": "160"}).invoke(app, ["train", *arguments])


def run(folder: Path, *arguments: str) -> RunRecord:
    path = folder / "run.json"
    result = train(*arguments, "--json", str(path))
    assert result.exit_code == 0, (result.output, result.exception)
    return from_json(RunRecord, path.read_text())


def test_the_models_of_the_help_are_those_of_the_zoo() -> None:
    assert zoo.names() == MODELS


def test_default_model_under_its_budget(tmp_path: Path) -> None:
    html, path, trace = tmp_path / "run.html", tmp_path / "run.json", tmp_path / "step.trace.json"
    result = train("--tiny", "--steps", "40", "--html", str(html), "--json", str(path), "--trace", str(trace))
    assert result.exit_code == 0, (result.output, result.exception)
    data = json.loads(path.read_text())
    assert set(data) == {field.name for field in dataclasses.fields(RunRecord)}
    assert len(data["losses"]) == data["steps"] == 40
    record = from_json(RunRecord, path.read_text())
    assert record.measured_peak_bytes <= record.budget_bytes
    assert (
        record.budget_bytes < 0.8 * record.plain_peak_bytes
    )  # the loss's bytes were estimated when 60 % was taken
    assert record.swapped_in_bytes > 0 or record.recomputed_flops > 0 or record.encoded_bytes > 0
    assert record.losses[-1] < 0.8 * record.losses[0]
    assert record.validation_loss < 0.8 * record.validation_loss_before
    plain, planned = record.plain_timeline, record.timeline
    assert plain.peak_bytes == record.plain_peak_bytes
    assert planned.peak_bytes <= record.budget_bytes < plain.peak_bytes
    assert record.measured_timeline.peak_bytes <= record.budget_bytes
    assert "Lanes, as measured" in html.read_text()
    events = json.loads(trace.read_text())["traceEvents"]
    real = [e for e in events if e["pid"] == 1]
    assert real[0]["args"]["name"] == "measured step"
    assert any("aten." in e["name"] for e in real if e["ph"] == "X")
    assert max(e["args"]["bytes"] for e in real if e["ph"] == "C") == record.measured_timeline.peak_bytes
    for said in ("plain step: peak", "(60 %)", "loss", "alive", "validation loss", "of the budget"):
        assert said in result.output, said


def test_a_plan_changes_no_bit(tmp_path: Path) -> None:
    """Dropout included: the losses of 4 steps and the validation losses are equal, not close."""
    options = ("gpt", "--tiny", "--steps", "4", "--seed", "5")
    planned = run(tmp_path, *options)
    torch._dynamo.reset()
    plain = run(tmp_path, *options, "--no-plan")
    assert planned.decisions
    assert not plain.decisions
    assert planned.losses == plain.losses
    assert planned.validation_loss == plain.validation_loss
    assert planned.measured_peak_bytes < plain.measured_peak_bytes


@pytest.mark.parametrize(
    "arguments", [("resnet50", "--size", "96", "--batch", "24"), ("unet3d", "--size", "32")]
)
def test_other_families(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """Large enough for the libraries' own first-use bytes, 2 MiB or so, not to matter."""
    record = run(tmp_path, "--model", *arguments, "--tiny", "--steps", "3", "--budget", "80%")
    assert record.measured_peak_bytes <= record.budget_bytes < record.plain_peak_bytes
    assert all(loss == loss for loss in record.losses)


def test_the_users_own_file(tmp_path: Path) -> None:
    record = run(tmp_path, str(ROOT / "examples/my_model.py:build"), "--steps", "25", "--disk", str(tmp_path))
    assert record.measured_peak_bytes <= record.budget_bytes
    assert record.validation_loss < record.validation_loss_before
    assert [p.name for p in tmp_path.iterdir()] == ["run.json"]


def test_batches_that_run_dry_end_the_run(tmp_path: Path) -> None:
    (tmp_path / "dry.py").write_text(
        "import torch\nfrom torch import nn\n"
        "def build():\n"
        "    batches = ((torch.ones(4096, 8), torch.zeros(4096, 1)) for _ in range(3))\n"
        "    return nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 1)), batches, nn.functional.mse_loss\n"
    )
    record = run(tmp_path, f"{tmp_path}/dry.py:build", "--budget", "2 MiB", "--steps", "9")
    assert len(record.losses) == 3
    assert record.validation_loss is None


@pytest.mark.parametrize(
    ("arguments", "kind", "said"),
    [
        (("gtp",), WorkloadError, "choose from gpt"),
        (("gpt", "--model", "vit"), WorkloadError, "two models"),
        (("missing.py:build",), WorkloadError, "no Python file"),
        (("examples/my_model.py:build", "--tiny"), WorkloadError, "--tiny choose data"),
        (("--tiny", "--data", "/no/such"), WorkloadError, "no file or folder"),
        (("--tiny", "--json", "/no/such/folder/run.json"), OutsizeError, "cannot write"),
        (("--tiny", "--json", "."), OutsizeError, "cannot write"),
        (("--tiny", "--budget", "lots"), UnitError, "cannot read 'lots'"),
        (("--tiny", "--budget", "0%"), UnitError, "not a positive"),
        (("--tiny", "--disk", "/no/such/folder"), TierError, "/no/such/folder"),
        (("--tiny", "--budget", "1 KiB"), BudgetError, "smallest"),
    ],
)
def test_bad_input_is_told(arguments: tuple[str, ...], kind: type[OutsizeError], said: str) -> None:
    result = train(*arguments)
    assert isinstance(result.exception, kind), (result.output, result.exception)
    assert said in str(result.exception)
    if isinstance(result.exception, BudgetError):
        assert 1024 < result.exception.smallest_feasible_bytes < 2**24
        assert result.exception.dominating


def test_a_loss_that_blows_up_is_told(tmp_path: Path) -> None:
    result = train("gpt", "--tiny", "--lr", "1e30", "--steps", "8")
    assert isinstance(result.exception, OutsizeError)
    assert re.search(r"the loss is (nan|inf) after \d+ steps: try a smaller --lr", str(result.exception))


@pytest.mark.parametrize("steps", ["0", "-1", "many"])
def test_usage_errors_exit_with_2(steps: str) -> None:
    assert train("--steps", steps).exit_code == 2


def test_help_needs_no_torch() -> None:
    code = (
        "import sys\nfrom outsize.cli.main import app\n"
        "for words in (['--help'], ['train', '--help'], ['report', '--help'], ['plan', '--help']):\n"
        "    try: app(words)\n"
        "    except SystemExit as end: assert not end.code\n"
        "assert 'torch' not in sys.modules, 'torch was imported'\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "unet3d" in done.stdout


def test_ctrl_c_leaves_nothing(tmp_path: Path) -> None:
    """Interrupted in the middle of training: exit code 130, no traceback, nothing in the disk tier's directory."""
    disk = tmp_path / "tier"
    disk.mkdir()
    words = ["gpt", "--tiny", "--steps", "1000000", "--disk", str(disk), "--json", str(tmp_path / "run.json")]
    log = tmp_path / "log"
    with log.open("w") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-u", "-m", "outsize", "train", *words],
            stderr=stderr,
            stdout=subprocess.DEVNULL,
            env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"},
            preexec_fn=_heed_interrupts,
        )
        try:
            _until_training(process, log)
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 130
        finally:
            process.kill()
            process.wait()
    assert "Traceback" not in log.read_text()
    assert "interrupted" in log.read_text()
    assert list(disk.iterdir()) == []
    if (tmp_path / "run.json").exists():  # it had come to a step
        assert "interrupted after" in from_json(RunRecord, (tmp_path / "run.json").read_text()).notes[-1]


@pytest.mark.parametrize("steps", [0, 3])
def test_ctrl_c_after_some_steps_writes_what_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    fit = training.fit

    def interrupted(*args: Any, **options: Any) -> Iterator[training.Step]:
        yield from itertools.islice(fit(*args, **options), steps)
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "fit", interrupted)
    html, path, trace = tmp_path / "run.html", tmp_path / "run.json", tmp_path / "trace.json"
    outputs = ("--json", str(path), "--html", str(html), "--trace", str(trace))
    result = train("gpt", "--tiny", "--steps", "50", *outputs)
    assert result.exit_code == 130
    assert path.exists() == html.exists() == bool(steps)
    if steps:
        record = from_json(RunRecord, path.read_text())
        assert len(record.losses) == record.steps == steps
        assert record.notes[-1] == "interrupted after 3 of 50 steps"
        assert record.validation_loss is None
        assert "interrupted after 3" in result.output
        assert "no trace" in result.output
        assert not trace.exists()
        assert "gpt, 3 steps" in html.read_text()


def _heed_interrupts() -> None:
    """A shell starts its background jobs, this suite perhaps, with Ctrl-C ignored, and children inherit that."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _until_training(process: subprocess.Popen, log: Path) -> None:
    """Waits until the budget has been announced and the compiler is at work or done."""
    for _ in itertools.takewhile(lambda _: process.poll() is None, range(1200)):
        if "budget:" in log.read_text():
            time.sleep(2)
            return
        time.sleep(0.1)
    raise AssertionError(log.read_text())
