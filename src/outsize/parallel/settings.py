"""What a user may choose about data parallelism, with the measurement behind each default."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..device.lanes import Lanes
from ..errors import ParallelError

MiB = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Search:
    """The run-time search for the chunk size (method 5, claims 2 to 5; see `tune`).

    Attributes:
        frequency: steps over which one chunk size is evaluated; the smallest time counts. Three, because the
            smallest of three steps repeats within 3 % on a loaded two-core machine and that of two does not.
        expansion: factor between one chunk size and the next.
        first_mb: size that the search starts from, in MiB. Two workers on the 50.4 M MLP took 241, 227, 239 and
            226 ms of CPU a step with chunks of 1, 2, 4 and 16 MiB, so any of these is a fair start.
        limit: evaluations after which the search stops whatever it found.
        claim: stop by the words of claim 4 (at the first size that ran *shorter* than the one before it)
            instead of at the first that did not.
    """

    frequency: int = 3
    expansion: float = 2.0
    first_mb: float = 4.0
    limit: int = 6
    claim: bool = False

    def __post_init__(self) -> None:
        if self.frequency < 1 or self.expansion <= 1 or self.first_mb <= 0 or self.limit < 1:
            raise ParallelError(
                f"a chunk search needs frequency ≥ 1, expansion > 1, first_mb > 0 and limit ≥ 1, got {self}"
            )


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Choices beyond the arguments of `distribute`.

    Attributes:
        depth: chunks of one worker that may wait in shared memory at once. Four: two leave a worker waiting
            whenever the other is a chunk behind, and more only cost memory.
        staging_mb: upper limit of one worker's staging ring, in MiB; a chunk takes at most half of it.
        broadcast_buffers: copy rank 0's buffers to every worker at each forward, as DDP does.
        helper: sum and update on a thread of its own (True), inside the backward thread (False), or by
            whether this worker has a core to spare (None).
        deferred: sum during the backward pass but update in `step()`; implied by `clip_grad_norm`. Choose it
            when the learning rate is set between `backward()` and `step()`.
        reuse_pages: serve large tensors of this process from `device.allocator`, so that a gradient finds the
            still cached pages of the one before it; with the C library's ways, fresh pages for every large
            gradient take half of the time of a backward pass through 4096-wide layers
            (benchmarks/parallel-step: local against local-arena).
        nodes: treat the workers of this machine as that many nodes (for tests of several nodes on one).
        lanes: of the device that holds the module; None finds them (the CPU needs none). Tests give an emulated
            device's.
        search: how the chunk size is searched; unused where `chunk_mb` is given.
    """

    depth: int = 4
    staging_mb: float = 32.0
    broadcast_buffers: bool = True
    helper: bool | None = None
    deferred: bool = False
    reuse_pages: bool = True
    nodes: int | None = None
    lanes: Lanes | None = None
    search: Search = field(default_factory=Search)

    def __post_init__(self) -> None:
        if self.depth < 2 or self.staging_mb <= 0 or (self.nodes is not None and self.nodes < 1):
            raise ParallelError(
                f"settings need depth ≥ 2, staging_mb > 0 and nodes ≥ 1, got depth={self.depth}, "
                f"staging_mb={self.staging_mb}, nodes={self.nodes}"
            )

    def chunk_bytes(self, wanted_mb: float) -> int:
        """The chunk size in bytes, kept to half of the ring.

        Args:
            wanted_mb: the size asked for, in MiB.

        Returns:
            bytes, 4096 or more.
        """
        return int(max(min(wanted_mb, self.staging_mb / 2) * MiB, 4096))
