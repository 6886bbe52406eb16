"""The host tier: blocks leave a device for page-locked host memory, on streams of their own.

A copy must not start before the computation has made its source, the computation must not read a destination before
its copy has ended, and neither may stop the host: so each copy waits for an event of the compute lane, and the
compute lane waits for the copy's event (`device.lanes`). The source is kept until the compute lane waits for the copy
(`settle`), or its end has been seen, which every call to the tier looks for. Locking pages is slow, so buffers are cut
from slabs that stay.

An interrupt may strike at any line. A copy that has begun must not lose what it reads and writes, so the tier holds
both before the copy begins; and where a call ended between the two, the tier waits for the lane as it then is.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, final

import torch

from ...device.lanes import Event, Lanes, lanes_for
from ...device.link import EmulatedLink
from ...device.waiting import aside
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


@dataclass(slots=True, eq=False, weakref_slot=True)
class _Place:
    """Where a block lies. It is taken while this object lives: its block holds it, and each copy under way."""

    nbytes: int
    memory: torch.Tensor | None = None
    offset: int = 0

    @property
    def flat(self) -> torch.Tensor:
        assert self.memory is not None
        return self.memory[self.offset : self.offset + self.nbytes]


@dataclass(slots=True, eq=False)
class _Transfer:
    """A copy under way and what it keeps alive.

    `event` is its end, None before it has begun, and for good where whoever called was interrupted: then `caller`, which
    is the block or the arrival that it was to be, is gone.
    """

    lane: Literal["out", "in"]
    nbytes: int
    place: _Place | None
    keeps: object
    caller: weakref.ref[object]
    slot: int | None
    event: Event | None = None
    start: float = field(default_factory=time.perf_counter)


@final
class HostBlock(Block):
    """A piece of host memory and the copy that fills it."""

    def __init__(self, tier: HostTier, place: _Place, slot: int | None) -> None:
        self.nbytes, self.slot = place.nbytes, slot
        self.place: _Place | None = place
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
        self.place = None
        self._tier.sweep()


@final
class HostArrival(Arrival):
    """A copy to the device under way."""

    def __init__(self, tier: HostTier, target: torch.Tensor) -> None:
        self._tier, self._target = tier, target
        self.transfer: _Transfer | None = None

    def wait(self) -> torch.Tensor:
        assert self.transfer is not None
        lanes, event = self._tier.lanes, self.transfer.event
        assert event is not None
        if event.done():
            lanes.compute_waits(event)
        else:  # on an accelerator this returns at once: its compute lane waits, not the host
            self._tier.tally.blocked(lambda: lanes.compute_waits(event))
        self._tier.let_go(self.transfer)
        return self._target

    def ready(self) -> bool:
        return self.transfer is not None and self.transfer.event is not None and self.transfer.event.done()


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
        self._lock = threading.Lock()  # for new slabs; never taken by a step's own thread
        self._slabs: list[_Slab] = []
        self._under_way: dict[_Transfer, None] = {}
        self._closed = False
        weakref.finalize(self, _end_copies, self.lanes, self._under_way)

    # -- space

    def reserve(self, nbytes: int) -> None:
        self._check_open()
        aside(lambda: self._add_slab(total=nbytes, asked=nbytes))

    def _add_slab(self, *, asked: int, total: int = 0) -> None:
        """More memory, where less than `total` bytes are there or no slab has room for those asked. Runs aside."""
        with self._lock:
            have, limit = sum(slab.space.size for slab in self._slabs), self.settings.limit_bytes
            if have >= total if total else any(slab.space.shortage(asked) <= 0 for slab in self._slabs):
                return
            wanted = max(total - have, 0) or asked
            size = max(wanted, self.settings.slab_bytes)
            if limit is not None and have + size > limit:
                size = wanted  # the last slab may be small
            size = -(-size // 4096) * 4096
            if limit is not None and have + size > limit:
                raise TierFullError(
                    f"the host tier cannot hold {format_bytes(asked)} ({asked} bytes) more: it has {format_bytes(have)} "
                    f"of at most {format_bytes(limit)}; raise the limit or swap to disk"
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

    def _take(self, nbytes: int) -> _Place:
        place = _Place(nbytes)
        while True:
            for slab in tuple(self._slabs):
                if (offset := slab.space.take(place, nbytes)) is not None:
                    place.memory, place.offset = slab.memory, offset
                    self.tally.held(self._held())
                    return place
            aside(lambda: self._add_slab(asked=nbytes))

    def _held(self) -> int:
        return sum(slab.space.held_bytes for slab in tuple(self._slabs))

    def let_go(self, transfer: _Transfer | None) -> None:
        """Drop the device's side of a copy that the compute lane waits for: who takes that memory next runs after it.

        Kept until the copy's end has been seen, it would count for as long as the host is ahead of the device.
        """
        if transfer is not None:
            transfer.keeps = None
        self.sweep()

    def sweep(self) -> None:
        """Let go of what ended copies kept alive."""
        for transfer in tuple(self._under_way):
            if transfer.event is None:
                if transfer.caller() is not None:
                    continue  # about to begin, on another thread
                # Interrupted; it may have begun. What the lane has now includes it if it has.
                transfer.event = self.lanes.moment(transfer.lane)
            if transfer.event.done() and self._under_way.pop(transfer, self) is None:
                transfer.keeps = transfer.place = None
                self.tally.moved(transfer.lane, transfer.nbytes, transfer.start, transfer.slot)

    # -- transfers

    def write(self, data: Data, owner: object = None, slot: int | None = None) -> HostBlock:
        self.sweep()
        source = flat_bytes(data)
        self._check_open()
        block = HostBlock(self, place := self._take(source.numel()), slot)
        transfer = _Transfer("out", place.nbytes, place, (source, data, owner), weakref.ref(block), slot)
        self._begin(block, transfer, place.flat, source, (self.lanes.compute_event(),))
        return block

    def read(self, block: Block, into: Data | None = None) -> HostArrival:
        self.sweep()
        if not isinstance(block, HostBlock) or block._tier is not self or block.event is None:
            raise TierError("this block was not written to this host tier")
        target = destination(block.nbytes, into, self.lanes.device)
        self._check_open()
        if (place := block.place) is None:
            raise TierError(f"this block of {format_bytes(block.nbytes)} was released before it was read")
        # The destination's memory may be in use by what the compute lane has yet to run.
        after = (block.event, self.lanes.compute_event())
        arrival = HostArrival(self, target)
        transfer = _Transfer("in", place.nbytes, place, target, weakref.ref(arrival), block.slot)
        self._begin(arrival, transfer, target, place.flat, after)
        return arrival

    def _begin(
        self,
        caller: HostBlock | HostArrival,
        transfer: _Transfer,
        target: torch.Tensor,
        source: torch.Tensor,
        after: tuple[Event, ...],
    ) -> None:
        """Put the copy on its lane. Before it begins, the tier holds what it reads and writes."""
        caller.transfer = transfer
        self._under_way[transfer] = None
        transfer.event = self.lanes.copy(transfer.lane, target, source, after)

    def _check_open(self) -> None:
        if self._closed:
            raise TierError("the host tier is closed")

    # -- facts and the end

    def counters(self) -> TierCounters:
        self.sweep()
        return self.tally.snapshot(self._held())

    def facts(self) -> Mapping[str, object]:
        return {
            "device": str(self.lanes.device),
            "page_locked": bool(self._slabs) and self._slabs[0].memory.is_pinned(),
            "reserved_bytes": sum(slab.space.size for slab in self._slabs),
            "limit_bytes": self.settings.limit_bytes,
        }

    def close(self) -> None:
        self._closed = True
        for transfer in tuple(self._under_way):
            if transfer.event is not None:
                transfer.event.wait()
        self.lanes.close()
        self._under_way.clear()
        self._slabs.clear()


def _end_copies(lanes: Lanes, under_way: dict[_Transfer, None]) -> None:
    """A tier goes while copies run: what they read and write has to outlive them."""
    if any(transfer.event is None or not transfer.event.done() for transfer in under_way):
        lanes.close()
