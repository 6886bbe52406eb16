"""What happens to a chunk once every worker of the node has staged it.

Two ways out, both by slices (worker r of a node owns slice r of every chunk, so nothing is summed twice):

- `UpdateSink`: the slice is summed and updates the shared parameters, at once or, deferred, in `step()` when
  the norm of all gradients is known;
- `ReturnSink`: the slice is summed in place and every worker collects all slices into its own gradients (the
  method as published: the CPU sums, the device updates).

Between nodes, each worker exchanges its slice with the workers of the same place on the other nodes
(`relay`), and nobody broadcasts afterwards.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import final

import numpy as np
import torch

from ..errors import ParallelError
from .bridge import Bridge
from .chunks import ChunkPlan, Slot
from .faults import Control, Field
from .relay import Letter, Relay
from .ring import Ring, redirect, table
from .rules import FLAT, HYPER, STAGED, Addresses, Memory, Rule, Table, add_up, borrow, master_type

_AGAINST = -1.0  # in place of a sum of squares: this worker wants no update

TORCH_TYPES = {
    "float32": torch.float32,
    "float64": torch.float64,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


class Sink(ABC):
    """One worker's part in consuming chunks, in their order.

    Args:
        control: counters of the node.
        slots: of the model.
        presence: bytes `(2, workers of the node, slots)`; 1 where a worker has a gradient in a step of that
            parity.
        relay: the way to other nodes, or None.
    """

    #: The counter that says when a place of the ring may be overwritten.
    frees: Field
    #: Whether parameters are written before every worker has come to `step()`.
    writes_early = False

    def __init__(
        self, control: Control, slots: Sequence[Slot], presence: torch.Tensor, relay: Relay | None
    ) -> None:
        self.control, self.slots, self.relay = control, slots, relay
        self._presence = presence.numpy()
        self.workers, self.worker = control.node.local_world, control.node.local_rank
        self.everyone = control.node.world
        self.divide_by_initial = True

    def adopt(self, plan: ChunkPlan, ring: Ring) -> None:
        """Use this plan from the next step on."""
        self.plan, self.ring = plan, ring
        self.cuts = [[chunk.cut(w, self.workers) for w in range(self.workers)] for chunk in plan.chunks]
        self.tables = [
            table(chunk, self.slots, *cuts[self.worker]) for chunk, cuts in zip(plan.chunks, self.cuts)
        ]
        self.members = [sorted({piece.slot for piece in chunk.pieces}) for chunk in plan.chunks]

    def begin(self, base: int, step: int, grads: list[torch.Tensor | None]) -> None:
        """A new step whose first chunk has number `base`; `grads` fills up with this worker's gradients."""
        self.base, self.step, self.grads = base, step, grads
        self.used = np.zeros(len(self.slots), dtype=bool)
        self.pending: deque[Letter] = deque()
        self.staged_own: set[int] = set()

    def stage_own(self, index: int) -> None:
        """Also stage this worker's own slice of chunk `index`, so that its gradients can be dropped."""
        if index not in self.staged_own:
            self.staged_own.add(index)
            cut = self.cuts[index][self.worker]
            self.ring.stage(self.base + index, self.plan.chunks[index], [cut], self.grads)

    @abstractmethod
    def arrive(self, index: int) -> None:
        """Every worker of the node has staged chunk `index`; called in order."""

    @abstractmethod
    def settle(self, until: int) -> None:
        """Complete this worker's duties for the chunks before `until`, all of which have arrived."""

    @abstractmethod
    def finish(self) -> None:
        """Complete the step; all chunks have arrived."""

    def scale(self, active: int | None = None) -> float:
        """1 / workers: all, or only those with inputs left (`active`, of all nodes)."""
        if self.divide_by_initial:
            return 1 / self.everyone
        return 1 / max(self.active() if active is None else active, 1)

    def active(self) -> int:
        """Workers of this node that still had inputs in this step."""
        joined = (self.control.read(Field.JOINED, worker) for worker in range(self.workers))
        return sum(not at or at - 1 > self.step for at in joined)

    def local_use(self, index: int) -> np.ndarray:
        """Which members of chunk `index` have a gradient on any worker of this node."""
        present: np.ndarray = self._presence[self.step % 2][:, self.members[index]].any(axis=0)
        return present

    def mark(self, index: int, used: np.ndarray) -> None:
        self.used[np.asarray(self.members[index])[used]] = True

    def own_rows(self, index: int) -> Table:
        """This worker's runs of chunk `index`, reading its own gradients where they are."""
        if index in self.staged_own:
            return self.tables[index]
        chunk = self.plan.chunks[index]
        return self.ring.own(self.base + index, chunk, self.tables[index], self.slots, self.grads)

    def rows(self, index: int, own: bool = False) -> Table:
        """This worker's runs of chunk `index` without parameters that no worker used."""
        rows = self.own_rows(index) if own else self.tables[index]
        keep = self.used[rows[:, HYPER]]
        return rows if keep.all() else np.ascontiguousarray(rows[keep])

    def dtype(self, index: int) -> torch.dtype:
        return TORCH_TYPES[self.plan.chunks[index].space]

    def post_away(self, index: int) -> None:
        """Sum this node's slice of chunk `index` into a letter and send it to the other nodes."""
        assert self.relay is not None
        start, stop = self.cuts[index][self.worker]
        letter = self.relay.write(
            index, stop - start, self.local_use(index), self.active(), self.dtype(index)
        )
        rows = redirect(self.own_rows(index), write=STAGED, shift=start)
        number = self.base + index
        add_up(rows, self.ring.sources(number), self.worker, self.dtype(index), 1.0, letter.slice)
        self.relay.send(letter)
        self.pending.append(letter)

    def read_mail(self, until: int) -> None:
        """Handle, in order, the letters for chunks before `until`; waits for them."""
        while self.pending and self.pending[0].index < until:
            letter = self.pending.popleft()
            assert self.relay is not None
            self.relay.receive(letter)
            self.mark(letter.index, letter.used)
            self.open(letter)

    def peek_mail(self) -> None:
        """Handle what has come already."""
        while self.pending and self.pending[0].arrived():
            self.read_mail(self.pending[0].index + 1)

    @abstractmethod
    def open(self, letter: Letter) -> None:
        """The sum over all nodes of this worker's slice of one chunk is here."""


@final
class UpdateSink(Sink):
    """Updates the node's one copy of the parameters."""

    frees = Field.SUMMED

    def __init__(
        self,
        control: Control,
        slots: Sequence[Slot],
        presence: torch.Tensor,
        relay: Relay | None,
        *,
        rules: Mapping[str, Rule],
        memories: Mapping[str, Memory],
        norms: torch.Tensor,
        deferred: bool,
        max_norm: float | None,
    ) -> None:
        super().__init__(control, slots, presence, relay)
        self.rules, self.memories, self.norms = rules, memories, norms
        self.deferred, self.max_norm, self.writes_early = deferred, max_norm, not deferred
        self.norm: float | None = None
        self.prepare: Callable[[], None] = lambda: None

    def begin(self, base: int, step: int, grads: list[torch.Tensor | None]) -> None:
        super().begin(base, step, grads)
        self.squares, self.unscale = 0.0, 1.0
        self.discard = self._measured = False
        if not self.deferred:
            self.prepare()

    def arrive(self, index: int) -> None:
        number, chunk = self.base + index, self.plan.chunks[index]
        if self.relay is not None:
            self.post_away(index)
            self.control.post(Field.SUMMED, number + 1)
            self.peek_mail()
            return
        self.mark(index, self.local_use(index))
        rows, sources, rule = self.rows(index, own=True), self.ring.sources(number), self.rules[chunk.space]
        if self.deferred:
            total = self.memories[chunk.space].total
            assert total is not None
            into = redirect(rows, write=FLAT)
            self.squares += add_up(into, sources, self.worker, self.dtype(index), self.scale(), total)
            self.control.post(Field.SUMMED, number + 1)
        elif rule.fuses:
            rule.update(rows, sources, self.worker, chunk.itemsize == 2, self.scale())
            self.control.post(Field.SUMMED, number + 1)
            self.control.post(Field.DONE, number + 1)
        else:
            start, stop = self.cuts[index][self.worker]
            scratch = torch.empty(stop - start, dtype=master_type(self.dtype(index)))
            into = redirect(rows, write=STAGED, shift=start)
            add_up(into, sources, self.worker, self.dtype(index), self.scale(), scratch)
            self.control.post(Field.SUMMED, number + 1)
            self._apply(index, rows, scratch, start, 1.0)

    def open(self, letter: Letter) -> None:
        index = letter.index
        start, _ = self.cuts[index][self.worker]
        rows, scale = self.rows(index), self.scale(letter.active)
        if not self.deferred:
            self._apply(index, rows, letter.slice, start, scale)
            return
        total = self.memories[self.plan.chunks[index].space].total
        assert total is not None
        into = redirect(redirect(rows, write=FLAT), read=STAGED, shift=start)
        self.squares += add_up(into, _address(letter.slice), 0, letter.slice.dtype, scale, total)

    def _apply(self, index: int, rows: Table, grads: torch.Tensor, start: int, scale: float) -> None:
        rule = self.rules[self.plan.chunks[index].space]
        rule.update(redirect(rows, read=STAGED, shift=start), _address(grads), 0, False, scale)
        self.control.post(Field.DONE, self.base + index + 1)

    def settle(self, until: int) -> None:
        self.read_mail(until)

    def finish(self) -> None:
        self.read_mail(len(self.plan))
        if self.deferred:
            self.measure()
            if self.discard:
                self.used[:] = False
                self.control.post(Field.DONE, self.base + len(self.plan))
            else:
                self._update_all()
        self.control.wait(Field.DONE, self.base + len(self.plan))

    def measure(self) -> None:
        """The norm of a deferred step's gradients, for all workers; `discard` set before is a vote against the step.

        Raises:
            ParallelError: some workers voted against it, others did not.
        """
        if self._measured:
            return
        self._measured = True
        self.read_mail(len(self.plan))
        self.norms[self.worker] = _AGAINST if self.discard else self.squares
        self.prepare()  # before the barrier: afterwards others already write state
        self.control.barrier()
        against = self.norms == _AGAINST
        if against.any() and not against.all():
            ranks = [self.control.node.ranks[worker] for worker in against.nonzero().flatten().tolist()]
            raise ParallelError(
                f"zero_grad() threw away a synchronised backward pass on rank {', '.join(map(str, ranks))} while other "
                "workers called step(): all workers must do the same"
            )
        self.norm = float(self.norms.sum().sqrt())

    def _update_all(self) -> None:
        assert self.norm is not None
        self.norm *= self.unscale
        clip = 1.0 if self.max_norm is None else min(1.0, self.max_norm / (self.norm + 1e-6))
        factor = clip * self.unscale
        for index, chunk in enumerate(self.plan.chunks):
            total = self.memories[chunk.space].total
            assert total is not None
            rows = redirect(self.rows(index), read=FLAT)
            self.rules[chunk.space].update(rows, _address(total), 0, False, factor)
        self.control.post(Field.DONE, self.base + len(self.plan))


@final
class ReturnSink(Sink):
    """Hands the mean gradients back; the parameters stay each worker's own."""

    frees = Field.DONE

    def begin(self, base: int, step: int, grads: list[torch.Tensor | None]) -> None:
        super().begin(base, step, grads)
        self.collected = 0

    #: Shapes for gradients of parameters that only other workers used.
    params: Sequence[torch.nn.Parameter]
    #: To the accelerator that holds the gradients, if one does.
    bridge: Bridge | None = None

    def arrive(self, index: int) -> None:
        number = self.base + index
        if self.relay is not None:
            self.post_away(index)
            self.peek_mail()
            return
        self.mark(index, self.local_use(index))
        sources = self.ring.sources(number)
        place = self._place(number, index)
        add_up(self.rows(index, own=True), sources, self.worker, self.dtype(index), self.scale(), place)
        self.control.post(Field.SUMMED, number + 1)

    def open(self, letter: Letter) -> None:
        index = letter.index
        start, _ = self.cuts[index][self.worker]
        rows = redirect(self.rows(index), read=STAGED, shift=start)
        place = self._place(self.base + index, index)
        add_up(rows, _address(letter.slice), 0, letter.slice.dtype, self.scale(letter.active), place)
        self.control.post(Field.SUMMED, self.base + index + 1)

    def _place(self, number: int, index: int) -> torch.Tensor:
        address = int(self.ring.sources(number)[self.worker])
        return borrow(address, self.plan.chunks[index].length, self.dtype(index))

    def settle(self, until: int) -> None:
        self.read_mail(until)
        while self.collected < until:
            index, number = self.collected, self.base + self.collected
            self.control.wait(Field.SUMMED, number + 1)
            for slot in self.members[index]:
                if self.used[slot] and self.grads[slot] is None:
                    self.grads[slot] = torch.empty_like(self.params[slot])
            collect = self.ring.collect if self.bridge is None else partial(self.bridge.back, self.ring)
            collect(number, self.plan.chunks[index], self.cuts[index], self.grads)
            self.control.post(Field.DONE, number + 1)
            self.collected += 1

    def finish(self) -> None:
        self.settle(len(self.plan))


def _address(tensor: torch.Tensor) -> Addresses:
    return np.array([tensor.data_ptr()], dtype=np.uint64)
