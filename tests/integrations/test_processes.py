"""DistributedDataParallel around planned modules, two processes under torchrun, and distributed checkpoints."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


def launch(*arguments: str) -> list[dict[str, Any]]:
    """Run a script in two processes. Returns the JSON lines that they print."""
    torchrun = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        [*torchrun, *arguments], env=environment, capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"')]


def test_two_processes_train_as_without_a_plan() -> None:
    """The example compares losses, budget and what a loaded checkpoint goes on with, in each process."""
    lines = launch(str(ROOT / "examples/with_ddp.py"))
    assert {line["rank"] for line in lines} == {0, 1}
    assert all(line["peak"] <= line["budget"] < line["plain"] for line in lines)


def test_the_libraries_wrap_a_planned_module_themselves(tmp_path: Path) -> None:
    for library in ("transformers", "accelerate", "lightning"):
        pytest.importorskip(library)
    lines = launch(str(ROOT / "tests/integrations/worker.py"), str(tmp_path))
    assert {(line["library"], line["rank"]) for line in lines} == {
        (library, rank) for library in ("transformers", "accelerate", "lightning") for rank in "01"
    }
    assert all(line["equal"] and line["peak"] <= line["budget"] for line in lines), lines
