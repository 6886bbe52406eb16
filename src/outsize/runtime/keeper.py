"""The saved tensors of one eager forward: who is handed them, and who gives them back to autograd.

What a keeper does with bytes (leave them, move them, note them) is for its kinds to say. Here it is said which bytes are
one storage, what is left alone (parameters, buffers, inputs, small tensors, tensors that are no plain view of a storage),
and that no saved tensor was changed in place.
"""

from __future__ import annotations

import functools
import weakref
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable
from typing import Any, final

import torch
from torch import Tensor

from .casting import Casting
from .saved import Handle, Kept, Saved, is_plain
from .tiers import Tier

__all__ = ["LEAST_BYTES", "Keeper"]

#: Smaller storages are left alone, as planners leave them (thS of method 2).
LEAST_BYTES = 64 * 1024


class Keeper(ABC):
    """One forward's. Its hooks hold it, so it lives as long as the graph that autograd hangs on the results.

    Args:
        resident: storages (`_cdata`) that are there for the whole step.
        device: whose bytes count.
    """

    def __init__(self, resident: Collection[int], device: torch.device) -> None:
        self._resident, self._type = frozenset(resident), device.type
        self.casting = Casting(device.type)
        #: Tensors that autograd has saved so far.
        self.count = 0
        #: Whether what runs now is the keeper's own, which a dispatch mode of ours lets pass unseen.
        self.inside = False
        #: Whether all that is saved is left where it is, until `take_over`.
        self.light = False
        self._large: list[weakref.ref[Kept]] = []
        self._known: weakref.WeakValueDictionary[int, Saved] = weakref.WeakValueDictionary()
        #: By storage, all that were saved of it.
        self._of: dict[int, list[weakref.ref[Saved]]] = {}

    def hooks(self) -> Any:
        """The context in which a forward's saved tensors come here."""
        return torch.autograd.graph.saved_tensors_hooks(self._pack, self._unpack)

    def saved(self) -> list[Saved]:
        """All that is alive, oldest first."""
        return sorted(self._known.values(), key=lambda s: s.number)

    def make_room(self, needed: int, tier: Tier) -> int:
        """Write saved bytes to a tier, the oldest first since they are wanted last, until so many are free; the bytes
        that went."""
        freed = 0
        for saved in self.saved():
            if freed >= needed:
                break
            if self.gives_up(saved):
                saved.write(tier)
                saved.settle()
                freed += saved.nbytes
        return freed

    def gives_up(self, saved: Saved) -> bool:
        """Whether bytes are on the device, and nowhere else; they are in `saved.storage` then."""
        return saved.storage is not None and saved.away is None

    @abstractmethod
    def packed(self, saved: Saved, number: int, *, fresh: bool) -> None:
        """The `number`-th tensor that is saved is a view of these bytes, which came just now or earlier."""

    @abstractmethod
    def left(self, tensor: Tensor, number: int) -> None:
        """The `number`-th tensor that is saved is left where it is."""

    def fits(self, number: int, nbytes: int) -> bool:
        """Whether so many bytes were expected of the `number`-th tensor, where all is left where it is."""
        return False

    @abstractmethod
    def wanted(self, number: int, saved: Saved | None) -> None:
        """Autograd is about to read the tensor of this number; afterwards the bytes are brought back where they are
        away."""

    @final
    def _pack(self, tensor: Tensor) -> Handle | Kept:
        number, before = self.count, self.inside
        self.count, self.inside = number + 1, True
        try:
            storage = _storage_of(tensor)
            if (
                storage is None
                or storage.nbytes() < LEAST_BYTES
                or storage._cdata in self._resident
                or tensor.device.type != self._type
                or not is_plain(tensor)
                or _is_parameter(tensor)
            ):
                self.left(tensor, number)
                return Kept(tensor, number)
            if self.light:
                kept = Kept(tensor, number)
                if self.fits(number, storage.nbytes()):
                    self._large.append(weakref.ref(kept))
                    return kept
                self.left(tensor, number)
                if self.light:
                    self._large.append(weakref.ref(kept))
                    return kept
            handle, fresh = self._handle(tensor, storage, number)
            del tensor, storage
            self.packed(handle.saved, number, fresh=fresh)
            return handle
        finally:
            self.inside = before

    def _handle(self, tensor: Tensor, storage: torch.UntypedStorage, number: int) -> tuple[Handle, bool]:
        """A tensor as a view of bytes that may go, and whether they are new here."""
        known = self._known.get(storage._cdata)
        fresh = known is None or not known.is_of(storage, tensor)
        saved = Saved(storage, tensor, -1, number) if known is None or fresh else known
        if fresh:
            self._known[storage._cdata] = saved
            self._of.setdefault(storage._cdata, []).append(weakref.ref(saved))
        return Handle(tensor, saved, number), fresh

    def wrote(self, tensors: Iterable[Tensor]) -> bool:
        """An operator has written to these tensors. What autograd saved of them is no copy: where their version
        says nothing of it (a kernel that fills an argument, another counter), it reads what is there now. Whether any
        does."""
        found = False
        for tensor in tensors:
            storage = _storage_of(tensor)
            for reference in self._of.get(storage._cdata, ()) if storage is not None else ():
                saved = reference()
                if storage is not None and saved is not None and saved.reads(storage):
                    found, saved.away, saved.block, saved.storage = True, None, None, storage
                    self.renewed(saved)
        return found

    def renewed(self, saved: Saved) -> None:  # noqa: B027 (most leave them where they are)
        """Bytes that had been taken care of are others now; they are on the device."""

    def take_over(self) -> None:
        """What was left where it is may go from now on."""
        large, self._large, self.light = self._large, [], False
        for reference in large:
            if (kept := reference()) is not None:
                kept.give_up(functools.partial(self._taken_over, kept.number))

    def _taken_over(self, number: int, tensor: Tensor) -> Handle:
        return self._handle(tensor, tensor.untyped_storage(), number)[0]

    @final
    def _unpack(self, packed: Handle | Kept) -> Tensor:
        before, self.inside = self.inside, True
        try:
            if isinstance(packed, Kept):
                if packed.handle is None:
                    self.wanted(packed.number, None)
                    return packed.restore()
                packed = packed.handle
            packed.check()
            self.wanted(packed.number, packed.saved)
            return packed.view()
        finally:
            self.inside = before


def _is_parameter(tensor: Tensor) -> bool:
    """Whether it is a parameter or a view of one: its owner keeps the bytes, or gathers and frees them as FSDP does."""
    return isinstance(tensor._base if tensor._is_view() else tensor, torch.nn.Parameter)


def _storage_of(tensor: Tensor) -> torch.UntypedStorage | None:
    """The storage behind a tensor; None where it has none of its own (sparse, within a transform of torch.func)."""
    try:
        return tensor.untyped_storage() if tensor.layout is torch.strided else None
    except NotImplementedError:
        return None
