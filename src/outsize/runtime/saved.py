"""What autograd saves in an eager forward, kept in our hands: on the device, in a tier, encoded, or to be made again.

`torch.autograd.graph.saved_tensors_hooks` hands over every tensor that a backward will read and asks for it again when
that backward comes. What is handed over is cut into two: the *bytes*, which belong to a storage that several saved
tensors may share (`Saved`), and the *view* of them (`Handle`). While bytes are away, a handle holds no more than a shape.

Autograd leaves it to hooks to notice that a saved tensor was changed in place, so that is done here: an emptied alias
of the tensor stays with its bytes, and shares its version counter. Tensors of one storage may count their changes apart
(`unsafe_chunk`, as in a GRU's cell; `.data`): equal versions of those say nothing, and their bytes are kept apart.
"""

from __future__ import annotations

import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, final

import torch
from torch import Tensor
from torch.autograd.grad_mode import _unsafe_preserve_version_counter

from ..errors import MutationError
from .encoding import Form, decode_storage
from .tiers import Arrival, Block, Tier

__all__ = ["Away", "Encoded", "Handle", "InTier", "Kept", "Saved", "is_plain"]

_EMPTY: dict[tuple[torch.dtype, torch.device], Tensor] = {}


def is_plain(tensor: Tensor) -> bool:
    """Whether a tensor is a view of one storage, described by dtype, shape, strides and offset alone."""
    return (
        type(tensor) in (Tensor, torch.nn.Parameter)
        and tensor.layout is torch.strided
        and tensor.device.type != "meta"
        and not (tensor.is_conj() or tensor.is_neg() or tensor.is_quantized or tensor.is_inference())
    )


def _emptied(tensor: Tensor) -> Tensor:
    """An alias without bytes, which shares the tensor's version counter all the same."""
    key = (tensor.dtype, tensor.device)
    if (empty := _EMPTY.get(key)) is None:
        empty = _EMPTY[key] = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
    alias = tensor.detach()
    alias.data = empty
    return alias


def _count_together(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors without bytes share a version counter: no attribute says so, a change of one does."""
    before = other._version
    with _unsafe_preserve_version_counter(one):
        one.zero_()
        return other._version != before


class Away(ABC):
    """Where bytes are that are not on the device."""

    def fetch(self) -> None:  # noqa: B027 (most kinds have nothing to start)
        """Start to bring them back, where that can go on beside the computation."""

    def ready(self) -> bool:
        """Whether `fetch` was called already."""
        return False

    @abstractmethod
    def back(self) -> torch.UntypedStorage:
        """The bytes; waits for them. What holds them stays, for whoever asks again."""


@final
class InTier(Away):
    """In a tier, written as they are."""

    def __init__(self, tier: Tier, block: Block) -> None:
        self._tier, self.block = tier, block
        self._arrival: Arrival | None = None

    def fetch(self) -> None:
        if self._arrival is None:
            self._arrival = self._tier.read(self.block)

    def ready(self) -> bool:
        return self._arrival is not None

    def back(self) -> torch.UntypedStorage:
        self.fetch()
        assert self._arrival is not None
        arrival, self._arrival = self._arrival, None
        return arrival.wait().untyped_storage()


@final
class Encoded(Away):
    """Encoded on the device; `travels` once the encoded bytes are written to a tier."""

    def __init__(self, form: Form, dtype: torch.dtype) -> None:
        self.form, self._dtype = form, dtype
        self._tier: Tier | None = None
        self._block: Block | None = None
        self._arrival: Arrival | None = None

    def write(self, tier: Tier, slot: int) -> None:
        """Start to write the encoded bytes to a tier; where they did not fit, the plain ones are in one already."""
        if self.form.compressed is not None:
            self._tier, self._block = tier, tier.write(self.form.compressed.buffer, slot=slot)

    def settle(self) -> None:
        """Wait for the write; the encoded bytes on the device go."""
        if self._block is not None:
            self._block.settle()
            self.form.travel()

    def fetch(self) -> None:
        if self._block is not None and self._tier is not None and self._arrival is None:
            self._arrival = self._tier.read(self._block)

    def ready(self) -> bool:
        return self._arrival is not None

    def back(self) -> torch.UntypedStorage:
        if self._block is None:
            return decode_storage(self.form, self._dtype).untyped_storage()
        self.fetch()
        assert self._arrival is not None
        arrival, self._arrival = self._arrival, None
        self.form.arrive(arrival.wait())
        try:
            return decode_storage(self.form, self._dtype).untyped_storage()
        finally:
            self.form.travel()


@final
class Saved:
    """The bytes of one storage at one version, for all the tensors that autograd saved of it.

    Args:
        storage: on the device.
        tensor: over it.
        slot: its number in the step that was observed, -1 for none.
        number: how many were saved before it.

    Attributes:
        storage: the bytes, None while they are away.
        away: where to get them again, None while they are nowhere else.
        last: number of the latest handle that was made of it.
    """

    __slots__ = (
        "__weakref__", "_origin", "away", "block", "device", "dtype", "last", "nbytes", "number", "slot", "storage",
        "version", "witness",
    )  # fmt: skip

    def __init__(self, storage: torch.UntypedStorage, tensor: Tensor, slot: int, number: int) -> None:
        self.storage: torch.UntypedStorage | None = storage
        self._origin = weakref.ref(storage)
        self.version, self.dtype, self.device = tensor._version, tensor.dtype, tensor.device
        self.witness = _emptied(tensor)
        self.nbytes, self.slot, self.number, self.last = storage.nbytes(), slot, number, -1
        self.away: Away | None = None
        #: A write under way, before the bytes leave.
        self.block: InTier | None = None

    def is_of(self, storage: torch.UntypedStorage, tensor: Tensor) -> bool:
        """Whether they are what a tensor over this storage reads: the storage, not one that came to the same address
        later, and unchanged, as far as one version can say that of the other."""
        same = self._origin() is storage and self.version == tensor._version
        return same and _count_together(_emptied(tensor), self.witness)

    def reads(self, storage: torch.UntypedStorage) -> bool:
        """Whether autograd would read this storage as it is now."""
        return self._origin() is storage and self.witness._version == self.version

    def flat(self) -> Tensor:
        """The bytes as a flat tensor of its dtype (uint8 where they are no multiple of it)."""
        assert self.storage is not None
        return over(self.storage, self.dtype, self.device)

    def write(self, tier: Tier) -> None:
        """Start to write the bytes to a tier; they stay on the device meanwhile."""
        assert self.storage is not None
        if self.block is None:
            self.block = InTier(tier, tier.write(self.storage, slot=self.slot))

    def settle(self) -> None:
        """Wait until they have left; the device's go with the last other reference."""
        if self.block is not None and self.storage is not None:
            self.block.block.settle()
            self.away, self.storage = self.block, None

    def leave(self, away: Away) -> None:
        """The device's bytes go."""
        self.away, self.storage = away, None

    def again(self) -> bool:
        """Let go of the device's bytes where they can be had again. Whether they could."""
        if self.away is not None:
            self.storage = None
        return self.away is not None

    def back(self) -> torch.UntypedStorage:
        """The bytes on the device, brought back if they were away."""
        if self.storage is None:
            assert self.away is not None
            self.storage = self.away.back()
        return self.storage


def over(storage: torch.UntypedStorage, dtype: torch.dtype, device: torch.device) -> Tensor:
    """A flat tensor over a storage."""
    if storage.nbytes() % dtype.itemsize:
        dtype = torch.uint8
    count = storage.nbytes() // dtype.itemsize
    return torch.empty(0, dtype=dtype, device=device).set_(storage, 0, (count,))  # type: ignore[call-overload, no-any-return]


@final
class Handle:
    """A tensor that autograd saved, as a view of bytes that may be away."""

    __slots__ = ("_dtype", "_offset", "_shape", "_stride", "number", "saved")

    def __init__(self, tensor: Tensor, saved: Saved, number: int) -> None:
        self.saved, self.number = saved, number
        self._dtype, self._shape, self._stride = tensor.dtype, tensor.shape, tensor.stride()
        self._offset = tensor.storage_offset()
        saved.last = number

    def check(self) -> None:
        """Raise if the tensor was changed in place since it was saved.

        Raises:
            MutationError: it was.
        """
        if self.saved.witness._version != self.saved.version:
            raise changed_in_place(self.saved.witness, self._shape, self.saved.version)

    def view(self) -> Tensor:
        """The tensor, over the bytes that are on the device."""
        storage = self.saved.back()
        view = torch.empty(0, dtype=self._dtype, device=self.saved.device)
        return view.set_(storage, self._offset, self._shape, self._stride)


@final
class Kept:
    """A saved tensor that is left where it is, with the version that it had.

    Attributes:
        handle: in place of the tensor, where it was left at first and may go after all.
    """

    __slots__ = ("__weakref__", "_tensor", "_version", "handle", "number")

    def __init__(self, tensor: Tensor, number: int) -> None:
        self._tensor: Tensor | None = tensor
        self.number = number
        self._version = -1 if tensor.is_inference() else tensor._version
        self.handle: Handle | None = None

    def give_up(self, make: Callable[[Tensor], Handle | None]) -> None:
        """Put a handle in the tensor's place, where one can be made."""
        tensor = self._tensor
        if tensor is None or tensor._version != self._version:
            return
        self.handle = make(tensor)
        if self.handle is not None:
            self._tensor = None

    def restore(self) -> Tensor:
        """The tensor.

        Raises:
            MutationError: it was changed in place since.
        """
        assert self._tensor is not None
        if self._version >= 0 and self._tensor._version != self._version:
            raise changed_in_place(self._tensor, self._tensor.shape, self._version)
        return self._tensor


def changed_in_place(tensor: Tensor, shape: Any, version: int) -> MutationError:
    """As autograd says it, where no hooks are."""
    return MutationError(
        "one of the variables needed for gradient computation has been modified by an inplace operation: "
        f"[{tensor.type()} {list(shape)}] is at version {tensor._version}; expected version {version} instead. Hint: "
        "enable anomaly detection to find the operation that failed to compute its gradient, with "
        "torch.autograd.set_detect_anomaly(True)."
    )
