"""Exchange between nodes: one worker's slice with the workers of the same place on the other nodes.

The bytes that leave a node are those of one copy of the gradients, once, over all its workers' connections
at the same time; the sum arrives where the update is made, so nothing is broadcast. Behind the slice travel
one number per parameter of the chunk (how many nodes used it) and the number of workers that had inputs.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, final

import numpy as np
import torch
import torch.distributed as dist

from ..errors import RankFailure
from .faults import Control
from .rules import master_type


@dataclass(kw_only=True)
class Letter:
    """One chunk's slice under way; after `Relay.receive`, its sum over the nodes."""

    index: int
    data: torch.Tensor
    length: int
    work: Any = None

    @property
    def slice(self) -> torch.Tensor:
        return self.data[: self.length]

    @property
    def used(self) -> np.ndarray:
        """Which members of the chunk any node used."""
        used: np.ndarray = self.data[self.length : -1].numpy() > 0
        return used

    @property
    def active(self) -> int:
        return int(self.data[-1])

    def arrived(self) -> bool:
        return bool(self.work.is_completed())


@final
class Relay:
    """Asynchronous all-reduce with this worker's peers.

    Args:
        peers: the process group of the workers with this place on their node.
        control: of this node, whose workers are told of a peer's failure.
        timeout: seconds.
    """

    #: Seconds between two looks at an exchange under way; far below the latency of an exchange between machines.
    PAUSE = 2e-4

    def __init__(self, peers: dist.ProcessGroup, control: Control, timeout: float) -> None:
        self._peers, self._control, self._timeout = peers, control, timeout

    def write(self, index: int, length: int, used: np.ndarray, active: int, dtype: torch.dtype) -> Letter:
        data = torch.empty(length + len(used) + 1, dtype=master_type(dtype))
        data[:length].zero_()  # padding between pieces is summed too
        data[length:-1] = torch.from_numpy(used)
        data[-1] = active
        return Letter(index=index, data=data, length=length)

    def send(self, letter: Letter) -> None:
        letter.work = self._guard(lambda: dist.all_reduce(letter.data, group=self._peers, async_op=True))

    def receive(self, letter: Letter) -> None:
        """Wait for the sum, watching this node's workers meanwhile.

        Raises:
            RankFailure: the exchange failed or took longer than the timeout.
        """
        deadline = time.monotonic() + self._timeout
        while not letter.arrived():
            self._control.watch_peers()
            if time.monotonic() > deadline:
                raise self._lost(f"no answer within {self._timeout:g} s")
            time.sleep(self.PAUSE)
        self._guard(lambda: letter.work.wait(timedelta(seconds=self._timeout)))

    def _guard(self, act: Any) -> Any:
        try:
            return act()
        except RuntimeError as error:
            raise self._lost(str(error).splitlines()[0]) from error

    def _lost(self, reason: str) -> RankFailure:
        ranks = [r for r in dist.get_process_group_ranks(self._peers) if r != dist.get_rank()]
        self._control.poison(ranks[0], -1, f"(or its link) failed on another node: {reason}")
        return RankFailure(
            f"the exchange with rank {', '.join(map(str, ranks))} on other nodes failed: {reason}. The step is "
            "lost; restart from the last checkpoint (torchrun --max-restarts)",
            rank=ranks[0],
            pid=-1,
            phase="exchange between nodes",
        )
