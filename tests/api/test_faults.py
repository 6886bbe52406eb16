"""What goes wrong in the middle of a step: a clear error, nothing left behind, and the next step works."""

import errno
import gc
import os
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import nn

import outsize
from outsize import api
from outsize.device.memory import bytes_in_use
from outsize.errors import ChecksumError, OutsizeError, TierError, TierFullError
from outsize.runtime.tiers import DiskSettings, DiskTier
from tests.runtime.test_frame import held
from tests.runtime.tiers.test_disk import Faulty

from .test_contract import BATCH, WIDTH, Stack
from .training import rebudget, smallest_budget

MIB = 2**20


@pytest.fixture(scope="module")
def swapping(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, Faulty, torch.Tensor, list]:
    """A module that swaps through a file with faults to switch on; its input; its gradients without faults."""
    torch.manual_seed(0)
    module, x = outsize.compile(Stack(4), 2**40), torch.randn(BATCH, WIDTH)
    file = Faulty(tmp_path_factory.mktemp("swap"))
    session = api._SESSIONS[module]
    session._tiers["disk"].close()
    session._tiers["disk"] = DiskTier(file=file, settings=DiskSettings(piece_bytes=MIB))
    smallest = smallest_budget(module, (x,), planner="slack", actions=("swap",))
    rebudget(module, smallest + 4 * MIB, planner="slack", actions=("swap",))
    return module, file, x, step(module, x)


def step(module: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    """One step from the same state: its gradients."""
    torch.manual_seed(1)
    module(x).backward()
    found = [p.grad.clone() for p in module.parameters()]
    module.zero_grad()
    for name, buffer in module.named_buffers():
        buffer.fill_(1 if name.endswith("var") else 0)
    return found


@pytest.fixture(autouse=True)
def back_to_where_it_was(swapping: tuple) -> Iterator[None]:
    """After the fault: no block held, no thread stuck, the bytes in use as before, and a whole next step."""
    module, file, x, expected = swapping
    step(module, x)
    gc.collect()
    before = bytes_in_use()
    yield
    file.fail_write = file.fail_read = None
    file.flip, file.capacity = False, 2**62
    module.zero_grad()
    gc.collect()
    assert held(module, expect_none=True) == 0
    assert bytes_in_use() - before < MIB
    found = step(module, x)
    assert all(torch.equal(a, b) for a, b in zip(found, expected))
    assert outsize.report(module).swapped_in_bytes > 0


def io_error(file: Faulty) -> None:
    file.fail_write = OSError(errno.EIO, os.strerror(errno.EIO))


def read_error(file: Faulty) -> None:
    file.fail_read = OSError(errno.EIO, os.strerror(errno.EIO))


def full(file: Faulty) -> None:
    file.fail_write = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def flipped(file: Faulty) -> None:
    file.flip = True


@pytest.mark.parametrize(
    ("fault", "error", "message"),
    [
        (io_error, TierError, "Input/output error"),
        (read_error, TierError, "Input/output error"),
        (full, TierFullError, "No space left"),
        (flipped, ChecksumError, "other bytes|checksum|differ"),
    ],
    ids=["write", "read", "full", "flip"],
)
def test_a_fault_of_the_disk(
    swapping: tuple, fault: Callable[[Faulty], None], error: type[OutsizeError], message: str
) -> None:
    module, file, x, _ = swapping
    fault(file)
    with pytest.raises(error, match=message):
        step(module, x)


@pytest.mark.parametrize("where", ["swap_out", "wait"], ids=["forward", "backward"])
def test_ctrl_c(swapping: tuple, where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module, _, x, _ = swapping
    name = "write" if where == "swap_out" else "read"
    calls = 0
    original = getattr(DiskTier, name)

    def interrupted(*args: object, **kwargs: object) -> object:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        return original(*args, **kwargs)

    monkeypatch.setattr(DiskTier, name, interrupted)
    with pytest.raises(KeyboardInterrupt):
        step(module, x)
    monkeypatch.undo()
    assert calls == 3


def test_an_exception_of_the_users_between_forward_and_backward(swapping: tuple) -> None:
    module, _, x, _ = swapping
    with pytest.raises(ZeroDivisionError):
        _ = module(x) / (1 // 0)


def test_a_disk_that_cannot_hold_the_plan_is_known_before_the_first_step(tmp_path) -> None:
    module, x = outsize.compile(Stack(2), 2**40), torch.randn(BATCH, WIDTH)
    file = Faulty(tmp_path)
    file.capacity = MIB
    session = api._SESSIONS[module]
    session._tiers["disk"].close()
    session._tiers["disk"] = DiskTier(file=file)
    smallest = smallest_budget(module, (x,), planner="slack", actions=("swap",))
    rebudget(module, smallest, planner="slack", actions=("swap",))
    with pytest.raises(TierFullError, match="No space left"):
        module(x)
    assert session.tiers["disk"].counters().bytes_out == 0  # before anything ran
