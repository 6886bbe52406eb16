"""DistributedDataParallel around planned modules, two processes under torchrun, and distributed checkpoints."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from outsize.errors import OutsizeError
from outsize.integrations.processes import agree

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
    assert len({line["plan"] for line in lines}) == 1


def test_two_sharded_processes_train_as_without_a_plan() -> None:
    """FSDP2, with accumulation, clipping and a distributed checkpoint; every step's peak is under the budget."""
    lines = launch(str(ROOT / "examples/with_fsdp.py"))
    assert {line["rank"] for line in lines} == {0, 1}
    assert all(line["peak"] <= line["budget"] < 0.6 * line["plain"] for line in lines), lines
    assert len({line["plan"] for line in lines}) == 1


@pytest.fixture(scope="module")
def agreement() -> list[dict[str, Any]]:
    return launch(str(ROOT / "tests/integrations/agreement.py"))


def test_processes_agree_on_a_plan(agreement: list[dict[str, Any]]) -> None:
    """Each measured other times, so each made another plan; then both have that of the first, and train as before."""
    first, second = sorted((line["captured"] | {"rank": line["rank"]} for line in agreement), key=_rank)
    assert first["before"] != second["before"]
    assert first["after"] == second["after"] == first["agreed"] == second["agreed"] == first["before"]
    for line in (first, second):
        assert line["equal"]
        assert line["recomputes"]
        assert line["peak"] <= line["budget"]


def _rank(line: dict[str, Any]) -> int:
    return int(line["rank"])


def test_what_differs_between_processes_is_named_in_all_of_them(agreement: list[dict[str, Any]]) -> None:
    assert len(agreement) == 2
    for line in agreement:
        said = line["refused"]
        assert "process 1: the module is not compiled there" in said["compiled"]
        assert "agree after the first steps" in said["planned"]
        assert "process 1: its budget is 1073741825 bytes, that of process 0 is 1073741824" in said["budget"]
        assert "process 1: its step differs: storage primals_1 has 14336 bytes" in said["shape"]


def test_a_sharded_module_is_not_captured_and_flat_shards_are_refused(
    agreement: list[dict[str, Any]],
) -> None:
    for line in agreement:
        assert "leave door='captured' out" in line["refused"]["captured"]
        assert "fully_shard" in line["refused"]["flat"]


def test_without_a_process_group_there_is_nothing_to_agree_on() -> None:
    with pytest.raises(OutsizeError, match="init_process_group"):
        agree(torch.nn.Linear(2, 2))


def test_the_libraries_wrap_a_planned_module_themselves(tmp_path: Path) -> None:
    for library in ("transformers", "accelerate", "lightning"):
        pytest.importorskip(library)
    lines = launch(str(ROOT / "tests/integrations/worker.py"), str(tmp_path))
    assert {(line["library"], line["rank"]) for line in lines} == {
        (library, rank) for library in ("transformers", "sharded", "accelerate", "lightning") for rank in "01"
    }
    assert all(line["equal"] and line["peak"] <= line["budget"] for line in lines), lines
