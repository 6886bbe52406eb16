"""One step observed: its forward through a dispatch mode and hooks for saved tensors, its backward node by node.

What autograd saves is copied while the budget has room for it and written to a tier from then on. Both take the bytes out
of the user's hands: the original lives exactly as long as the user's own code wants it, which is what a plan must know,
and the step keeps its memory low though nobody has planned it.

The backward runs on nodes of autograd's graph, which are hooked before it begins. Autograd sets a thread's state anew for
each node, so nothing that is entered before would be there; a node's own hooks are.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, final

import torch
from torch import Tensor

from ..device.clock import now
from ..runtime.encoding import sample_density
from ..runtime.keeper import Keeper
from ..runtime.saved import Away, Saved, is_plain
from ..runtime.tiers import Tier
from .ledger import Ledger
from .nodes import nodes_of, tensors_of
from .record import Node, Observation
from .watcher import Gauge, Watcher

__all__ = ["Observer"]


@final
class _Copied(Away):
    """Bytes in a copy on the same device."""

    def __init__(self, copy: torch.UntypedStorage) -> None:
        self.copy = copy

    def back(self) -> torch.UntypedStorage:
        return self.copy


@final
class Observer(Keeper):
    """Of one call.

    Args:
        resident: see `Keeper`.
        device: whose bytes count.
        gauge: of the step under way.
        room: bytes that may still be taken on the device now.
        tier: where saved bytes go when there is no more room, None for nowhere.
        give_way: makes room for so many bytes more, or raises.
        begun, ended: called when the backward begins and ends.
    """

    def __init__(
        self,
        resident: set[int],
        device: torch.device,
        gauge: Gauge,
        *,
        room: Callable[[], int],
        tier: Callable[[], Tier | None],
        give_way: Callable[[int], None],
        begun: Callable[[], None],
        ended: Callable[[], None],
    ) -> None:
        super().__init__(resident, device)
        self._gauge, self._room, self._tier, self._device = gauge, room, tier, device
        self._give_way = give_way
        self._begun, self._ended = begun, ended
        self._base = gauge.now
        self.ledger = Ledger(device, self._resident)
        self._watcher = Watcher(self.ledger, gauge, self._base, self, give_way)
        self._slots: list[int] = []
        self._places: list[int] = []
        self._renewed: set[int] = set()
        self._nodes: list[Node] = []
        self._node: Node | None = None
        self._reading: list[Saved] = []
        self._kept = False
        self._densities: dict[int, float] = {}
        self._outside = 0
        self._mark = 0.0
        self._outside_seconds = 0.0
        self._grads: set[int] = set()
        self.finished = False

    @contextlib.contextmanager
    def forward(self) -> Iterator[None]:
        """The forward runs in here."""
        with self.hooks(), self._watcher.values_alone, self._watcher:
            yield

    def forward_done(self, result: Any, inputs: Sequence[Tensor]) -> None:
        """It has ended: the nodes that it made are hooked."""
        operators = self._watcher.operators
        self.ledger.place = len(operators)
        if emptied := self.ledger.emptied():  # what read them cannot run again
            operators[:] = (
                replace(o, effect=o.effect or not emptied.isdisjoint(o.inputs)) for o in operators
            )
        for node in nodes_of(tensors_of(result), inputs):
            node.register_prehook(self._Before(self, node.name()))
            variable = getattr(node, "variable", None)
            node.register_hook(self._After(self, variable))
        self._gauge.peak()
        self._note_freed()
        self._mark = now(self._device)

    def _note_freed(self) -> None:
        """Garbage of earlier that goes in the step is no room of its own: bytes are counted from a lower level then."""
        self._base = min(self._base, self._gauge.now - self.ledger.alive)

    # What autograd saves.

    def packed(self, saved: Saved, number: int, *, fresh: bool) -> None:
        if fresh:
            assert saved.storage is not None
            flat = saved.flat()
            entry = self.ledger.enter(flat, f"saved_{number}", -1)
            saved.slot = entry.slot
            self.ledger.watch(saved, entry)
            if entry.saved:
                self._renewed.add(entry.slot)
            if entry.zeros and saved.dtype.is_floating_point:
                self._densities[entry.slot] = sample_density(flat)
            self._take_out(saved, flat)
        entry = self.ledger.entries[saved.slot]
        entry.saved.append(number)
        entry.saved_at.append(self.ledger.place)
        self._slots.append(saved.slot)
        self._places.append(self.ledger.place)

    def _take_out(self, saved: Saved, flat: Tensor) -> None:
        if self._room() < saved.nbytes and (tier := self._tier()) is not None:
            saved.write(tier)
            saved.settle()
            return
        copy = _copy_of(flat)
        self.ledger.holds(copy)
        saved.leave(_Copied(copy))

    def renewed(self, saved: Saved) -> None:
        self._take_out(saved, saved.flat())

    def gives_up(self, saved: Saved) -> bool:
        if not isinstance(saved.away, _Copied) or saved in self._reading:
            return False
        saved.storage, saved.away = saved.away.copy, None
        return True

    def left(self, tensor: Tensor, number: int) -> None:
        own = not is_plain(tensor) or tensor.untyped_storage()._cdata in self._resident
        entry = None if own else self.ledger.known(tensor)
        self._slots.append(-1 if entry is None else entry.slot)
        self._places.append(self.ledger.place)

    def wanted(self, number: int, saved: Saved | None) -> None:
        if self._node is not None:
            self._node.unpacked.append(number)
        if saved is not None and saved.storage is None:
            if not isinstance(saved.away, _Copied):
                self._give_way(saved.nbytes)
            storage = saved.back()
            if not isinstance(saved.away, _Copied):
                self.ledger.holds(storage)
            self._reading.append(saved)

    # The backward, node by node.

    @final
    class _Before:
        def __init__(self, observer: Observer, name: str) -> None:
            self._observer, self._name = observer, name

        def __call__(self, _: Any) -> None:
            self._observer.node_begins(self._name)

    @final
    class _After:
        def __init__(self, observer: Observer, variable: Tensor | None) -> None:
            self._observer = observer
            self._variable = weakref.ref(variable) if variable is not None else None

        def __call__(self, *_: Any) -> None:
            self._observer.node_ends(self._variable() if self._variable is not None else None)

    def node_begins(self, name: str) -> None:
        """A node of the backward begins."""
        if self.finished:  # of another backward of the same graph, which shows nothing new
            self._let_go()
            self._give_way(0)
            return
        peak = self._gauge.peak()
        self._note_freed()
        self._give_way(0)
        if not self._nodes:
            self._outside_seconds = now(self._device) - self._mark
            self._outside = max(0, peak - self._base - self.ledger.alive)
            self._begun()
            self._kept = torch._C._autograd._get_current_graph_task_keep_graph()
            torch.autograd.Variable._execution_engine.queue_callback(self._end)
        elif self._node is None:  # other nodes ran in between: the loss's
            last = self._nodes[-1]
            last.workspace = max(last.workspace, peak - self._base - self.ledger.alive)
        self._node = Node(name=name)
        self._nodes.append(self._node)
        self.ledger.place = len(self._watcher.operators) + len(self._nodes)
        self._mark = now(self._device)

    def node_ends(self, variable: Tensor | None) -> None:
        """It has ended; `variable` is the parameter that it has added a gradient up for."""
        node, self._node = self._node, None
        if node is None or self.finished:
            self._let_go()
            return
        node.seconds = now(self._device) - self._mark
        node.workspace = max(0, self._gauge.peak() - self._base - self.ledger.alive)
        self._let_go()
        gradient = variable.grad if variable is not None else None
        if gradient is not None and gradient.layout is torch.strided:
            storage = gradient.untyped_storage()
            if storage._cdata not in self._resident and storage._cdata not in self._grads:
                self._grads.add(storage._cdata)
                self.ledger.holds(storage)
                node.gradients = storage.nbytes()
                gone: weakref.WeakMethod[Any] = weakref.WeakMethod(self._gradient_gone)
                weakref.finalize(storage, _call, gone, storage._cdata, len(self._nodes) - 1).atexit = False
        self._mark = now(self._device)

    def _let_go(self) -> None:
        """A node has read what it asked for."""
        for saved in self._reading:
            saved.again()
        self._reading.clear()

    def _gradient_gone(self, storage: int, made: int) -> None:
        """A gradient has gone in the backward, as where FSDP keeps a part of it: bytes of the nodes in between."""
        self._grads.discard(storage)
        if self.finished:
            return
        nbytes, self._nodes[made].gradients = self._nodes[made].gradients, 0
        for node in self._nodes[made:]:
            node.workspace += nbytes

    def _end(self) -> None:
        if not self.finished:
            self.finished = True
            self.ledger.place = len(self._watcher.operators) + len(self._nodes)
            self._ended()

    def observation(self) -> Observation | None:
        """What was seen, once the backward has ended."""
        if not self.finished:
            return None
        return Observation(
            forward=self._watcher.operators,
            backward=self._nodes,
            ledger=self.ledger,
            saved=self._slots,
            saved_at=self._places,
            renewed=frozenset(self._renewed),
            rewriting=frozenset(self._watcher.rewriting),
            kept=self._kept,
            outside=self._outside,
            outside_seconds=self._outside_seconds,
            densities=self._densities,
            device=self._device,
        )


def _call(method: weakref.WeakMethod[Any], storage: int, made: int) -> None:
    if (alive := method()) is not None:
        alive(storage, made)


def _copy_of(flat: Tensor) -> torch.UntypedStorage:
    with torch.no_grad():
        return flat.clone().untyped_storage()
