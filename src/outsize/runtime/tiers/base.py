"""What every tier promises, whatever carries the bytes.

A step hands a buffer to a tier and goes on computing; later it asks for the bytes back. Three things must hold or
the step computes wrong numbers or keeps memory that the plan counted as free: the source lives until its last byte
has left and not a moment longer; a reader sees every byte of the write before it; and what goes wrong on another
thread is raised where the step waits for it.
"""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias, final

import torch

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
    """The counters of one tier, shared with its threads.

    Attributes:
        watcher: told of each transfer that ends, None for nobody. Called on any thread.
    """

    def __init__(self) -> None:
        self.watcher: Callable[[Moved], object] | None = None
        self._lock = threading.Lock()
        self._out = self._in = self._held = self._peak = 0
        self._stall = 0.0

    def add(self, *, out: int = 0, into: int = 0, held: int = 0) -> None:
        with self._lock:
            self._out += out
            self._in += into
            self._held += held
            self._peak = max(self._peak, self._held)

    def moved(self, lane: Literal["out", "in"], nbytes: int, start: float, slot: int | None) -> None:
        """A transfer that began at `start` has ended now."""
        if lane == "out":
            self.add(out=nbytes)
        else:
            self.add(into=nbytes)
        if (watcher := self.watcher) is not None:
            watcher(Moved(lane=lane, slot=slot, nbytes=nbytes, start=start, end=time.perf_counter()))

    def blocked(self, wait: Callable[[], object]) -> None:
        """Run `wait` and count the time it takes as stall."""
        begin = time.perf_counter()
        try:
            wait()
        finally:
            with self._lock:
                self._stall += time.perf_counter() - begin

    def snapshot(self) -> TierCounters:
        with self._lock:
            return TierCounters(
                bytes_out=self._out,
                bytes_in=self._in,
                stall_seconds=self._stall,
                held_bytes=self._held,
                peak_held_bytes=self._peak,
            )


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

    def watch(self, watcher: Callable[[Moved], object] | None) -> None:
        """Tell `watcher` of each transfer that ends from now on, on whichever thread; None for nobody any more."""
        self.tally.watcher = watcher

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
