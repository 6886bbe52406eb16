"""The host tier: blocks leave a device for page-locked host memory, on streams of their own.

A copy must not start before the computation has made its source, the computation must not read a destination before
its copy has ended, and neither may stop the host: so each copy waits for an event of the compute lane, and the
compute lane waits for the copy's event (`device.lanes`). The source is kept until the compute lane waits for the copy
(`settle`), or its end has been seen, which every call to the tier looks for. Locking pages is slow, so buffers are cut
from slabs that stay.
"""

from __future__ import annotations

import collections
import threading
import time
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import final

import torch

from ...device.lanes import Event, Lanes, lanes_for
from ...device.link import EmulatedLink
from ...errors import TierError, TierFullError
from ...units import format_bytes
from .base import Arrival, Block, Data, Tally, Tier, TierCounters, destination, flat_bytes
from .space import Space

__all__ = ["HostSettings", "HostTier"]


@dataclass(frozen=True, kw_only=True)
class HostSettings:
    """How host memory is used.

    Attributes:
        slab_bytes: page-locked memory is taken from the system in pieces of at least this size.
        limit_bytes: the most to take, None for no limit.
        link: the bandwidth and latency to emulate; on the CPU only.
    """

    slab_bytes: int = 64 * 2**20
    limit_bytes: int | None = None
    link: EmulatedLink | None = None


@dataclass(slots=True)
class _Slab:
    memory: torch.Tensor
    space: Space


@dataclass(slots=True)
class _Place:
    """Where a block lies, and who still needs it there."""

    slab: _Slab
    offset: int
    nbytes: int
    pins: int = 1
    released: bool = False

    @property
    def flat(self) -> torch.Tensor:
        return self.slab.memory[self.offset : self.offset + self.nbytes]


@dataclass(slots=True)
class _Transfer:
    """A copy under way and what it keeps alive."""

    event: Event
    place: _Place
    keeps: object
    out: bool
    block: weakref.ref[HostBlock]
    start: float = field(default_factory=time.perf_counter)


@final
class HostBlock(Block):
    """A piece of host memory and the event that ends its write."""

    def __init__(self, tier: HostTier, place: _Place) -> None:
        self.nbytes, self.place = place.nbytes, place
        self.transfer: _Transfer | None = None
        self._tier = tier

    @property
    def event(self) -> Event | None:
        """The end of its write, None before that has begun."""
        return self.transfer.event if self.transfer is not None else None

    def settle(self) -> None:
        event = self.event
        if event is not None and not event.done():
            lanes = self._tier.lanes
            self._tier.tally.blocked(lambda: lanes.compute_waits(event))
        self._tier.let_go(self.transfer)

    def settled(self) -> bool:
        return self.event is None or self.event.done()

    def release(self) -> None:
        if not self.place.released:
            self.place.released = True
            self._tier.give_back(self.place)

    def __del__(self) -> None:
        self.release()


@final
class HostArrival(Arrival):
    """A copy to the device under way."""

    def __init__(self, tier: HostTier, target: torch.Tensor, transfer: _Transfer) -> None:
        self._tier, self._target, self._transfer = tier, target, transfer

    def wait(self) -> torch.Tensor:
        lanes, event = self._tier.lanes, self._transfer.event
        if event.done():
            lanes.compute_waits(event)
        else:  # on an accelerator this returns at once: its compute lane waits, not the host
            self._tier.tally.blocked(lambda: lanes.compute_waits(event))
        self._tier.let_go(self._transfer)
        return self._target

    def ready(self) -> bool:
        return self._transfer.event.done()


@final
class HostTier(Tier):
    """Blocks in page-locked host memory. See `Tier` for the contract; here a source is let go by the first call to
    the tier after its copy has ended.

    Args:
        device: whose bytes they are.
        settings: sizes and limits.
        lanes: the lanes to copy on, None for those of `device` (tests pass an emulated device's).
    """

    name = "host"

    def __init__(
        self,
        device: torch.device | str | None = None,
        *,
        settings: HostSettings | None = None,
        lanes: Lanes | None = None,
    ) -> None:
        self.settings = settings or HostSettings()
        self.lanes = lanes or lanes_for(device, self.settings.link)
        self.tally = Tally()
        self._lock = threading.Lock()
        self._slabs: list[_Slab] = []
        self._under_way: list[_Transfer] = []
        self._given_back: collections.deque[_Place] = collections.deque()
        self._closed = False
        weakref.finalize(self, _end_copies, self.lanes, self._under_way)

    # -- space

    def reserve(self, nbytes: int) -> None:
        with self._lock:
            self._check_open()
            have = sum(slab.space.size for slab in self._slabs)
            if nbytes > have:
                self._add_slab(nbytes - have, asked=nbytes)

    def _add_slab(self, nbytes: int, *, asked: int) -> _Slab:
        have, limit = sum(slab.space.size for slab in self._slabs), self.settings.limit_bytes
        size = max(nbytes, self.settings.slab_bytes)
        if limit is not None and have + size > limit:
            size = nbytes  # the last slab may be small
        size = -(-size // 4096) * 4096
        if limit is not None and have + size > limit:
            raise TierFullError(
                f"the host tier cannot hold {format_bytes(asked)} ({asked} bytes) more: it has {format_bytes(have)} of "
                f"at most {format_bytes(limit)}; raise the limit or swap to disk"
            )
        try:
            slab = _Slab(self.lanes.host_buffer(size), Space(4096))
        except (RuntimeError, MemoryError) as error:
            raise TierFullError(
                f"the host tier cannot hold {format_bytes(asked)} ({asked} bytes) more: the system refused "
                f"{format_bytes(size)} of page-locked memory beyond {format_bytes(have)}: {error}"
            ) from None
        slab.space.grow(size)
        self._slabs.append(slab)
        return slab

    def _take(self, nbytes: int) -> _Place:
        self._collect()
        slab = next((slab for slab in self._slabs if slab.space.shortage(nbytes) == 0), None)
        slab = slab or self._add_slab(nbytes, asked=nbytes)
        self.tally.add(held=nbytes)
        return _Place(slab, slab.space.take(nbytes), nbytes)

    def give_back(self, place: _Place) -> None:
        """Give one pin back, from anywhere, finalizers included: never blocks."""
        self._given_back.append(place)
        if self._lock.acquire(blocking=False):
            try:
                self._collect()
            finally:
                self._lock.release()

    def _collect(self) -> None:
        while self._given_back:
            place = self._given_back.popleft()
            place.pins -= 1
            if place.pins == 0:
                place.slab.space.give(place.offset, place.nbytes)
                self.tally.add(held=-place.nbytes)

    def let_go(self, transfer: _Transfer | None) -> None:
        """Drop the device's side of a copy that the compute lane waits for: who takes that memory next runs after it.

        Kept until the copy's end has been seen, it would count for as long as the host is ahead of the device.
        """
        if transfer is not None:
            transfer.keeps = None
        self.sweep()

    def sweep(self) -> None:
        """Let go of what ended copies kept alive."""
        ended: list[_Transfer] = []
        with self._lock:
            left: list[_Transfer] = []
            for transfer in self._under_way:
                (ended if transfer.event.done() else left).append(transfer)
            self._under_way[:] = left
            kept = [transfer.keeps for transfer in ended]
            for transfer in ended:
                transfer.keeps = None
                block = transfer.block()
                slot = block.slot if block is not None else None
                self.tally.moved("out" if transfer.out else "in", transfer.place.nbytes, transfer.start, slot)
                self._given_back.append(transfer.place)
            self._collect()
        del kept  # outside the lock: finalizers may call back

    # -- transfers

    def write(self, data: Data, owner: object = None, slot: int | None = None) -> HostBlock:
        self.sweep()
        source = flat_bytes(data)
        with self._lock:
            self._check_open()
            place = self._take(source.numel())
            block = HostBlock(self, place)
            block.slot = slot
            event = self.lanes.copy("out", place.flat, source, (self.lanes.compute_event(),))
            place.pins += 1
            kept = (source, data, owner)
            block.transfer = _Transfer(event, place, kept, True, weakref.ref(block))
            self._under_way.append(block.transfer)
        return block

    def read(self, block: Block, into: Data | None = None) -> HostArrival:
        self.sweep()
        if not isinstance(block, HostBlock) or block._tier is not self or block.event is None:
            raise TierError("this block was not written to this host tier")
        target = destination(block.nbytes, into, self.lanes.device)
        with self._lock:
            self._check_open()
            if block.place.released:
                raise TierError(f"this block of {format_bytes(block.nbytes)} was released before it was read")
            # The destination's memory may be in use by what the compute lane has yet to run.
            after = (block.event, self.lanes.compute_event())
            event = self.lanes.copy("in", target, block.place.flat, after)
            block.place.pins += 1
            transfer = _Transfer(event, block.place, target, False, weakref.ref(block))
            self._under_way.append(transfer)
        return HostArrival(self, target, transfer)

    def _check_open(self) -> None:
        if self._closed:
            raise TierError("the host tier is closed")

    # -- facts and the end

    def counters(self) -> TierCounters:
        self.sweep()
        return self.tally.snapshot()

    def facts(self) -> Mapping[str, object]:
        return {
            "device": str(self.lanes.device),
            "page_locked": bool(self._slabs) and self._slabs[0].memory.is_pinned(),
            "reserved_bytes": sum(slab.space.size for slab in self._slabs),
            "limit_bytes": self.settings.limit_bytes,
        }

    def close(self) -> None:
        with self._lock:
            if self._closed:
                return
            self._closed = True
            under_way = list(self._under_way)
            self._under_way.clear()
        for transfer in under_way:
            transfer.event.wait()
        self.lanes.close()
        with self._lock:
            self._slabs.clear()


def _end_copies(lanes: Lanes, under_way: list[_Transfer]) -> None:
    """A tier goes while copies run: what they read and write has to outlive them."""
    if any(not transfer.event.done() for transfer in under_way):
        lanes.close()
