"""How long a step takes with any number of workers and any links, without running it.

Chunks pass through stations in order, each station serving one chunk at a time:

    ready on the slowest worker → (device → CPU) → stage → sum (and update) of a slice → between nodes → (CPU → device)

The backward pass and the copying and summing share a core unless there is a helper; then the stations hide behind
the backward pass, and what remains exposed is the tail after the last gradient. With `update="device"` the
summed slices are copied back by every worker.

Rates are measured once on a machine (`fit`, from one measured step) and hold for its node; other numbers of workers,
nodes and other links follow. Units: seconds, bytes, bytes per second. Pure: no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True, kw_only=True)
class Rates:
    """What one machine does.

    Attributes:
        forward: seconds of the forward pass.
        memory: bytes per second of the whole node's memory, shared by its workers.
        core: bytes per second that one worker alone can move.
        wake: seconds from posting a counter until a sleeping worker runs.
        link: bytes per second between two nodes, each way, per node; 0 for one node.
        latency: seconds of one message between nodes.
        device: bytes per second between device and CPU, each way; 0 where the CPU is the device.
        straggle: relative spread of workers' backward passes: the slowest of n is later by about
            `straggle * sqrt(2 ln n)`.
        cores: of a node; more workers than cores take turns.
        crowding: share by which forward and backward pass grow for each further worker that runs at the same time
            on the node, whose memory they share.
        switching: share by which all work grows where workers take turns on a core (each finds the caches full of
            another's data): the pass of more workers than cores, over what the turns alone make of it, less one.
        overhead: seconds of a core that a chunk costs each worker besides its bytes.
    """

    forward: float
    memory: float
    core: float
    wake: float
    link: float = 0.0
    latency: float = 0.0
    device: float = 0.0
    straggle: float = 0.0
    cores: int = 1
    crowding: float = 0.0
    switching: float = 0.0
    overhead: float = 0.0

    def turns(self, local: int) -> float:
        """What the work of one of `local` workers on a node is multiplied by, because it shares its core.

        That a worker waits for one whose turn it is not costs nothing more: a third one has the core meanwhile.
        """
        if local <= self.cores:
            return 1.0
        return local / self.cores * (1 + self.switching)

    def speed(self, local: int) -> float:
        """Bytes per second that one worker moves while it has a core."""
        return min(self.core, self.memory / min(local, self.cores))

    def stretch(self, local: int) -> float:
        """What forward and backward pass of a lone worker are multiplied by."""
        return self.turns(local) * (1 + self.crowding * (min(local, self.cores) - 1))


@dataclass(frozen=True, kw_only=True)
class Step:
    """One predicted step.

    Attributes:
        seconds: from the start of the forward pass to the end of the last update.
        exposed: the part after the end of the slowest backward pass.
        finished: when each chunk is done.
    """

    seconds: float
    exposed: float
    finished: tuple[float, ...]


def simulate(
    ready: Sequence[float],
    sizes: Sequence[int],
    rates: Rates,
    *,
    workers: int,
    nodes: int = 1,
    state_factor: float = 6.0,
    helper: bool = False,
) -> Step:
    """Predict a step.

    Args:
        ready: seconds after the start of the backward pass at which each chunk's gradients are complete, ascending,
            on a worker that has the node to itself.
        sizes: bytes of each chunk.
        rates: of the machine and its links.
        workers: of all nodes together; a multiple of `nodes`.
        nodes: machines.
        state_factor: bytes that an update reads and writes per byte of gradient, besides the gradients (AdamW: the
            parameter and two moments, read and written, 6).
        helper: the sums run on a core of their own.

    Raises:
        ValueError: lengths differ, or workers are not a multiple of nodes.
    """
    if len(ready) != len(sizes) or workers < 1 or nodes < 1 or workers % nodes:
        raise ValueError(f"{len(ready)} times for {len(sizes)} chunks, {workers} workers on {nodes} nodes")
    local = workers // nodes
    crowd, speed, stretch = rates.turns(local), rates.speed(local), rates.stretch(local)
    late = 1 + rates.straggle * _spread(workers)
    stations = [0.0] * 5  # when each station is free: device out, stage, sum, between nodes, device in
    paid = 0.0  # work that a helperless worker has put between its layers so far
    finished = []
    for at, size in zip(ready, sizes):
        out = size / rates.device if rates.device else 0.0
        stage = 2 * size * (local - 1) / local / speed * crowd
        own = size / local
        total = ((local * own + state_factor * own) / speed + rates.overhead) * crowd + 2 * rates.wake
        away = _exchange(own, nodes, rates, local)
        come = at * late * stretch + (0.0 if helper else paid)
        for station, work in enumerate((out, stage, total, away, out)):
            come = max(come, stations[station]) + work
            stations[station] = come
        paid += stage + total
        finished.append(come)
    slowest = ready[-1] * late * stretch
    end = max(finished[-1], slowest)
    forward = rates.forward * stretch
    return Step(seconds=forward + end, exposed=end - slowest, finished=tuple(forward + f for f in finished))


def baseline(
    backward: float, total: int, rates: Rates, *, workers: int, nodes: int = 1, state_factor: float = 6.0
) -> float:
    """Ordinary data parallelism: nothing hidden, a ring over all workers, the update on every worker. Seconds."""
    local = workers // nodes
    link = rates.link or rates.speed(local)
    ring = 2 * (workers - 1) / workers * total / link + 2 * (workers - 1) * rates.latency
    update = (1 + state_factor) * total / rates.speed(local)
    return (rates.forward + backward) * rates.stretch(local) + ring + update * rates.turns(local)


def fit(
    rates: Rates, ready: Sequence[float], sizes: Sequence[int], *, workers: int, measured: float
) -> Rates:
    """The same rates with the node's memory bandwidth set so that `workers` take `measured` seconds (by bisection)."""
    low, high = rates.memory / 64, rates.memory * 64
    for _ in range(60):
        middle = (low * high) ** 0.5
        guess = replace(rates, memory=middle, core=min(rates.core, middle))
        if simulate(ready, sizes, guess, workers=workers).seconds > measured:
            low = middle
        else:
            high = middle
    return replace(rates, memory=high, core=min(rates.core, high))


def _exchange(own: float, nodes: int, rates: Rates, local: int) -> float:
    """A ring between the same slices of all nodes; the workers of a node share its link."""
    if nodes == 1:
        return 0.0
    return 2 * (nodes - 1) / nodes * own * local / rates.link + 2 * (nodes - 1) * rates.latency


def _spread(workers: int) -> float:
    """Expected largest of n standard normal draws, to first order."""
    from math import log, sqrt

    return sqrt(2 * log(workers)) if workers > 1 else 0.0
