"""The order of events in one worker's step.

    backward:  layer 9 | layer 8 | layer 7 | ...                    step()
    staged:         [chunk 0]  [chunk 1]      [chunk 2] ...           |
    summed, updated:      [chunk 0]   [chunk 1]      ...   [last]  all workers done

A chunk is staged when all its gradients are ready *and* every earlier chunk has been staged: all workers go
through the chunks in one order, so the ring can make a worker wait without any two waiting for each other. A
staged chunk is summed as soon as the slowest worker has staged it, by whoever comes by: the backward thread
between two layers, or a helper thread where a core is free. Parameters are shared, so a chunk is written only
after every worker's backward pass has gone past it; from the moment a worker stages a chunk, its own graph
refuses to read these parameters again (their version is raised), instead of reading torn values. Deferred
updates write in `step()`, and raise the versions there.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import final

import torch

from .bridge import Bridge
from .chunks import ChunkPlan, Slot
from .faults import Control, Field
from .ring import Ring
from .sinks import Sink, UpdateSink


@final
class Engine:
    """Sequences staging, summing and completion for one worker.

    Args:
        control: counters of the node.
        slots: of the model; `params[i]` is slot i.
        params: the model's trainable parameters.
        presence: bytes `(2, workers, slots)` in shared memory.
        sink: what to do with a chunk that everybody has staged.
        keep: whether gradients stay (they are handed back) or are dropped once staged.
        helper: run the sink on a thread of its own.
        bridge: to the accelerator that holds the module, or None; it needs a helper.
    """

    def __init__(
        self,
        *,
        control: Control,
        slots: Sequence[Slot],
        params: Sequence[torch.nn.Parameter],
        presence: torch.Tensor,
        sink: Sink,
        keep: bool,
        helper: bool,
        bridge: Bridge | None = None,
    ) -> None:
        self.control, self.slots, self.params, self.sink = control, slots, params, sink
        self._presence = presence.numpy()
        self._keep, self._bridge = keep, bridge
        self._base, self.step = 0, 0
        self._begun = False
        self._helper = _Helper() if helper else None
        self.order: list[int] = []
        self.last_order: list[int] = []
        self._reset()
        control.phase = self.phase

    def adopt(self, plan: ChunkPlan, ring: Ring) -> None:
        """Use this plan from the next step on."""
        self.plan, self.ring = plan, ring
        self.sink.adopt(plan, ring)
        self._lacking_at_first = [len({p.slot for p in chunk.pieces}) for chunk in plan.chunks]
        self._chunks_of: list[list[int]] = [[] for _ in self.slots]
        self._last_chunk = [0] * len(self.slots)
        for index, chunk in enumerate(plan.chunks):
            for slot in {piece.slot for piece in chunk.pieces}:
                self._chunks_of[slot].append(index)
                self._last_chunk[slot] = index
        self._lacking = list(self._lacking_at_first)

    @property
    def begun(self) -> bool:
        """Whether a gradient of this step has been staged or is ready."""
        return self._begun

    def phase(self) -> str:
        """Where this worker is, in words."""
        if not self._begun:
            return f"between steps (after step {self.step})"
        return f"step {self.step + 1}, chunk {min(self._staged + 1, len(self.plan))} of {len(self.plan)}"

    def begin(self) -> None:
        if not self._begun:
            self._begun = True
            self.sink.begin(self._base, self.step, self.grads)

    def ready(self, slot: int, grad: torch.Tensor) -> None:
        """The gradient of a slot is complete on this worker; stages what has become stageable."""
        self.begin()
        self.grads[slot] = grad
        self.order.append(slot)
        for index in self._chunks_of[slot]:
            self._lacking[index] -= 1
        while self._staged < len(self.plan) and self._lacking[self._staged] == 0:
            self._stage()
        self._drain()

    def close_backward(self) -> None:
        """No more gradients will come: stage the rest, with zeros for parameters that had none."""
        self.begin()
        while self._staged < len(self.plan):
            self._stage()
        self._drain()

    def complete(self) -> None:
        """End the step: every worker of the node is done with every chunk."""
        self.close_backward()
        self._arrive(len(self.plan))
        if self._helper:
            self._helper.run(self.sink.finish)
            if self._bridge is not None:
                bridge = self._bridge
                self._helper.run(lambda: self._deliver(bridge, wait=True))
            self._helper.join()
        else:
            self.sink.finish()
        if not self._keep and not self.sink.writes_early:
            self._raise_versions(range(len(self.params)))
        self._base += len(self.plan)
        self.step += 1
        self.last_order, self.order = self.order, []
        self._reset()

    def measure(self) -> None:
        """Wait until the sums of a deferred step, and so its norm, are known."""
        assert isinstance(self.sink, UpdateSink)
        self.close_backward()
        self._arrive(len(self.plan))
        if self._helper:
            self._helper.run(self.sink.measure)
            self._helper.join()
        else:
            self.sink.measure()

    def _reset(self) -> None:
        self.grads: list[torch.Tensor | None] = [None] * len(self.slots)
        self._staged = self._arrived = self._dropped = self._delivered = 0
        self._begun = False
        if hasattr(self, "plan"):
            self._lacking = list(self._lacking_at_first)

    def _stage(self) -> None:
        index, number = self._staged, self._base + self._staged
        overwritten = number - self.ring.depth
        if overwritten >= 0:
            if overwritten >= self._base:
                self._arrive(overwritten - self._base + 1)
                if self._helper is None:
                    self.sink.settle(overwritten - self._base + 1)
            self.control.wait(self.sink.frees, overwritten + 1)
        chunk = self.plan.chunks[index]
        mine = self._presence[self.step % 2][self.control.node.local_rank]
        for piece in chunk.pieces:
            mine[piece.slot] = self.grads[piece.slot] is not None
        if self._bridge is not None:
            self._depart(index, number, self._bridge)
            return
        start, stop = self.sink.cuts[index][self.control.node.local_rank]
        self.ring.stage(number, chunk, [(0, start), (stop, chunk.length)], self.grads)
        if not self._keep:
            self._seal(index)
        self.control.post(Field.STAGED, number + 1)
        self._staged += 1
        if self._helper:
            self._helper.run(lambda: self._take(index))

    def _depart(self, index: int, number: int, bridge: Bridge) -> None:
        """Stage through a lane: the helper posts the chunk when its copies have ended."""
        assert self._helper is not None
        chunk = self.plan.chunks[index]
        events = bridge.out(self.ring, number, chunk, self.control.node.local_rank, self.grads)
        self.sink.staged_own.add(index)
        if not self._keep:
            self._seal(index)
        self._staged += 1

        def land() -> None:
            for event in events:
                event.wait()
            self.control.post(Field.STAGED, number + 1)
            self._take(index)
            self._deliver(bridge, wait=False)

        self._helper.run(land)

    def _deliver(self, bridge: Bridge, *, wait: bool) -> None:
        """Send updated chunks to the device, as far as every worker is done with them."""
        if not isinstance(self.sink, UpdateSink):
            return
        while self._delivered < len(self.plan):
            number = self._base + self._delivered + 1
            if not wait and not self.control.reached(Field.DONE, number):
                return
            self.control.wait(Field.DONE, number)
            chunk = self.plan.chunks[self._delivered]
            bridge.deliver(chunk, self.sink.memories[chunk.space])
            self._delivered += 1

    def _seal(self, index: int) -> None:
        """From now on this worker's graph must not read the chunk's parameters, if others may write them."""
        members = {piece.slot for piece in self.plan.chunks[index].pieces}
        if self.sink.writes_early:
            self._raise_versions(members)
        for slot in members:
            self.params[slot].grad = None  # `grads` keeps it until its last slice has been summed

    def _raise_versions(self, slots: Iterable[int]) -> None:
        torch.autograd.graph.increment_version([self.params[slot] for slot in slots])

    def _take(self, index: int) -> None:
        self.control.wait(Field.STAGED, self._base + index + 1)
        self.sink.arrive(index)
        if self._keep:
            self.sink.settle(index + 1)
        else:
            self._let_go(index)

    def _let_go(self, index: int) -> None:
        """Drop the gradients whose last chunk has been summed here."""
        for slot in {piece.slot for piece in self.plan.chunks[index].pieces}:
            if self._last_chunk[slot] == index:
                self.grads[slot] = None

    def _arrive(self, until: int) -> None:
        """Block until the chunks before `until` have arrived and their slice is summed here."""
        if self._helper:
            self._helper.raise_error()
            return
        while self._arrived < until:
            self.control.wait(Field.STAGED, self._base + self._arrived + 1)
            self.sink.arrive(self._arrived)
            if not self._keep:
                self._let_go(self._arrived)
            self._arrived += 1

    def _drain(self) -> None:
        """Sum whatever has arrived, without waiting."""
        if self._helper:
            self._helper.raise_error()
            return
        while self._arrived < self._staged and self.control.reached(
            Field.STAGED, self._base + self._arrived + 1
        ):
            self.sink.arrive(self._arrived)
            if not self._keep:
                self._let_go(self._arrived)
            self._arrived += 1
        self._drop()

    def _drop(self) -> None:
        """Keep no gradient for the workers behind: what they have yet to send is summed with a staged copy."""
        if self._keep:
            return
        for index in range(self._arrived, self._staged):
            self.sink.stage_own(index)
        for index in range(self._dropped, self._staged):
            self._let_go(index)
        self._dropped = self._staged


@final
class _Helper:
    """A thread that runs tasks in order; its first exception is raised where the tasks come from."""

    def __init__(self) -> None:
        self._tasks: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._error: BaseException | None = None
        threading.Thread(target=self._loop, name="outsize-chunks", daemon=True).start()

    def run(self, task: Callable[[], None]) -> None:
        self._tasks.put(task)

    def join(self) -> None:
        done = threading.Event()
        self._tasks.put(done.set)
        done.wait()
        self.raise_error()

    def raise_error(self) -> None:
        if self._error is not None:
            raise self._error

    def _loop(self) -> None:
        while True:
            task = self._tasks.get()
            try:
                if self._error is None or getattr(task, "__self__", None).__class__ is threading.Event:
                    task()
            except BaseException as error:
                self._error = error
