"""The host tier on an emulated accelerator whose copies run only when something waits for them."""

import gc
import weakref

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from outsize.device.lanes import CudaLanes, DeferredLanes, Event, Lanes, ThreadLanes
from outsize.device.link import EmulatedLink
from outsize.errors import TierError, TierFullError, UnitError
from outsize.runtime.tiers import HostSettings, HostTier

KIB = 1024


def random_bytes(n: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 256, (n,), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def test_a_missing_wait_shows_as_wrong_bytes() -> None:
    tier = HostTier(lanes=DeferredLanes())
    source = random_bytes(1000, 1)
    into = torch.zeros(1000, dtype=torch.uint8)
    arrival = tier.read(tier.write(source), into)
    assert not into.any()  # nobody waited: the emulated device has not begun
    assert not arrival.ready()
    assert torch.equal(arrival.wait(), source)
    assert into.eq(source).all()


def test_the_source_is_kept_until_its_copy_has_ended() -> None:
    tier = HostTier(lanes=DeferredLanes())
    source = random_bytes(1000)
    gone = weakref.ref(source)
    block = tier.write(source.untyped_storage(), source)
    del source
    tier.counters()
    assert gone() is not None
    block.settle()
    assert gone() is None
    assert tier.counters().bytes_out == 1000


class _Recording:
    """Lanes that note which events each copy waits for."""

    def __init__(self, inner: Lanes) -> None:
        self.inner, self.device, self.after = inner, inner.device, list[tuple[str, int]]()

    def compute_event(self) -> Event:
        return self.inner.compute_event()

    def copy(self, lane: str, target: torch.Tensor, source: torch.Tensor, after: tuple[Event, ...]) -> Event:
        self.after.append((lane, len(after)))
        return self.inner.copy(lane, target, source, after)

    def moment(self, lane: str) -> Event:
        return self.inner.moment(lane)

    def compute_waits(self, event: Event) -> None:
        self.inner.compute_waits(event)

    def host_buffer(self, nbytes: int) -> torch.Tensor:
        return self.inner.host_buffer(nbytes)

    def close(self) -> None:
        self.inner.close()


def test_a_copy_out_waits_for_the_computation_and_a_copy_in_for_both() -> None:
    lanes = _Recording(DeferredLanes())
    tier = HostTier(lanes=lanes)
    tier.read(tier.write(random_bytes(10))).wait()
    assert lanes.after == [("out", 1), ("in", 2)]


class _Behind:
    """A device whose end of a copy nobody has seen yet: the host runs ahead of it."""

    device = torch.device("cpu")

    def __init__(self) -> None:
        self.ended = False

    def done(self) -> bool:
        return self.ended

    def wait(self) -> None:
        raise AssertionError("the host stood still")

    def compute_event(self) -> Event:
        return self

    def copy(self, lane: str, target: torch.Tensor, source: torch.Tensor, after: tuple[Event, ...]) -> Event:
        target.copy_(source)
        return self

    def moment(self, lane: str) -> Event:
        return self

    def compute_waits(self, event: Event) -> None:
        pass

    def host_buffer(self, nbytes: int) -> torch.Tensor:
        return torch.empty(nbytes, dtype=torch.uint8)

    def close(self) -> None:
        pass


def test_memory_comes_free_in_the_order_of_the_program_however_far_the_host_is_ahead() -> None:
    lanes = _Behind()
    tier = HostTier(lanes=lanes)
    source = random_bytes(1000)
    left = weakref.ref(source)
    block = tier.write(source)
    del source
    assert left() is not None  # the copy may still read it
    block.settle()
    assert left() is None
    arrived = tier.read(block).wait()
    back = weakref.ref(arrived)
    assert torch.equal(arrived, random_bytes(1000))
    del arrived
    assert back() is None
    seen = random_bytes(10)
    ended = weakref.ref(seen)
    other = tier.write(seen)
    del seen
    unwanted = tier.read(block)
    kept = weakref.ref(unwanted._target)
    del unwanted
    assert kept() is not None  # the copy may still write it
    block.release()
    assert tier.counters().held_bytes == 1010
    lanes.ended = True
    assert tier.counters().held_bytes == 10
    assert kept() is None
    assert ended() is None  # its end was seen, so nobody needs to settle it
    assert other.settled()
    tier.close()


def test_a_tier_that_goes_waits_for_the_copies_under_way() -> None:
    lanes = _Behind()
    closed: list[bool] = []
    lanes.close = lambda: closed.append(True)  # type: ignore[method-assign]
    tier = HostTier(lanes=lanes)
    tier.write(random_bytes(10))
    del tier
    gc.collect()
    assert closed == [True]


@given(
    st.lists(
        st.tuples(st.sampled_from(["write", "read", "wait", "release"]), st.integers(0, 99)), max_size=30
    ),
    st.integers(0, 3),
    st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_any_order_of_calls_gives_every_byte_back(
    calls: list[tuple[str, int]], eager: int, threads: bool
) -> None:
    lanes: Lanes = ThreadLanes() if threads else DeferredLanes(lambda waiting: eager)
    with HostTier(lanes=lanes, settings=HostSettings(slab_bytes=8 * KIB)) as tier:
        blocks, arrivals, written = [], [], 0
        for seed, (call, which) in enumerate(calls):
            if call == "write":
                blocks.append((tier.write(random_bytes(which * 97, seed)), seed, which * 97))
                written += which * 97
            elif call == "read" and blocks:
                block, made, n = blocks[which % len(blocks)]
                arrivals.append((tier.read(block), made, n))
            elif call == "wait" and arrivals:
                arrival, made, n = arrivals.pop(which % len(arrivals))
                assert torch.equal(arrival.wait(), random_bytes(n, made))
            elif call == "release" and blocks:
                blocks.pop(which % len(blocks))[0].release()
        for arrival, made, n in arrivals:
            assert torch.equal(arrival.wait(), random_bytes(n, made))
        tier.read(tier.write(random_bytes(1))).wait()  # both lanes are in order: all before it has ended
        assert tier.counters().held_bytes == sum(n for _, _, n in blocks)
        assert tier.counters().bytes_out <= written + 1


def test_limits_are_said_with_their_numbers() -> None:
    tier = HostTier(settings=HostSettings(slab_bytes=64 * KIB, limit_bytes=100 * KIB))
    tier.reserve(100 * KIB)
    blocks = [tier.write(random_bytes(48 * KIB, n)) for n in range(2)]
    with pytest.raises(TierFullError, match=r"48\.00 KiB.*100\.00 KiB of at most 100\.00 KiB.*disk"):
        tier.write(random_bytes(48 * KIB))
    blocks[0].settle()
    blocks.pop(0).release()
    tier.write(random_bytes(48 * KIB))
    tier.close()


def test_misuse_is_an_error() -> None:
    tier, other = HostTier(), HostTier()
    block = tier.write(random_bytes(10))
    with pytest.raises(TierError, match="not written to this"):
        other.read(block)
    with pytest.raises(TierError, match="destination 9"):
        tier.read(block, torch.empty(9, dtype=torch.uint8))
    block.release()
    with pytest.raises(TierError, match="released"):
        tier.read(block)
    tier.close()
    tier.close()
    with pytest.raises(TierError, match="closed"):
        tier.write(random_bytes(10))


def test_an_emulated_link_holds_the_end_back() -> None:
    tier = HostTier(settings=HostSettings(link=EmulatedLink(bytes_per_second=1e6, latency_seconds=0.01)))
    block = tier.write(random_bytes(20_000))
    assert not block.settled()  # 20 ms of lane and 10 ms of latency lie ahead
    assert torch.equal(tier.read(block).wait(), random_bytes(20_000))
    assert tier.counters().stall_seconds > 0.02
    with pytest.raises(UnitError, match="positive"):
        EmulatedLink(bytes_per_second=0)
    tier.close()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_cuda_device() -> None:
    device = torch.device("cuda")
    with HostTier(lanes=CudaLanes(device)) as tier:
        sources = [torch.full((1_000_000,), n, device=device) for n in range(8)]
        blocks = [tier.write(source * 2) for source in sources]
        for n, block in reversed(list(enumerate(blocks))):
            assert bool((tier.read(block).wait().view(torch.int64) == 2 * n).all())
        assert tier.facts()["page_locked"] is True
