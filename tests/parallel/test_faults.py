"""A worker that dies, stops, raises or leaves: every other worker says which one, soon, and nothing is left."""

from __future__ import annotations

import copy
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from outsize.parallel import (
    ParallelError,
    RankFailure,
    Search,
    Settings,
    distribute,
    load_state_dict,
    state_dict,
)
from outsize.parallel.arena import Arena, Layout

from .cluster import Failed, outcome, run, start
from .nets import batch, loss_of, smooth

SMALL = Settings(search=Search(first_mb=0.004), staging_mb=0.05)


def train(rank: int, how: str, phase: str, victim: int, timeout: float) -> Any:
    """Three good steps, then the victim's misfortune at `phase`."""
    model, optimizer = distribute(smooth(), torch.optim.AdamW, lr=1e-3, settings=SMALL, timeout=timeout)

    def misfortune() -> None:
        if rank != victim:
            return
        if how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if how == "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        if how == "exit":
            os._exit(0)
        if how == "raise":
            sys.excepthook(ValueError, ValueError("bad batch"), None)
            time.sleep(30)  # still alive: only what it told the others can help them

    for step in range(6):
        if step == 3 and phase == "forward":
            misfortune()
        if step == 3 and phase == "backward":
            next(model.module.children()).register_full_backward_pre_hook(lambda *_: misfortune())
        loss = loss_of(model(batch(step, rank)))
        loss.backward()
        if step == 3 and phase == "step":
            misfortune()
        start_of_wait = time.monotonic()
        try:
            optimizer.step()
        except RankFailure as failure:
            with pytest.raises(RankFailure):
                state_dict(model, optimizer)  # a torn step is never checkpointed
            with pytest.raises(RankFailure):
                model.module.state_dict()
            failure.waited = time.monotonic() - start_of_wait
            raise
    return "finished"


@pytest.mark.parametrize(
    ("how", "phase"),
    [
        ("kill", "backward"),
        ("kill", "step"),
        ("exit", "forward"),
        ("raise", "backward"),
        ("stop", "backward"),
    ],
)
def test_every_other_worker_names_the_victim(how: str, phase: str) -> None:
    victim, timeout = 1, 3.0 if how == "stop" else 60.0
    processes, pipes = start(3, train, how, phase, victim, timeout)
    try:
        for rank in (0, 2):
            failure = outcome(pipes[rank], 50)
            assert isinstance(failure, Failed), failure
            assert failure.kind == "RankFailure", str(failure)
            assert failure.fields["rank"] == victim
            assert failure.fields["pid"] == processes[victim].pid
            # A victim that had done its part of step 4 before it died is missed in step 5.
            assert "step 4" in failure.fields["phase"] or (
                phase == "step" and "step 5" in failure.fields["phase"]
            )
            # Bounds of the contract, not timings: 2 s after a death, the timeout + 2 s after a stop.
            assert failure.fields.get("waited", 0) <= 2 + (timeout if how == "stop" else 0)
    finally:
        for process in processes:
            process.kill()
            process.join(5)
    assert not list(Path("/dev/shm").glob("*outsize*"))


def lose_inside_join(rank: int) -> None:
    """Worker 0 has run out of inputs and mirrors the others when worker 1 dies."""
    model, optimizer = distribute(smooth(), torch.optim.AdamW, lr=1e-3, settings=SMALL, timeout=30)
    with model.join():
        for step in range(3 if rank == 0 else 8):
            loss_of(model(batch(step, rank))).backward()
            if step == 5 and rank == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            optimizer.step()


def test_a_death_inside_join() -> None:
    processes, pipes = start(3, lose_inside_join)
    try:
        for rank in (0, 2):
            failure = outcome(pipes[rank], 50)
            assert isinstance(failure, Failed), failure
            assert failure.kind == "RankFailure", str(failure)
            assert failure.fields["rank"] == 1
            assert failure.fields["pid"] == processes[1].pid
    finally:
        for process in processes:
            process.kill()
            process.join(5)


def leave_early(rank: int) -> str:
    model, optimizer = distribute(smooth(), torch.optim.SGD, lr=0.1, settings=SMALL, timeout=60)
    for step in range(2 if rank == 0 else 3):
        loss_of(model(batch(step, rank))).backward()
        optimizer.step()
    return "finished"


def test_leaving_early_is_a_failure_and_leaving_together_is_not() -> None:
    processes, pipes = start(2, leave_early)
    assert outcome(pipes[0]) == "finished"
    failure = outcome(pipes[1])
    assert failure.kind == "RankFailure"
    assert failure.fields["rank"] == 0
    for process in processes:
        process.join(10)


def test_the_arena_is_private_and_leaves_nothing() -> None:
    before = set(os.listdir("/dev/shm"))
    arena = Arena.create(Layout({"a": 10, "b": 5000}))
    assert os.fstat(arena.descriptor).st_mode & 0o777 == 0o600
    with pytest.raises(OSError, match="not permitted"):
        os.ftruncate(arena.descriptor, 1)
    assert set(os.listdir("/dev/shm")) == before
    tensor = arena.tensor("b", torch.uint8)
    tensor.fill_(7)
    arena.forget("b")
    assert int(tensor.sum()) == 0


def late_for_the_meeting(rank: int) -> None:
    if rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    distribute(smooth(), torch.optim.SGD, lr=0.1, timeout=3)


def test_a_worker_that_never_comes_to_distribute() -> None:
    """Nobody knows its process yet, so nobody is named; and it takes the timeout."""
    processes, pipes = start(2, late_for_the_meeting)
    failure = outcome(pipes[0])
    assert failure.kind == "RankFailure", str(failure)
    assert failure.fields == {"rank": -1, "pid": -1, "phase": "startup"}
    for process in processes:
        process.join(10)


SCRIPT = """
import os, sys, torch
import torch.distributed.checkpoint as dcp
from outsize.parallel import distribute, load_state_dict, state_dict
from tests.parallel.nets import batch, loss_of, smooth
path = sys.argv[1]
rank = int(os.environ["RANK"])
model, optimizer = distribute(smooth(), torch.optim.AdamW, lr=1e-3, timeout=20)
first = 0
if int(os.environ["TORCHELASTIC_RESTART_COUNT"]):
    state = state_dict(model, optimizer) | {"step": 0}
    dcp.load(state, checkpoint_id=path)
    load_state_dict(model, optimizer, state)
    first = state["step"]
for step in range(first, 6):
    if step == 4 and rank == 1 and not first:
        os.kill(os.getpid(), 9)
    loss = loss_of(model(batch(step, rank)))
    loss.backward()
    optimizer.step()
    if step == 2:
        dcp.save(state_dict(model, optimizer) | {"step": 3}, checkpoint_id=path)
if rank == 0:
    print("end", first, loss.item().hex(), flush=True)
"""
LAUNCH = "from outsize.parallel.launch import launch; launch({!r}, [{!r}], workers=2, max_restarts=1)"


def undisturbed(rank: int) -> str:
    model, optimizer = distribute(smooth(), torch.optim.AdamW, lr=1e-3, timeout=20)
    for step in range(6):
        loss = loss_of(model(batch(step, rank)))
        loss.backward()
        optimizer.step()
    return loss.item().hex()


def test_torchrun_restarts_from_the_checkpoint(tmp_path: Path) -> None:
    """The run that lost a worker and was restarted ends with the bits of one that did not."""
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    root = str(Path(__file__).parents[2])
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([f"{root}/src", root]), "OMP_NUM_THREADS": "1"}
    out = subprocess.run(
        [sys.executable, "-c", LAUNCH.format(str(script), str(tmp_path / "saved"))],
        capture_output=True, text=True, env=environment, timeout=200, check=False,
    )  # fmt: skip
    ends = [line.split() for line in out.stdout.splitlines() if line.startswith("end")]
    assert ends, out.stderr[-3000:]
    assert ends[-1] == ["end", "3", run(2, undisturbed)[0]]


PARTS = 4  # parts of the global batch, spread over however many workers there are


def reshard(rank: int, workers: int, first: int, last: int, path: str) -> list[float]:
    import torch.distributed as dist
    import torch.distributed.checkpoint as dcp

    model, optimizer = distribute(smooth(), torch.optim.AdamW, lr=1e-3, settings=SMALL)
    if first:
        state = state_dict(model, optimizer)
        dcp.load(state, checkpoint_id=path)
        load_state_dict(model, optimizer, state)
    losses, share = [], PARTS // workers
    for step in range(first, last):
        parts = [batch(step, share * rank + i) for i in range(share)]
        loss = loss_of(model(torch.cat(parts)))
        loss.backward()
        optimizer.step()
        mean = loss.detach() / workers
        dist.all_reduce(mean)
        losses.append(mean.item())
    dcp.save(state_dict(model, optimizer), checkpoint_id=path)
    return losses


def test_two_to_four_to_two_workers_follow_one_curve(tmp_path: Path) -> None:
    whole = run(2, reshard, 2, 0, 20, str(tmp_path / "whole"))[0]
    path = str(tmp_path / "parts")
    stages = [(2, 0, 7), (4, 7, 13), (2, 13, 20)]
    pieced = [loss for n, first, last in stages for loss in run(n, reshard, n, first, last, path)[0]]
    torch.testing.assert_close(pieced, whole, rtol=1e-5, atol=0)


def test_a_half_done_step_is_not_shown() -> None:
    model, optimizer = distribute(smooth(), torch.optim.AdamW, lr=1e-3, settings=SMALL)
    loss_of(model(batch(0, 0))).backward()
    with pytest.raises(ParallelError, match="half"):
        optimizer.state_dict()
    for module in (model, model.module):  # what a plain torch.save would read
        with pytest.raises(ParallelError, match="half"):
            module.state_dict()
    assert copy.deepcopy(model.module).state_dict().keys() == smooth().state_dict().keys()
    with pytest.raises(ParallelError, match="half"):
        load_state_dict(model, optimizer, {})
