"""The disk tier: blocks leave for one private file and come back while the step computes. `engine.py` moves them."""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import final

import torch

from ...device.waiting import aside
from ...errors import TierError
from ...units import format_bytes
from .base import Arrival, Block, Data, Tier, TierCounters, destination, flat_bytes
from .engine import Content, DiskSettings, Engine, Read, Write
from .file import RawFile, SwapFile, choose_directory

__all__ = ["DiskSettings", "DiskTier"]


@final
class DiskBlock(Block):
    """Bytes in the file, or on their way there."""

    def __init__(self, engine: Engine, content: Content) -> None:
        self.nbytes, self.slot = content.nbytes, content.slot
        self.content: Content | None = content
        self._engine, self._written = engine, content.written

    def settle(self) -> None:
        self._engine.wait(self._written.latch)
        self._written.check()

    def settled(self) -> bool:
        return self._written.latch.is_open

    def release(self) -> None:
        self.content = None


@final
class DiskArrival(Arrival):
    """A read on its way."""

    def __init__(self, engine: Engine, job: Read) -> None:
        self._engine, self._job = engine, job

    def wait(self) -> torch.Tensor:
        self._engine.wait(self._job.outcome.latch)
        self._job.outcome.check()
        assert self._job.target is not None
        return self._job.target

    def ready(self) -> bool:
        return self._job.outcome.latch.is_open


@final
class _Opened:
    """An engine that ends when this goes."""

    def __init__(self, directory: str | Path | None, settings: DiskSettings, file: RawFile | None) -> None:
        if file is None:
            file = SwapFile(Path(directory) if directory is not None else choose_directory())
        self.engine = Engine(file, settings)
        weakref.finalize(self, self.engine.shut)  # waits for the end that this brings about:
        self.engine.end_with(self)


@final
class DiskTier(Tier):
    """Blocks in one private file on a disk. See `Tier` for the contract.

    Args:
        directory: where; None takes the best real disk among the temporary directory, /var/tmp and the working
            directory.
        settings: sizes and threads.
        file: the file to use instead (tests pass one that fails).

    Raises:
        TierError: the directory is missing or not writable.
    """

    name = "disk"

    def __init__(
        self,
        directory: str | Path | None = None,
        *,
        settings: DiskSettings | None = None,
        file: RawFile | None = None,
    ) -> None:
        self._opened = aside(lambda: _Opened(directory, settings or DiskSettings(), file))
        self._engine = self._opened.engine
        self.tally = self._engine.tally

    def reserve(self, nbytes: int) -> None:
        engine = self._engine
        engine.check_open()
        aside(lambda: engine.reserve(nbytes))
        if nbytes and (why := engine.file.no_promise) and not engine.warned:
            engine.warned = True
            facts = engine.file.facts()
            warnings.warn(
                f"the disk may fill up in the middle of a step: {format_bytes(nbytes)} were asked of the swap file in "
                f"{facts.get('directory')}, and {why}. {format_bytes(engine.file.free_bytes())} are free there now; keep "
                "them free, or name a directory on ext4 or xfs with disk=DIR",
                RuntimeWarning,
                stacklevel=2,
            )
        # Each thread moves something: what it allocates for its life (100 KB) is then no part of a step.
        while nbytes and len(engine.roused) < len(engine.threads):
            blocks = [self.write(torch.zeros(1)) for _ in engine.threads]
            for arrival in [self.read(block) for block in blocks]:
                arrival.wait()

    def write(self, data: Data, owner: object = None, slot: int | None = None) -> DiskBlock:
        engine, source = self._engine, flat_bytes(data)
        engine.check_open()
        content = Content(source.numel(), slot)
        engine.place(content)
        job = Write(weakref.ref(content), source, (data, owner), content.written)
        engine.submit_write(job, content.nbytes)
        return DiskBlock(engine, content)

    def read(self, block: Block, into: Data | None = None) -> DiskArrival:
        engine = self._engine
        engine.check_open()
        if not isinstance(block, DiskBlock) or block._engine is not engine:
            raise TierError("this block was not written to this disk tier")
        if (content := block.content) is None:
            raise TierError(f"this block of {format_bytes(block.nbytes)} was released before it was read")
        job = Read(content, destination(block.nbytes, into))
        engine.submit_read(job)
        return DiskArrival(engine, job)

    def counters(self) -> TierCounters:
        return self.tally.snapshot(self._engine.space.held_bytes)

    def facts(self) -> Mapping[str, object]:
        return {
            **self._engine.file.facts(),
            "reserved_bytes": self._engine.space.size,
            "piece_bytes": self._engine.settings.piece_bytes,
            "in_flight_bytes": self._engine.settings.in_flight_bytes,
        }

    def close(self) -> None:
        aside(self._engine.shut)
