"""Every storage of an observed step: where it came from, who read it, and when its last reference went.

The last is what no graph tells. A plan frees the bytes that autograd saved, but they are gone only when the user's own
variables have let go of them as well: a residual connection, a list of hidden states, the module's result. Python tells
of that by weak references to the storages, so the ledger notes during which operator each of them died.
"""

from __future__ import annotations

import weakref
from collections.abc import Collection
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

__all__ = ["Entry", "Ledger"]


@dataclass(kw_only=True)
class Entry:
    """One storage.

    Attributes:
        slot: its number.
        name: of the operator that made it.
        nbytes: its size; 0 on another device than the step's.
        born: place of the operator that made it, -1 for what was there or came from elsewhere.
        died: place of the operator during or after which its last reference went, -1 while it lives.
        uses: places of the operators that read it in the forward.
        changed: places of those that changed it in place.
        zeros: it comes out of a ReLU or a dropout.
        own: it belongs to the module, or is one of its inputs.
        saved: numbers of the tensors that autograd saved of it.
        saved_at: places of the operators that had run by then.
        let_go: place when autograd let go of the last of them, -1 while it has not.
    """

    slot: int
    name: str
    nbytes: int
    dtype: str
    born: int
    died: int = -1
    zeros: bool = False
    own: bool = False

    def __post_init__(self) -> None:
        self.uses: list[int] = []
        self.changed: list[int] = []
        self.saved: list[int] = []
        self.saved_at: list[int] = []
        self.let_go = -1


@final
class Ledger:
    """Of one call.

    Args:
        device: whose bytes count.
        resident: storages (`_cdata`) that are there for the whole step.

    Attributes:
        place: of the operator that runs or ran last.
        alive: bytes of the storages made in the step, as they are now.
    """

    def __init__(self, device: torch.device, resident: Collection[int]) -> None:
        self._resident = resident
        self.entries: list[Entry] = []
        self.place = -1
        self.alive = 0
        self.device = device
        self._known: dict[int, tuple[weakref.ref[torch.UntypedStorage], int]] = {}

    def known(self, tensor: Tensor) -> Entry | None:
        """The storage behind a tensor, if it was seen."""
        storage = tensor.untyped_storage()
        reference, slot = self._known.get(storage._cdata, (None, -1))
        return self.entries[slot] if reference is not None and reference() is storage else None

    def is_resident(self, tensor: Tensor) -> bool:
        """Whether a tensor is there for the whole step, as any view of it."""
        return tensor.layout is torch.strided and tensor.untyped_storage()._cdata in self._resident

    def enter(self, tensor: Tensor, name: str, born: int, *, zeros: bool = False) -> Entry:
        """The storage behind a tensor, entered where it was not seen before."""
        if (entry := self.known(tensor)) is not None:
            return entry
        storage = tensor.untyped_storage()
        here = tensor.device.type == self.device.type
        entry = Entry(
            slot=len(self.entries),
            name=name,
            nbytes=storage.nbytes() if here else 0,
            dtype=str(tensor.dtype).removeprefix("torch."),
            born=born,
            zeros=zeros,
            own=storage._cdata in self._resident,
        )
        self.entries.append(entry)
        mine = weakref.ref(self)

        def died(_: object, entry: Entry = entry) -> None:
            if (ledger := mine()) is not None:
                entry.died = ledger.place
                ledger.alive -= entry.nbytes if born >= 0 else 0

        self._known[storage._cdata] = (weakref.ref(storage, died), entry.slot)
        self.alive += entry.nbytes if born >= 0 else 0
        return entry

    def emptied(self) -> set[int]:
        """The slots whose storages are alive and have been emptied: their owner frees the bytes and brings others. They
        are no bytes of the operators any more."""
        alive = ((reference(), self.entries[slot]) for reference, slot in self._known.values())
        found = [e for storage, e in alive if storage is not None and e.nbytes and not storage.nbytes()]
        for entry in found:
            self.alive -= entry.nbytes if entry.born >= 0 else 0
            entry.nbytes = 0
        return {entry.slot for entry in found}

    def watch(self, saved: object, entry: Entry) -> None:
        """Note when autograd lets go of what it saved of a storage."""
        mine = weakref.ref(self)

        def gone() -> None:
            if (ledger := mine()) is not None:
                entry.let_go = ledger.place

        weakref.finalize(saved, gone).atexit = False

    def holds(self, storage: torch.UntypedStorage) -> None:
        """Bytes that the observation itself keeps or brings back: alive until they die."""
        mine, nbytes = weakref.ref(self), storage.nbytes()
        self.alive += nbytes

        def died() -> None:
            if (ledger := mine()) is not None:
                ledger.alive -= nbytes

        weakref.finalize(storage, died).atexit = False
