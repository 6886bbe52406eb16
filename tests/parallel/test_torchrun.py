"""`outsize train` under torchrun: several workers, one budget each, one record, and a chunk size of the user's."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from outsize.values import RunRecord, from_json

ROOT = Path(__file__).parents[2]


def torchrun(*words: str) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "-m",
        "outsize",
    ]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    return subprocess.run([*command, *words], env=environment, capture_output=True, text=True, timeout=240)


def test_train_under_torchrun_with_a_chunk_size(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    words = ("train", "gpt", "--tiny", "--steps", "4", "--chunk-mb", "0.25", "--json", str(path))
    done = torchrun(*words)
    assert done.returncode == 0, done.stderr[-4000:]
    record = from_json(RunRecord, path.read_text())
    assert record.steps == 4
    assert record.losses[-1] < record.losses[0]
    assert record.measured_peak_bytes <= record.budget_bytes < record.plain_peak_bytes
    assert done.stderr.count("budget:") == 1  # the first worker speaks for all


@pytest.mark.parametrize("chunk", ["0", "-1"])
def test_a_chunk_size_that_divides_nothing_is_refused(chunk: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "outsize", "train", "gpt", "--tiny", "--workers", "2", "--chunk-mb", chunk],
        env=os.environ | {"PYTHONPATH": str(ROOT / "src")}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 2
    assert "must be positive" in done.stderr
