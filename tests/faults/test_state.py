"""State at rest under faults: an interrupt at every line of its moves, a device that fails, a byte that changed."""

from __future__ import annotations

import errno
import gc
import os
from collections.abc import Sequence

import pytest
import torch
from torch import nn

import outsize
from outsize.errors import ChecksumError, TierError
from outsize.runtime.tiers.file import SwapFile

from .interrupting import moments, struck

Trained = tuple[nn.Module, torch.optim.Optimizer, torch.Tensor]
MOVES = ("session/streams.py", "runtime/homes.py", "runtime/away.py", "measure/alone.py")


def step(trained: Trained) -> None:
    module, optimizer, x = trained
    optimizer.zero_grad()
    module(x).square().sum().backward()
    optimizer.step()


def states(trained: Trained) -> list[torch.Tensor]:
    """What does not count steps: with these betas the state is that of the latest gradient."""
    kept = [v for s in trained[1].state.values() for k, v in s.items() if k != "step"]
    return [v.clone() for v in kept]


def resting(trained: Trained) -> int:
    return sum(getattr(v, "is_away", False) for s in trained[1].state.values() for v in s.values())


@pytest.fixture
def trained() -> Trained:
    """A learning rate of zero and no memory: every whole step leaves the same state."""
    torch.manual_seed(0)
    module = nn.Sequential(*(nn.Linear(160, 160) for _ in range(5)))
    optimizer = torch.optim.Adam(module.parameters(), lr=0.0, betas=(0.0, 0.0))
    x = torch.randn(32, 160)
    plain = outsize.plan(module, (x,), optimizer=optimizer, budget=2**40).plain_peak_bytes
    outsize.compile(module, plain - 2 * 160 * 160 * 4, optimizer=optimizer, actions=("swap",))
    made = module, optimizer, x
    for _ in range(3):
        step(made)
    assert resting(made)
    return made


def test_an_interrupt_at_every_line(trained: Trained) -> None:
    expected, groups = states(trained), [list(g["params"]) for g in trained[1].param_groups]
    first: dict[tuple[str, int], int] = {}
    for at, place in enumerate(moments(lambda: step(trained), instructions=False)):
        first.setdefault(place, at)
    chosen = [at for (file, _), at in first.items() if file.endswith(MOVES)]
    assert len(chosen) > 60
    came = 0
    gc.collect()
    gc.freeze()  # what is there already need not be looked at again and again
    for at in chosen[::3]:
        came += struck(lambda: step(trained), at, instructions=False)
        gc.collect()  # the step that was given up holds its bytes in cycles
        step(trained)
        assert all(map(torch.equal, states(trained), expected)), at
        assert [list(g["params"]) for g in trained[1].param_groups] == groups
        assert resting(trained)
    gc.unfreeze()
    assert came > len(chosen) // 6


def test_a_device_that_fails_is_an_error_of_the_step(
    trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, failing = states(trained), True
    read = SwapFile.read

    def fail(self: SwapFile, buffers: Sequence[memoryview], offset: int) -> int:
        if failing:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return read(self, buffers, offset)

    monkeypatch.setattr(SwapFile, "read", fail)
    with pytest.raises(TierError, match="Input/output error"):
        step(trained)
    failing = False  # it was out for a moment: nothing was lost, and training goes on
    step(trained)
    assert all(map(torch.equal, states(trained), expected))


def test_a_byte_that_changed_is_found(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    before = [p.detach().clone() for p in trained[0].parameters()]
    read = SwapFile.read

    def flip(self: SwapFile, buffers: Sequence[memoryview], offset: int) -> int:
        done = read(self, buffers, offset)
        buffers[0][0] ^= 1
        return done

    monkeypatch.setattr(SwapFile, "read", flip)
    with pytest.raises(ChecksumError):
        step(trained)
    value = next(v for s in trained[1].state.values() for v in s.values() if getattr(v, "is_away", False))
    with pytest.raises(ChecksumError):  # a checkpoint does not take it either
        value.clone()
    assert all(map(torch.equal, before, trained[0].parameters()))
    with pytest.warns(RuntimeWarning, match="stays in the tier"):
        outsize.release(trained[0])
