"""An interrupt at every instruction of a tier's calls and at every line of a training step: nothing is lost or stuck."""

import gc
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

import pytest
import torch
from torch import nn

import outsize
from outsize import api
from outsize.device.lanes import DeferredLanes, ThreadLanes
from outsize.device.memory import PeakMeter
from outsize.runtime.tiers import DiskSettings, DiskTier, HostSettings, HostTier, Tier
from outsize.session.meter import StepMeter, pause_all, resume
from tests.api.training import rebudget, smallest_budget

from .interrupting import Struck, moments, struck

KIB = 1024
TIERS = str(Path(outsize.__file__).parent / "runtime" / "tiers")


def random_bytes(n: int, seed: int) -> torch.Tensor:
    return torch.randint(0, 256, (n,), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def disk() -> DiskTier:
    small = DiskSettings(
        piece_bytes=16 * KIB, in_flight_bytes=24 * KIB, growth_bytes=8 * KIB, writers=1, readers=1
    )
    return DiskTier("/tmp", settings=small)


MADE: dict[str, Callable[[], Tier]] = {
    "disk": disk,
    "threads": lambda: HostTier(lanes=ThreadLanes(), settings=HostSettings(slab_bytes=8 * KIB)),
    "deferred": lambda: HostTier(lanes=DeferredLanes(), settings=HostSettings(slab_bytes=8 * KIB)),
}


def swap(tier: Tier, sources: list[torch.Tensor]) -> None:
    """What a step asks of a tier: more in flight than it takes, reads, a release before its write, one after."""
    blocks = [tier.write(source, slot=n) for n, source in enumerate(sources)]
    blocks[1].release()
    for block in blocks:
        block.settle()
    arrivals = [tier.read(block) for n, block in enumerate(blocks) if n != 1]
    for arrival, source in zip(arrivals, sources[:1] + sources[2:]):
        assert torch.equal(arrival.wait(), source)
    for block in blocks:
        block.release()
    tier.counters()


def at_rest(tier: Tier) -> bool:
    if isinstance(tier, DiskTier):
        engine = tier._engine
        assert not engine.lock.locked()
        assert all(thread.is_alive() for thread in engine.threads)
        return tier.counters().held_bytes == 0 and engine.in_flight == 0
    if isinstance(tier, HostTier):
        assert not tier._lock.locked()
        if isinstance(tier.lanes, DeferredLanes):
            for transfer in tuple(tier._under_way):
                tier.sweep()
                if transfer.event is not None:
                    transfer.event.wait()
        return tier.counters().held_bytes == 0 and not tier._under_way
    raise AssertionError(tier)


def soon(holds: Callable[[], bool]) -> bool:
    """Threads may still be ending what an interrupted call began."""
    for _ in range(2000):
        if holds():
            return True
        time.sleep(0.001)
    return False


@pytest.fixture
def dropped(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An interrupt that strikes a finalizer is dropped there, as Python does after it has printed it.

    pytest would keep it to the end of the test, and with its traceback the frames of the step and what they hold.
    """

    others: list[str] = []

    def drop(unraisable: "sys.UnraisableHookArgs") -> None:
        if unraisable.exc_type is not Struck:
            others.append(repr(unraisable.exc_value))

    monkeypatch.setattr(sys, "unraisablehook", drop)
    yield
    assert not others


@pytest.mark.parametrize("made", MADE)
def test_every_instruction_of_a_tiers_calls(made: str) -> None:
    sources = [random_bytes(n, n) for n in (9000, 5000, 20_000, 4096)]
    with MADE[made]() as tier:
        swap(tier, sources)
        count = len(moments(lambda: swap(tier, sources), instructions=True, under=TIERS))
        assert count > 1000
        came = 0
        for at in range(0, count, 7):
            came += struck(lambda: swap(tier, sources), at, instructions=True, under=TIERS)
            assert soon(lambda: at_rest(tier)), f"after an interrupt at {at} of {count}: {tier.counters()}"
        assert came > count // 14
        size = tier.facts()["reserved_bytes"]
        swap(tier, sources)
        assert tier.facts()["reserved_bytes"] == size  # every extent is there to be taken again


@pytest.mark.parametrize("made", MADE)
def test_every_line_of_a_tiers_first_calls(made: str, dropped: None) -> None:
    """Opening, the growth of the file, and the end."""
    sources = [random_bytes(n, n) for n in (9000, 5000, 20_000, 4096)]

    def whole() -> None:
        with MADE[made]() as tier:
            tier.reserve(30_000)
            swap(tier, sources)

    def threads() -> int:
        return sum(t.name.startswith("outsize-disk") for t in threading.enumerate())

    whole()
    before = threads()
    for at in range(len(moments(whole, instructions=False, under=TIERS))):
        struck(whole, at, instructions=False, under=TIERS)
        assert soon(lambda: threads() == before or gc.collect() < 0), at


def test_every_instruction_of_a_meter() -> None:
    def work() -> None:
        meter = PeakMeter().start()
        meter.mark()
        meter.reset()
        meter.stop()
        step = StepMeter(0)
        paused = pause_all()
        resume(paused)
        step.end()
        step.stop()

    count = len(moments(work, instructions=True))
    for at in range(count):
        struck(work, at, instructions=True)
    gc.collect()
    free = [PeakMeter().start() for _ in range(12)]  # of 16: none was lost
    assert all(meter.stop() > 0 for meter in free)
    work()


@pytest.fixture(scope="module")
def swapping() -> tuple[nn.Module, torch.Tensor, list[torch.Tensor]]:
    torch.manual_seed(0)
    layers = [nn.Sequential(nn.Linear(64, 64), nn.Tanh()) for _ in range(3)]
    module, x = nn.Sequential(*layers), torch.randn(1024, 64)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.0)
    outsize.compile(module, 2**40, optimizer=optimizer)
    train(module, x, optimizer)
    smallest = smallest_budget(module, (x,), planner="slack", actions=("swap",))
    rebudget(module, smallest + 2**16, planner="slack", actions=("swap",))
    expected = train(module, x, optimizer)
    assert outsize.report(module).swapped_in_bytes > 0
    module.optimizer_of_the_test = optimizer
    return module, x, expected


def train(module: nn.Module, x: torch.Tensor, optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    module(x).square().sum().backward()
    found = [p.grad.clone() for p in module.parameters()]
    optimizer.step()
    optimizer.zero_grad()
    return found


def check_next(swapping: tuple[nn.Module, torch.Tensor, list[torch.Tensor]], what: object) -> None:
    module, x, expected = swapping
    module.zero_grad()
    tier = api._SESSIONS[module].tiers["disk"]
    assert soon(lambda: at_rest(tier) or gc.collect() < 0), what
    found = train(module, x, module.optimizer_of_the_test)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True)), what


def test_every_line_of_a_training_step(swapping: tuple) -> None:
    module, x, _ = swapping
    optimizer = module.optimizer_of_the_test

    def work() -> None:
        outsize.record(module)
        train(module, x, optimizer)

    first: dict[tuple[str, int], int] = {}
    for at, place in enumerate(moments(work, instructions=False)):
        first.setdefault(place, at)
    chosen = [
        at for (file, _), at in first.items() if "/runtime/" in file or file.endswith("session/meter.py")
    ]
    assert len(chosen) > 150
    for at in chosen[::3]:  # all of them, and the session's lines: benchmarks/faults
        struck(work, at, instructions=False)
        check_next(swapping, at)
    free = [PeakMeter().start() for _ in range(12)]  # of 16: none was lost
    assert all(meter.stop() > 0 for meter in free)


def test_two_interrupts_in_quick_succession(swapping: tuple) -> None:
    """A second one while the first is unwinding, wherever the meters are."""
    module, x, _ = swapping
    optimizer = module.optimizer_of_the_test

    def twice() -> None:
        with pytest.raises(Struck):
            struck_or_raise(module, x, optimizer)
        train(module, x, optimizer)  # gives the first step's meter up: the second strikes there

    def struck_or_raise(module: nn.Module, x: torch.Tensor, optimizer: torch.optim.Optimizer) -> None:
        module(x).square().sum()
        raise Struck

    at_metering = [
        at
        for at, (file, _) in enumerate(moments(twice, instructions=False))
        if file.endswith(("session/meter.py", "memory.py", "probes.py", "session/state.py"))
    ]
    for at in at_metering[:: max(1, len(at_metering) // 25)]:
        struck(twice, at, instructions=False)
        check_next(swapping, at)


def test_real_signals(swapping: tuple, dropped: None) -> None:
    """At moments of the clock, not of a trace: in C, in a wait, in whatever runs then."""
    module, x, _ = swapping
    optimizer = module.optimizer_of_the_test
    train(module, x, optimizer)
    begin = time.perf_counter()
    train(module, x, optimizer)
    whole, came = time.perf_counter() - begin, 0
    usual = signal.signal(signal.SIGALRM, _strike_in_training)
    try:
        for n in range(25):
            signal.setitimer(signal.ITIMER_REAL, max(1e-4, whole * n / 25), whole / 7)  # again and again
            try:
                for _ in range(3):
                    train(module, x, optimizer)
            except Struck:
                came += 1
            signal.setitimer(signal.ITIMER_REAL, 0)
            check_next(swapping, n)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, usual)
    assert came > 12


def _strike_in_training(_: int, frame: FrameType | None) -> None:
    """Only where the loop above catches it: a timer may still run out after a round has ended."""
    while frame is not None:
        if frame.f_code is train.__code__:
            raise Struck
        frame = frame.f_back
