"""Compression for eager training: what autograd saves for the backward pass, encoded where that pays.

    with outsize.codecs.saved_tensors_hooks(model) as saved:
        loss = model(x).sum()
    loss.backward()
    print(saved.ratio)

Autograd hands every tensor that it saves to a hook. A storage that is saved by several operations (the ReLU
that made it, the convolution that reads it) is encoded once, keyed on the storage and its version; views of
it are rebuilt as views. Parameters, small tensors and dense ones pass through; for those the version is
checked here, because autograd leaves that to the hooks.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, ClassVar, Self, final

import torch
from torch.multiprocessing.reductions import StorageWeakRef

from ..errors import CodecError, MutationError
from .bits import compress_bits
from .contract import Backend, Compressed
from .dense import DEVICES, has_memory
from .lossy import LOSSY, compress_lossy
from .rates import sample_density
from .relu import compress_relu

__all__ = ["Policy", "SavedTensors", "saved_tensors_hooks"]


@dataclass(frozen=True, kw_only=True)
class Policy:
    """What is encoded.

    Attributes:
        max_density: denser storages are kept: their encoding would be no smaller than 0.9 of them.
        min_bytes: smaller storages are kept: below this the call itself (60 µs) takes longer than the copy.
        indices: whether integer storages (a pooling's indices) are kept in the fewest bits.
        lossy: None, or one of "bf16", "fp8", "int8": encodes every floating-point storage with that error,
            and gradients are then no longer the plain ones. Storages with NaN or infinities stay lossless.
    """

    max_density: float = 0.86
    min_bytes: int = 1 << 16
    indices: bool = True
    lossy: str | None = None


@final
class SavedTensors:
    """A context in which saved tensors are encoded; afterwards it tells what that came to.

    Attributes:
        dense_bytes: bytes of the distinct storages that were saved, parameters and buffers left out.
        saved_bytes: the bytes that are kept instead.
        kept_bytes: the part of both that belongs to storages that were not encoded.
        encoded: number of storages encoded.
    """

    def __init__(self, model: torch.nn.Module | None, policy: Policy, backend: str | Backend | None) -> None:
        self.dense_bytes = self.saved_bytes = self.kept_bytes = self.encoded = 0
        self._model, self._policy, self._backend = model, policy, backend
        self._seen: weakref.WeakValueDictionary[tuple[int, int], _Saved] = weakref.WeakValueDictionary()
        self._own: set[int] = set()
        self._hooks: Any = None

    @property
    def ratio(self) -> float:
        """Kept bytes over the bytes that would have been kept."""
        return self.saved_bytes / self.dense_bytes if self.dense_bytes else 1.0

    def __enter__(self) -> Self:
        if self._model is not None:
            held = [*self._model.parameters(), *self._model.buffers()]
            self._own = {t.untyped_storage()._cdata for t in held}
        self._hooks = torch.autograd.graph.saved_tensors_hooks(self._pack, _unpack)
        self._hooks.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._hooks.__exit__(kind, error, trace)
        self._seen.clear()

    def _pack(self, tensor: torch.Tensor) -> _Kept | _View:
        if tensor.device.type not in DEVICES or tensor.layout is not torch.strided or tensor.is_quantized:
            return _Kept(tensor)
        if not has_memory(tensor) or tensor.is_conj() or tensor.is_neg():  # the latter are not their bytes
            return _Kept(tensor)
        storage = tensor.untyped_storage()
        if storage._cdata in self._own or storage.nbytes() == 0:
            return _Kept(tensor)
        key = (storage._cdata, tensor._version)
        saved = self._seen.get(key)
        if saved is None or saved.expired():
            saved = self._seen[key] = self._encode(tensor)
        if saved.encoding is None:
            return _Kept(tensor, saved)
        return _View(saved, tensor.dtype, tensor.shape, tensor.stride(), int(tensor.storage_offset()))

    def _encode(self, tensor: torch.Tensor) -> _Saved:
        """Encodes the whole storage under `tensor`, or decides to keep it."""
        storage, policy = tensor.untyped_storage(), self._policy
        size, count = storage.nbytes(), storage.nbytes() // tensor.element_size()
        encoding: Compressed | None = None
        if size >= policy.min_bytes and count * tensor.element_size() == size:
            whole = tensor.detach().as_strided((count,), (1,), 0)
            if tensor.dtype in (torch.int32, torch.int64):
                encoding = self._integers(whole)
            elif policy.lossy is not None and tensor.is_floating_point():
                encoding = self._lossy(whole, policy.lossy)
            elif tensor.element_size() <= 8 and sample_density(whole) <= policy.max_density:
                encoding = compress_relu(whole, self._backend)
            if encoding is not None and encoding.nbytes >= size:
                encoding = None
        self.dense_bytes += size
        self.saved_bytes += size if encoding is None else encoding.nbytes
        self.kept_bytes += size if encoding is None else 0
        self.encoded += encoding is not None
        return _Saved(StorageWeakRef(storage), encoding)

    def _lossy(self, whole: torch.Tensor, codec: str) -> Compressed:
        try:
            return compress_lossy(codec)(whole, self._backend)
        except CodecError:  # not finite, or a type that the codec cannot make smaller
            return compress_relu(whole, self._backend)

    def _integers(self, whole: torch.Tensor) -> Compressed | None:
        if not self._policy.indices:
            return None
        try:
            return compress_bits(whole, self._backend)
        except CodecError:  # a range of more than 32 bits: not indices
            return None


def saved_tensors_hooks(
    model: torch.nn.Module | None = None,
    *,
    policy: Policy | None = None,
    backend: str | Backend | None = None,
) -> SavedTensors:
    """Encodes what autograd saves inside the `with` block. Lossless: gradients are bitwise the plain ones.

    Args:
        model: its parameters and buffers are never encoded, since they stay in memory anyway.
        policy: what is encoded; see `Policy`.
        backend: as for `compress`.

    Returns:
        a context manager; its `ratio` is kept over dense bytes so far.

    Raises:
        CodecError: the policy names a lossy codec that does not exist.
    """
    if policy is not None and policy.lossy not in (None, *LOSSY):
        raise CodecError(
            f"there is no lossy codec {policy.lossy!r}: choose one of {', '.join(map(repr, LOSSY))}"
        )
    return SavedTensors(model, policy or Policy(), backend)


@final
class _Saved:
    """One storage as it was saved: its encoding, or the note that it is kept."""

    #: The one whose dense form is held at the moment. The operations that saved a storage mostly need it back
    #: one after the other; holding the last decoded one serves them with a single decode, and costs one
    #: activation.
    _last: ClassVar[weakref.ref[_Saved] | None] = None

    def __init__(self, origin: StorageWeakRef, encoding: Compressed | None) -> None:
        self.origin, self.encoding = origin, encoding
        self._dense: torch.Tensor | None = None

    def expired(self) -> bool:
        """Whether the storage is gone, so that its address may be another one's now."""
        return bool(self.origin.expired())

    def dense(self) -> torch.Tensor:
        """The decoded storage. It goes with this object, that is, with the last operation that saved it."""
        if self._dense is None:
            last = _Saved._last() if _Saved._last is not None else None
            if last is not None:
                last._dense = None
            assert self.encoding is not None
            self._dense = self.encoding.decompress()
            _Saved._last = weakref.ref(self)
        return self._dense


@final
@dataclass(frozen=True)
class _View:
    """A saved tensor, as a view of an encoded storage."""

    saved: _Saved
    dtype: torch.dtype
    shape: torch.Size
    stride: tuple[int, ...]
    offset: int

    def restore(self) -> torch.Tensor:
        return self.saved.dense().view(self.dtype).as_strided(self.shape, self.stride, self.offset)


@final
@dataclass(frozen=True)
class _Kept:
    """A saved tensor that is not encoded, with the version that it had."""

    tensor: torch.Tensor
    saved: _Saved | None = None
    version: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "version", self.tensor._version)

    def restore(self) -> torch.Tensor:
        if self.tensor._version != self.version:
            raise MutationError(
                f"a tensor of shape {tuple(self.tensor.shape)} needed for the gradient was changed in place "
                f"after it was saved (version {self.version} then, {self.tensor._version} now): clone it "
                "before changing it"
            )
        return self.tensor


def _unpack(packed: _Kept | _View) -> torch.Tensor:
    return packed.restore()
