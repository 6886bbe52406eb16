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
    whole = done.stdout.replace(
        '}{"', '}\n{"'
    )  # two processes may print at once, each line before each line's end
    return [json.loads(line) for line in whole.splitlines() if line.startswith('{"')]


def test_two_processes_train_as_without_a_plan() -> None:
    """The example compares losses, budget and what a loaded checkpoint goes on with, in each process."""
    lines = launch(str(ROOT / "examples/with_ddp.py"))
    assert {line["rank"] for line in lines} == {0, 1}
    assert all(line["peak"] <= line["budget"] < line["plain"] for line in lines)


def test_two_sharded_processes_train_as_without_a_plan() -> None:
    """FSDP2, with accumulation, clipping and a distributed checkpoint; every step's peak is under the budget."""
    lines = launch(str(ROOT / "examples/with_fsdp.py"))
    assert {line["rank"] for line in lines} == {0, 1}
    assert all(line["peak"] <= line["budget"] < 0.6 * line["plain"] for line in lines), lines


def test_a_sharded_module_is_not_captured_and_flat_shards_are_refused(tmp_path: Path) -> None:
    script = tmp_path / "refused.py"
    script.write_text(REFUSED)
    lines = launch(str(script))
    assert len(lines) == 2
    for line in lines:
        assert "leave door='captured' out" in line["captured"]
        assert "fully_shard" in line["flat"]


REFUSED = """
import json
import torch, torch.distributed as dist, outsize, outsize.errors
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard

dist.init_process_group("gloo")
told = {}
for name, module, door in (
    ("captured", fully_shard(torch.nn.Linear(8, 8)), "captured"),
    ("flat", FullyShardedDataParallel(torch.nn.Linear(8, 8), device_id=torch.device("cpu")), "auto"),
):
    try:
        outsize.compile(module, 2**30, door=door)
    except outsize.errors.CaptureError as error:
        told[name] = str(error)
print(json.dumps(told), flush=True)
dist.destroy_process_group()
"""


def test_the_libraries_wrap_a_planned_module_themselves(tmp_path: Path) -> None:
    for library in ("transformers", "accelerate", "lightning"):
        pytest.importorskip(library)
    lines = launch(str(ROOT / "tests/integrations/worker.py"), str(tmp_path))
    assert {(line["library"], line["rank"]) for line in lines} == {
        (library, rank) for library in ("transformers", "accelerate", "lightning") for rank in "01"
    }
    assert all(line["equal"] and line["peak"] <= line["budget"] for line in lines), lines
