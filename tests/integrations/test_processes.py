"""DistributedDataParallel around a planned module, two processes under torchrun, and distributed checkpoints."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_two_processes_train_as_without_a_plan() -> None:
    """The example compares losses, budget and what a loaded checkpoint goes on with, in each process."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        [*launch, str(ROOT / "examples/with_ddp.py")],
        env=environment,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert {line["rank"] for line in lines} == {0, 1}
    assert all(line["peak"] <= line["budget"] < line["plain"] for line in lines)
