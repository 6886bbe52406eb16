"""A module that goes takes everything along that was made for it, and `release` gives the plain module back."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import threading
import weakref
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.optim import optimizer as hooks

import outsize
from outsize import api
from outsize.errors import BudgetError, OutsizeError

WIDTH, BATCH = 64, 1024
X = torch.randn(BATCH, WIDTH, generator=torch.Generator().manual_seed(0))


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(*[layer for _ in range(4) for layer in (nn.Linear(WIDTH, WIDTH), nn.GELU())])


def counts() -> dict[str, int]:
    gc.collect()
    return {
        "threads": threading.active_count(),
        "descriptors": len(os.listdir("/proc/self/fd")),
        "hooks": len(hooks._global_optimizer_pre_hooks) + len(hooks._global_optimizer_post_hooks),
        "sessions": len(api._SESSIONS),
    }


def disk_threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name == "outsize-disk"}


@pytest.fixture(scope="module")
def budget() -> int:
    """One that takes swapping."""
    module = outsize.meter(network())
    module(X).square().mean().backward()
    return int(0.75 * outsize.report(module).plain_peak_bytes)


def trained(budget: int) -> tuple[nn.Module, torch.optim.Optimizer]:
    module = network()
    optimizer = torch.optim.AdamW(module.parameters())
    outsize.compile(module, budget, optimizer=optimizer, actions=("swap",))
    module(X).square().mean().backward()
    optimizer.step()
    assert outsize.report(module, timelines=False).swapped_in_bytes
    return module, optimizer


def test_nothing_is_left_behind(tmp_path: Path) -> None:
    """The benchmark's loop, shorter, in a process of its own: a test's process keeps torch's log records."""
    script = Path(__file__).parents[2] / "benchmarks" / "no-growth" / "run.py"
    asked = ["--way", "mixed", "--rounds", "20", "--every", "4", "--out", str(tmp_path / "counts.json")]
    subprocess.run([sys.executable, str(script), *asked], check=True, stdout=subprocess.DEVNULL)
    before, *_, after = json.loads((tmp_path / "counts.json").read_text())["series"][1:]
    rounds = after.pop("rounds") - before.pop("rounds")
    grown = {name: (after.pop(name) - before.pop(name)) / rounds for name in ("bytes", "objects")}
    assert all(after[name] <= before[name] for name in before), (before, after)
    # A module has 150 KB of tensors, its graphs and plans as much, its session four threads.
    assert grown["bytes"] < 16_000
    assert grown["objects"] < 12


def test_a_module_goes_at_once(budget: int) -> None:
    others, (module, optimizer) = disk_threads(), trained(budget)
    alive = weakref.ref(module)
    del module
    assert alive() is None
    assert not disk_threads() - others
    del optimizer


def test_release_gives_the_plain_module_back(budget: int) -> None:
    module, optimizer = trained(budget)
    plain = network()
    plain.load_state_dict(module.state_dict())
    assert outsize.release(module) is module
    assert outsize.release(module) is module
    assert not {"_compiled_call_impl", "_outsize_watch"} & vars(module).keys()
    module.zero_grad()
    for one in (module, plain):
        one(X).square().mean().backward()
    assert all(torch.equal(a.grad, b.grad) for a, b in zip(module.parameters(), plain.parameters()))
    optimizer.step()
    with pytest.raises(OutsizeError, match=r"outsize\.compile"):
        outsize.report(module)
    outsize.release(nn.Linear(2, 2))


def test_release_works_after_an_error() -> None:
    before, module = counts(), outsize.compile(network(), 1000)
    with pytest.raises(BudgetError):
        module(X)
    outsize.release(module)
    module(X).sum().backward()
    assert counts() == before


@pytest.mark.parametrize("way", ["release", "drop", "again"])
@pytest.mark.parametrize("seen", [False, True], ids=["first backward", "later backward"])
def test_a_backward_that_is_yet_to_come_still_runs(budget: int, way: str, seen: bool) -> None:
    others, plain = disk_threads(), network()
    plain(X).square().mean().backward()
    module = outsize.compile(network(), budget, actions=("swap",))
    if seen:
        module(X).square().mean().backward()
        module.zero_grad()
    loss, parameters = module(X).square().mean(), list(module.parameters())
    if way == "release":
        outsize.release(module)
    if way == "again":
        outsize.compile(module, budget)
    del module
    gc.collect()
    loss.backward()
    assert all(torch.equal(p.grad, q.grad) for p, q in zip(parameters, plain.parameters()))
    del loss, parameters
    gc.collect()
    assert not disk_threads() - others


def test_a_call_that_somebody_else_put_there_stays() -> None:
    module = outsize.compile(network(), "1 GiB")
    module.compile(backend="eager")
    theirs = module._compiled_call_impl
    outsize.release(module)
    assert module._compiled_call_impl is theirs


def test_what_trains_is_forgotten_with_the_last_module() -> None:
    gc.collect()
    before = counts()["hooks"]
    first, second = (outsize.compile(network(), "1 GiB") for _ in range(2))
    assert counts()["hooks"] == 2
    del first
    assert counts()["hooks"] == 2
    outsize.release(second)
    assert counts()["hooks"] == before
