"""What one call under a plan holds: its saved tensors on the device or away, and the operators that make them again.

A plan's acts are done here. Which of them are due when is for the call (`call.py`) to say.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import final

import torch

from ..runtime.encoding import encode_storage
from ..runtime.saved import Away, Encoded, Saved
from ..runtime.tiers import Tier
from .program import Act, Script
from .records import Record

__all__ = ["Again", "Holdings"]


@final
class Again(Away):
    """To be made again by the operators that made it. The call outlives whoever asks for it: autograd asks it."""

    def __init__(self, holdings: Holdings, slot: int, sources: dict[int, Saved]) -> None:
        self._holdings, self._slot = weakref.ref(holdings), slot
        #: What the operators read, which lives as long as this may be asked for.
        self._sources = sources

    def back(self) -> torch.UntypedStorage:
        holdings = self._holdings()
        assert holdings is not None
        return holdings.made_again(self._slot)


@final
class Holdings:
    """Of one call.

    Args:
        script: the step that was observed.
        tiers: by name.
        room: makes room for so many bytes where no plan does.

    Attributes:
        ordered: whether the events are the plan's, so that it lets go of what is brought back.
        slots: the saved tensors by slot.
        made: what ran again and is no saved tensor.
        records: place of each operator that may run again, with its arguments.
        producer: slot → place of the one that makes it.
    """

    def __init__(self, script: Script, tiers: Mapping[str, Tier], room: Callable[[int], None]) -> None:
        self._script, self._tiers, self._room = script, tiers, room
        self.ordered = True
        self.slots: dict[int, weakref.ref[Saved]] = {}
        self.made: dict[int, torch.UntypedStorage] = {}
        self.records: dict[int, Record] = {}
        self.producer: dict[int, int] = {}
        self.densities: dict[int, float] = {}
        self.encoded_bytes = 0

    def run(self, acts: Iterable[Act]) -> None:
        """Do what is due."""
        for act in acts:
            getattr(self, f"_{act.kind}")(act)

    def _saved(self, slot: int) -> Saved | None:
        reference = self.slots.get(slot)
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
        self.made.pop(act.slot, None)
        saved = self._saved(act.slot)
        if saved is None or saved.storage is None:
            return
        if saved.away is None:
            sources: dict[int, Saved] = {}
            if self._sources(act.slot, sources, set()):
                saved.away = Again(self, act.slot, sources)
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
        self.made.pop(act.slot, None)
        saved = self._saved(act.slot)
        if saved is not None:
            saved.again()

    def _clone(self, act: Act) -> None:
        record = self.records.get(act.slot)
        if record is None or not any(self._missing(s) for s in record.outputs if s >= 0):
            return
        if any(self._missing(s) and self._nowhere(s) for s in record.sources()):
            return  # smaller than observed, so that it was left where it is: nothing waits for these results
        self._put(record.run(self._storage), record)

    def _missing(self, slot: int) -> bool:
        saved = self._saved(slot)
        return slot not in self.made if saved is None else saved.storage is None

    def _nowhere(self, slot: int) -> bool:
        saved = self._saved(slot)
        return saved is None or saved.away is None

    def _put(self, results: dict[int, torch.UntypedStorage], record: Record) -> None:
        for slot, storage in results.items():
            saved = self._saved(slot)
            if saved is None:
                self.made.setdefault(slot, storage)
            elif saved.storage is None:
                saved.storage = storage

    # Making again.

    def _storage(self, slot: int) -> torch.UntypedStorage:
        """The bytes of a slot, however they are to be had."""
        if (made := self.made.get(slot)) is not None:
            return made
        saved = self._saved(slot)
        if saved is not None and saved.away is not None and saved.storage is None and not self.ordered:
            return saved.away.back()  # nothing lets go of it later where no plan does
        if saved is not None and (saved.storage is not None or saved.away is not None):
            return saved.back()
        return self.made_again(slot)

    def made_again(self, slot: int) -> torch.UntypedStorage:
        """Run what made a storage once more, what that reads included."""
        if not self.ordered:
            self._room(sum(self._script.nbytes[s] for s in self._script.forward[self.producer[slot]].made))
        results = self.records[self.producer[slot]].run(self._storage)
        return results[slot]

    def _sources(self, slot: int, found: dict[int, Saved], seen: set[int]) -> bool:
        """Whether a storage can be made again, and what of autograd's is read for it."""
        place = self.producer.get(slot, -1)
        if place < 0:
            return False
        for source in self.records[place].sources() - seen:
            seen.add(source)
            saved = self._saved(source)
            if saved is not None and (saved.storage is not None or saved.away is not None):
                found[source] = saved
            elif not self._sources(source, found, seen):
                return False
        return True
