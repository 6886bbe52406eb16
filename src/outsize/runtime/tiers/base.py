"""What every tier promises, whatever carries the bytes.

A step hands a buffer to a tier and goes on computing; later it asks for the bytes back. Three things must hold or
the step computes wrong numbers or keeps memory that the plan counted as free: the source lives until its last byte
has left and not a moment longer; a reader sees every byte of the write before it; and what goes wrong on another
thread is raised where the step waits for it.
"""

from __future__ import annotations

import threading
import time
import weakref
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias, final

import torch

from ...device.waiting import Latch
from ...errors import TierError

__all__ = ["Arrival", "Block", "Data", "Moved", "Tier", "TierCounters", "flat_bytes"]

Data: TypeAlias = torch.Tensor | torch.UntypedStorage


def flat_bytes(data: Data) -> torch.Tensor:
    """A flat uint8 tensor over the bytes of `data`: of a whole untyped storage, or of a dense tensor.

    Raises:
        TierError: a tensor whose elements do not lie in one dense run; pass its `untyped_storage()`.
    """
    if isinstance(data, torch.UntypedStorage):
        return torch.empty(0, dtype=torch.uint8, device=data.device).set_(data)
    if not data.is_contiguous():
        raise TierError(
            f"a tier moves dense bytes, and this tensor of shape {tuple(data.shape)} has strides {data.stride()}: "
            "pass its untyped_storage()"
        )
    if data.dtype == torch.uint8 and data.dim() == 1:
        return data.detach()
    return data.detach().reshape(-1).view(torch.uint8)


@dataclass(frozen=True, kw_only=True)
class TierCounters:
    """What a tier has done so far.

    Attributes:
        bytes_out, bytes_in: bytes that have left the device and come back.
        stall_seconds: time that callers were blocked, in `write` (too much in flight), `settle` and `wait`.
        held_bytes: bytes that blocks hold in the tier now.
        peak_held_bytes: the most they ever held.
    """

    bytes_out: int
    bytes_in: int
    stall_seconds: float
    held_bytes: int
    peak_held_bytes: int


@dataclass(frozen=True, kw_only=True)
class Moved:
    """A transfer that has ended: which way, of which storage where that is known, from when to when (`perf_counter`)."""

    lane: Literal["out", "in"]
    slot: int | None
    nbytes: int
    start: float
    end: float


@final
class Tally:
    """What one tier has moved, shared with its threads. Each thread adds to sums of its own, so there is no lock that an
    interrupted one could leave held.
    """

    def __init__(self) -> None:
        self._sums: dict[tuple[str, int], float] = {}
        self._log: weakref.ref[deque[Moved]] | None = None

    @property
    def watcher(self) -> deque[Moved] | None:
        """Who is told of each transfer that ends, while it lives; None for nobody."""
        return self._log() if self._log is not None else None

    def watch(self, log: deque[Moved] | None) -> None:
        self._log = None if log is None else weakref.ref(log)

    def _add(self, what: str, amount: float) -> None:
        key = (what, threading.get_ident())
        self._sums[key] = self._sums.get(key, 0) + amount

    def held(self, nbytes: int) -> None:
        """So many bytes are held now."""
        key = ("peak", threading.get_ident())
        self._sums[key] = max(self._sums.get(key, 0), nbytes)

    def moved(self, lane: Literal["out", "in"], nbytes: int, start: float, slot: int | None) -> None:
        """A transfer that began at `start` has ended now."""
        self._add(lane, nbytes)
        if (log := self.watcher) is not None:
            log.append(Moved(lane=lane, slot=slot, nbytes=nbytes, start=start, end=time.perf_counter()))

    def blocked(self, wait: Callable[[], object]) -> None:
        """Run `wait` and count the time it takes as stall."""
        begin = time.perf_counter()
        try:
            wait()
        finally:
            self._add("stall", time.perf_counter() - begin)

    def snapshot(self, held_bytes: int = 0) -> TierCounters:
        sums = list(self._sums.items())
        out, into, stall = (
            sum(amount for (what, _), amount in sums if what == wanted) for wanted in ("out", "in", "stall")
        )
        return TierCounters(
            bytes_out=int(out),
            bytes_in=int(into),
            stall_seconds=float(stall),
            held_bytes=held_bytes,
            peak_held_bytes=int(max((n for (what, _), n in sums if what == "peak"), default=0)),
        )


@final
class Outcome:
    """How a transfer ended: known once the latch is open."""

    __slots__ = ("_error", "latch")

    def __init__(self) -> None:
        self.latch = Latch()
        self._error: TierError | None = None

    @property
    def failed(self) -> bool:
        return self._error is not None

    def end(self, error: TierError | None = None) -> None:
        self._error = error
        self.latch.open()

    def check(self) -> None:
        """Raise what went wrong, as a new error each time: one that was raised holds the whole step in its traceback."""
        if self._error is not None:
            raise self.error()

    def error(self) -> TierError:
        assert self._error is not None
        return type(self._error)(*self._error.args)


class Block(ABC):
    """Bytes in a tier. The space returns to the tier on `release`, or when the last reference goes."""

    nbytes: int
    #: Which storage of the step it holds, where whoever wrote it said so; for recordings.
    slot: int | None = None

    @abstractmethod
    def settle(self) -> None:
        """Wait until the bytes have left and their source is let go.

        Raises:
            TierError: the write failed.
        """

    @abstractmethod
    def settled(self) -> bool:
        """Whether `settle` would return (or raise) at once."""

    @abstractmethod
    def release(self) -> None:
        """Give the space back. Reads under way finish first; a write not yet begun is dropped. Idempotent."""


class Arrival(ABC):
    """Bytes on their way back."""

    @abstractmethod
    def wait(self) -> torch.Tensor:
        """Wait for the bytes: the destination, flat uint8.

        Raises:
            TierError: the read failed.
            ChecksumError: the bytes are not those that were written.
        """

    @abstractmethod
    def ready(self) -> bool:
        """Whether `wait` would return (or raise) at once."""


class Tier(ABC):
    """Memory behind the device: takes blocks, gives them back. Every method may be called from any thread."""

    name: str
    tally: Tally

    @abstractmethod
    def reserve(self, nbytes: int) -> None:
        """Make sure, before the first step, that `nbytes` can be held and that whatever moves them has started.

        Raises:
            TierError: they cannot, with the bytes asked and free.
        """

    @abstractmethod
    def write(self, data: Data, owner: object = None, slot: int | None = None) -> Block:
        """Start to move the bytes of `data` out.

        The tier keeps `data` and `owner` alive until the last byte has left and drops both at once, before
        `settle` returns; the caller drops its own references after the call, and must not change the bytes.

        Args:
            data: an untyped storage (all its bytes) or a dense tensor.
            owner: anything else to keep alive meanwhile.
            slot: which storage of the step it is, for whoever watches.
        """

    @abstractmethod
    def read(self, block: Block, into: Data | None = None) -> Arrival:
        """Start to bring a block back, after its write if that is still under way.

        Args:
            into: where to, `block.nbytes` long; None allocates a flat uint8 tensor.
        """

    def counters(self) -> TierCounters:
        """What the tier has done so far."""
        return self.tally.snapshot()

    def watch(self, log: deque[Moved] | None) -> None:
        """Append each transfer that ends from now on to `log`, while somebody keeps it; None for nobody any more."""
        self.tally.watch(log)

    @abstractmethod
    def facts(self) -> Mapping[str, object]:
        """What the tier runs on, for reports: JSON-compatible values."""

    @abstractmethod
    def close(self) -> None:
        """Stop the threads and free the space. Blocks not yet read are lost. Idempotent."""

    def __enter__(self) -> Tier:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def destination(nbytes: int, into: Data | None, device: torch.device | None = None) -> torch.Tensor:
    """The flat bytes to read into, checked or new."""
    if into is None:
        return torch.empty(nbytes, dtype=torch.uint8, device=device)
    flat = flat_bytes(into)
    if flat.numel() != nbytes:
        raise TierError(f"the block holds {nbytes} bytes and the destination {flat.numel()}")
    return flat
