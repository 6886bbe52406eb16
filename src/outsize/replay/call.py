"""One eager call under a plan: its forward op by op, its saved tensors away and back at the plan's events.

The plan is advice about *when*. That bytes can be had again does not hang on it: before anything is let go of, where to
get it is known (`runtime.saved.Away`). A step that takes another path than the one that was observed has the same bits;
only its peak and its speed are not the plan's.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, final

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ..fx.operators import is_mutable, written
from ..runtime.keeper import LEAST_BYTES, Keeper
from ..runtime.saved import Saved
from ..runtime.tiers import Tier
from .holdings import Again, Holdings
from .program import Act, ReplayProgram
from .records import Wiring

__all__ = ["Replayed"]


@final
class _Mode(TorchDispatchMode):
    """Counts the operators of the forward."""

    def __init__(self, call: Replayed) -> None:
        super().__init__()
        self._call = call

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        call = self._call
        if call.inside:
            return func(*args, **kwargs) if kwargs else func(*args)
        if call.passes(func):
            return call.casting.run(func, args, kwargs or {})
        return call.operator(func, args, kwargs or {})


@final
class Replayed(Keeper):
    """Of one call.

    Args:
        program: what to do when.
        resident: see `Keeper`.
        device: whose bytes count.
        tiers: by name.
        diverged: called once, where the step takes another path.
        room: makes room for so many bytes, on such a path.
        begun: called once, when the backward first asks for a saved tensor.
    """

    def __init__(
        self,
        program: ReplayProgram,
        resident: set[int],
        device: torch.device,
        tiers: Mapping[str, Tier],
        *,
        diverged: Callable[[], None],
        room: Callable[[int], None],
        begun: Callable[[], None],
    ) -> None:
        super().__init__(resident, device)
        self._program, self._script = program, program.script
        self._diverged, self._room, self._begun = diverged, room, begun
        self.light = not program.acts
        #: Whether the operators of the forward are seen. Where none runs again, what autograd saves tells enough.
        self._seen = bool(program.script.rewriting) or (program.acts and program.packing is None)
        self._latest: Saved | None = None
        #: Whether the step has been the one that was observed, so far.
        self.follows = True
        self._place = self._event = 0
        self._holdings = Holdings(program.script, tiers, room)
        self._wiring = Wiring()
        self._born = {s for op in program.script.forward for s in op.made} if program.recorded else set()
        #: Slots with more bytes than planned, and how many.
        self.grown: dict[int, int] = {}
        self._growth = 0
        self.saved_bytes = 0
        self.began = False

    @property
    def outgrew(self) -> bool:
        """Whether the step has larger sizes than it was planned for."""
        return self._growth >= LEAST_BYTES

    # The forward.

    @contextlib.contextmanager
    def forward(self) -> Iterator[None]:
        """The forward runs in here."""
        with self.hooks():
            if not self._seen:
                yield
            else:
                with _Mode(self):
                    yield

    def forward_done(self) -> None:
        """It has ended."""
        counted = self._place == len(self._script.forward) or not self._seen
        if self.follows and (not counted or self.count != len(self._script.saved)):
            self.stray()
        if self.follows:
            self._run(self._program.between)

    def stray(self) -> None:
        """The step takes another path."""
        if self.follows:
            self.follows = self._holdings.ordered = False
            before, self.inside = self.inside, True
            try:
                self.take_over()
            finally:
                self.inside = before
            self._diverged()

    def passes(self, func: Any) -> bool:
        """Whether an operator is the one that comes next, and nothing is to be done about it: what most of them are, and
        all that is done for those."""
        if self.inside:
            return True
        program, place = self._program, self._place
        if not self.follows or place in program.busy or place >= len(program.targets):
            return False
        if program.targets[place] is not func:
            return False
        self._place = place + 1
        return True

    def operator(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Another operator of the forward is dispatched."""
        place, script = self._place, self._script.forward
        self._place = place + 1
        if self.follows and (place >= len(script) or script[place].target is not func):
            self.stray()
        if not self.follows:
            self._room(0)
            return self._run_writing(func, args, kwargs)
        program = self._program
        if (acts := program.before.get(place)) is not None:
            self._run(acts)
        if place in program.recorded:
            record = self._wiring.record(func, args, kwargs, script[place], self._is_kept)
            if record is None:
                self.stray()
                return self._run_writing(func, args, kwargs)
            self._holdings.records[place] = record
            self._holdings.producer.update(dict.fromkeys(script[place].made, place))
        result = self._run_writing(func, args, kwargs)
        if place in program.recorded or place in program.watched:
            self._wiring.note(result, script[place])
        return result

    def _run_writing(self, func: Any, args: Any, kwargs: Any) -> Any:
        result = self.casting.run(func, args, kwargs)
        if is_mutable(func):
            self.wrote(leaf for leaf in tree_leaves(written(func, args, kwargs)) if isinstance(leaf, Tensor))
        return result

    def _is_kept(self, slot: int) -> bool:
        return slot not in self._born or slot in self._script.lasting

    # What autograd saves.

    def packed(self, saved: Saved, number: int, *, fresh: bool) -> None:
        self.saved_bytes += saved.nbytes if fresh else 0
        if not self.follows:
            self._room(0)
            return
        slot = self._script.saved[number] if number < len(self._script.saved) else -1
        again = fresh and slot in self._holdings.slots
        if slot in self._script.renewed:
            saved.slot = slot
            self._grows(slot, saved.nbytes)
        elif slot < 0 or (not fresh and saved.slot != slot) or again:
            self.stray()
        elif fresh:
            saved.slot = slot
            self._holdings.slots[slot] = weakref.ref(saved)
            if slot in self._program.sources:
                assert saved.storage is not None
                if slot in self._born and self._wiring.slot(saved.storage) != slot:
                    self.stray()
            self._grows(slot, saved.nbytes)
        self._was_saved(number)

    def _was_saved(self, number: int) -> None:
        if not self._seen and self.follows and (due := self._program.packing) is not None and number in due:
            self._run(due[number])

    def fits(self, number: int, nbytes: int) -> bool:
        most = self._program.most
        return number < len(most) and nbytes <= most[number]

    def left(self, tensor: Tensor, number: int) -> None:
        if self.follows and (number >= len(self._script.saved) or self._script.saved[number] >= 0):
            if number >= len(self._script.saved):
                self.stray()
            else:
                self._grows(self._script.saved[number], self._plain_bytes(tensor))
        self._was_saved(number)

    def _grows(self, slot: int, nbytes: int) -> None:
        """A storage may have more bytes than its plan knows: the plan goes on, and what is saved makes room for them."""
        more = nbytes - self._script.nbytes[slot] if slot >= 0 else 0
        if more <= 0:
            return
        self.grown[slot] = nbytes
        self._growth += more
        if self.outgrew:
            if self.light:
                self.take_over()
            self._room(more)

    @staticmethod
    def _plain_bytes(tensor: Tensor) -> int:
        try:
            return tensor.untyped_storage().nbytes()
        except (NotImplementedError, RuntimeError):
            return 0

    def wanted(self, number: int, saved: Saved | None) -> None:
        if not self.began:
            self.began = True
            self._begun()
        if self.light:
            return
        if not self._holdings.ordered:
            self._out_of_order(saved)
            return
        if self.outgrew:
            self._room(0)
        expected, event = self._script.unpacked, self._event
        if event >= len(expected) or expected[event] != number:
            self._holdings.ordered = False
            return
        self._event = event + 1
        if (acts := self._program.unpacking.get(event)) is not None:
            self._run(acts)

    def _out_of_order(self, saved: Saved | None) -> None:
        """Bytes that came back for the node before go again, where they can be had once more."""
        if saved is None or saved is self._latest:
            self._room(0)
            return
        if self._latest is not None and not isinstance(self._latest.away, Again):
            self._latest.again()
        self._latest = saved
        self._room(saved.nbytes if saved.storage is None else 0)

    def gives_up(self, saved: Saved) -> bool:
        return saved is not self._latest and super().gives_up(saved)

    def done(self) -> None:
        """A backward has ended. Where it went as observed, nothing is needed any more but what autograd holds."""
        if self._event >= len(self._script.unpacked):
            self._holdings.made.clear()
            self._holdings.ordered = False

    @property
    def encoded_bytes(self) -> int:
        """Bytes that encodings took."""
        return self._holdings.encoded_bytes

    def _run(self, acts: Iterable[Act]) -> None:
        before, self.inside = self.inside, True
        try:
            self._holdings.run(acts)
        finally:
            self.inside = before
