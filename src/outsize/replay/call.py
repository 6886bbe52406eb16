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

from ..runtime.encoding import encode_storage
from ..runtime.keeper import LEAST_BYTES, Keeper
from ..runtime.saved import Away, Encoded, Saved
from ..runtime.tiers import Tier
from .program import Act, ReplayProgram
from .records import Record, Wiring

__all__ = ["Replayed"]


@final
class _Again(Away):
    """To be made again by the operators that made it. The call outlives whoever asks for it: autograd asks it."""

    def __init__(self, call: Replayed, slot: int, sources: dict[int, Saved]) -> None:
        self._call, self._slot = weakref.ref(call), slot
        #: What the operators read, which lives as long as this may be asked for.
        self._sources = sources

    def back(self) -> torch.UntypedStorage:
        call = self._call()
        assert call is not None
        return call.made_again(self._slot)


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
            return func(*args, **(kwargs or {}))
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
        self._program, self._script, self._tiers = program, program.script, tiers
        self._diverged, self._room, self._begun = diverged, room, begun
        self.light = not program.acts
        self._latest: Saved | None = None
        #: Whether the step has been the one that was observed, so far.
        self.follows = True
        self._ordered = True
        self._place = self._event = 0
        self._slots: dict[int, weakref.ref[Saved]] = {}
        self._made: dict[int, torch.UntypedStorage] = {}
        self._records: dict[int, Record] = {}
        self._producer: dict[int, int] = {}
        self._wiring = Wiring()
        self._born = {s for op in program.script.forward for s in op.made} if program.recorded else set()
        self.densities: dict[int, float] = {}
        #: Slots with more bytes than planned, and how many.
        self.grown: dict[int, int] = {}
        self._growth = 0
        self.encoded_bytes = 0
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
            if not self._program.acts:
                yield
            else:
                with _Mode(self):
                    yield

    def forward_done(self) -> None:
        """It has ended."""
        counted = self._place == len(self._script.forward) or not self._program.acts
        if self.follows and (not counted or self.count != len(self._script.saved)):
            self.stray()
        if self.follows:
            self._run(self._program.between)

    def stray(self) -> None:
        """The step takes another path."""
        if self.follows:
            self.follows = self._ordered = False
            before, self.inside = self.inside, True
            try:
                self.take_over()
            finally:
                self.inside = before
            self._diverged()

    def operator(self, func: Any, args: Any, kwargs: Any) -> Any:
        """An operator of the forward is dispatched."""
        place, script = self._place, self._script.forward
        self._place = place + 1
        if self.follows and (place >= len(script) or script[place].target is not func):
            self.stray()
        if not self.follows:
            self._room(0)
            return func(*args, **kwargs)
        program = self._program
        if (acts := program.before.get(place)) is not None:
            self._run(acts)
        if place in program.recorded:
            record = self._wiring.record(func, args, kwargs, script[place], self._is_kept)
            if record is None:
                self.stray()
                return func(*args, **kwargs)
            self._records[place] = record
            self._producer.update(dict.fromkeys(script[place].made, place))
        result = func(*args, **kwargs)
        if place in program.recorded or place in program.watched:
            self._wiring.note(result, script[place])
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
        if slot < 0 or (not fresh and saved.slot != slot) or (fresh and slot in self._slots):
            self.stray()
        elif fresh:
            self._grows(slot, saved.nbytes)
            saved.slot = slot
            self._slots[slot] = weakref.ref(saved)
            if slot in self._program.sources:
                assert saved.storage is not None
                if slot in self._born and self._wiring.slot(saved.storage) != slot:
                    self.stray()

    def left(self, tensor: Tensor, number: int) -> None:
        if self.follows and (number >= len(self._script.saved) or self._script.saved[number] >= 0):
            if number >= len(self._script.saved):
                self.stray()
            else:
                self._grows(self._script.saved[number], self._plain_bytes(tensor))

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
        if not self._ordered:
            self._out_of_order(saved)
            return
        if self.outgrew:
            self._room(0)
        expected, event = self._script.unpacked, self._event
        if event >= len(expected) or expected[event] != number:
            self._ordered = False
            return
        self._event = event + 1
        if (acts := self._program.unpacking.get(event)) is not None:
            self._run(acts)

    def _out_of_order(self, saved: Saved | None) -> None:
        """Bytes that came back for the node before go again, where they can be had once more."""
        if saved is None or saved is self._latest:
            self._room(0)
            return
        if self._latest is not None and not isinstance(self._latest.away, _Again):
            self._latest.again()
        self._latest = saved
        self._room(saved.nbytes if saved.storage is None else 0)

    def gives_up(self, saved: Saved) -> bool:
        return saved is not self._latest and super().gives_up(saved)

    def done(self) -> None:
        """A backward has ended. Where it went as observed, nothing is needed any more but what autograd holds."""
        if self._event >= len(self._script.unpacked):
            self._made.clear()
            self._ordered = False

    # What the plan says.

    def _run(self, acts: Iterable[Act]) -> None:
        before, self.inside = self.inside, True
        try:
            for act in acts:
                getattr(self, f"_{act.kind}")(act)
        finally:
            self.inside = before

    def _saved(self, slot: int) -> Saved | None:
        reference = self._slots.get(slot)
        return reference() if reference is not None else None

    def _swap_out(self, act: Act) -> None:
        saved = self._saved(act.slot)
        if saved is None:
            return
        if act.nbytes:
            if isinstance(saved.away, Encoded):
                saved.away.write(self._tiers[act.tier], act.slot)
        elif saved.storage is not None:
            saved.write(self._tiers[act.tier])

    def _settle(self, act: Act) -> None:
        saved = self._saved(act.slot)
        if saved is not None and act.nbytes and isinstance(saved.away, Encoded):
            saved.away.settle()
        elif saved is not None and not act.nbytes:
            saved.settle()

    def _encode(self, act: Act) -> None:
        saved = self._saved(act.slot)
        if saved is None or saved.storage is None or isinstance(saved.away, Encoded):
            return
        overflow = next(iter(self._tiers.values()), None)
        flat = saved.flat()
        form = encode_storage(flat, act.codec, act.nbytes, overflow)
        if form.density is not None:
            self.densities[act.slot] = form.density
        self.encoded_bytes += form.compressed.nbytes if form.compressed is not None else 0
        saved.away = Encoded(form, flat.dtype)

    def _drop(self, act: Act) -> None:
        self._made.pop(act.slot, None)
        saved = self._saved(act.slot)
        if saved is None or saved.storage is None:
            return
        if saved.away is None:
            sources: dict[int, Saved] = {}
            if self._sources(act.slot, sources, set()):
                saved.away = _Again(self, act.slot, sources)
        saved.again()

    def _fetch(self, act: Act) -> None:
        saved = self._saved(act.slot)
        if saved is not None and saved.storage is None and saved.away is not None:
            saved.away.fetch()

    def _wait(self, act: Act) -> None:
        saved = self._saved(act.slot)
        if saved is not None and not act.nbytes:
            saved.back()

    def _decode(self, act: Act) -> None:
        saved = self._saved(act.slot)
        if saved is not None:
            saved.back()
            if act.last:
                saved.away = None

    def _release(self, act: Act) -> None:
        self._made.pop(act.slot, None)
        saved = self._saved(act.slot)
        if saved is not None:
            saved.again()

    def _clone(self, act: Act) -> None:
        record = self._records.get(act.slot)
        if record is None or not any(self._missing(s) for s in record.outputs if s >= 0):
            return
        if any(self._missing(s) and self._nowhere(s) for s in record.sources()):
            return  # smaller than observed, so that it was left where it is: nothing waits for these results
        self._put(record.run(self._storage), record)

    def _missing(self, slot: int) -> bool:
        saved = self._saved(slot)
        return slot not in self._made if saved is None else saved.storage is None

    def _nowhere(self, slot: int) -> bool:
        saved = self._saved(slot)
        return saved is None or saved.away is None

    def _put(self, results: dict[int, torch.UntypedStorage], record: Record) -> None:
        for slot, storage in results.items():
            saved = self._saved(slot)
            if saved is None:
                self._made.setdefault(slot, storage)
            elif saved.storage is None:
                saved.storage = storage

    # Making again.

    def _storage(self, slot: int) -> torch.UntypedStorage:
        """The bytes of a slot, however they are to be had."""
        if (made := self._made.get(slot)) is not None:
            return made
        saved = self._saved(slot)
        if saved is not None and saved.away is not None and saved.storage is None and not self._ordered:
            return saved.away.back()  # nothing lets go of it later where no plan does
        if saved is not None and (saved.storage is not None or saved.away is not None):
            return saved.back()
        return self.made_again(slot)

    def made_again(self, slot: int) -> torch.UntypedStorage:
        """Run what made a storage once more, what that reads included."""
        if not self._ordered:
            self._room(sum(self._script.nbytes[s] for s in self._script.forward[self._producer[slot]].made))
        results = self._records[self._producer[slot]].run(self._storage)
        return results[slot]

    def _sources(self, slot: int, found: dict[int, Saved], seen: set[int]) -> bool:
        """Whether a storage can be made again, and what of autograd's is read for it."""
        place = self._producer.get(slot, -1)
        if place < 0:
            return False
        for source in self._records[place].sources() - seen:
            seen.add(source)
            saved = self._saved(source)
            if saved is not None and (saved.storage is not None or saved.away is not None):
                found[source] = saved
            elif not self._sources(source, found, seen):
                return False
        return True
