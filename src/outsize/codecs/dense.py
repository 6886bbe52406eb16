"""Dense tensors as flat arrays of bit patterns, and back with the same shape, strides and bits.

Codecs see a tensor as the run of integers that lies in memory, whatever the order of its dimensions: a
channels-last activation is encoded in its own order and decoded into its own strides. A tensor with holes or
overlaps (a slice, an expanded view) is copied to contiguous memory first, and comes back contiguous.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from ..errors import CodecError

__all__ = [
    "Spec",
    "bits_of",
    "check_buffer",
    "copy_bits",
    "flatten",
    "has_memory",
    "refuse_shared",
    "whole_words",
    "written",
]

_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_QUANTIZED = (torch.quint8, torch.qint8, torch.qint32, torch.quint4x2, torch.quint2x4)
#: Device types on which a back end exists.
DEVICES = ("cpu", "cuda")


@dataclass(frozen=True, kw_only=True)
class Spec:
    """How to rebuild a dense tensor: its shape, strides (elements), dtype and device."""

    shape: torch.Size
    stride: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device

    @property
    def numel(self) -> int:
        return math.prod(self.shape)

    def empty(self) -> torch.Tensor:
        return torch.empty_strided(self.shape, self.stride, dtype=self.dtype, device=self.device)

    def check(self, out: torch.Tensor) -> None:
        """Raises CodecError unless `out` can receive this tensor."""
        _refuse(out, "decompress(out=…)")
        if out.stride() != self.stride and _overlaps(out):
            raise CodecError(
                f"decompress(out=…): elements of out share memory, its strides are {out.stride()}"
            )
        found = (tuple(out.shape), out.dtype, out.device)
        wanted = (tuple(self.shape), self.dtype, self.device)
        for name, have, want in zip(("shape", "dtype", "device"), found, wanted, strict=True):
            if have != want:
                raise CodecError(f"decompress(out=…): out has {name} {have}, the encoded tensor {want}")


def bits_of(flat: torch.Tensor) -> torch.Tensor:
    """A view of a tensor's elements as integers of the same width."""
    return flat.view(_INTEGERS[flat.element_size()])


def address_range(tensor: torch.Tensor) -> range:
    """The addresses that a tensor's elements may occupy."""
    if not tensor.numel():
        return range(0)
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return range(tensor.data_ptr(), tensor.data_ptr() + (last + 1) * tensor.element_size())


def refuse_shared(a: torch.Tensor, b: torch.Tensor, what: str) -> None:
    """Raises CodecError if two tensors may have an address in common: one would be overwritten while read."""
    one, other = address_range(a), address_range(b)
    if a.device == b.device and one and other and one.start < other.stop and other.start < one.stop:
        raise CodecError(f"{what} share memory: give one of them its own")


def copy_bits(out: torch.Tensor, dense: torch.Tensor) -> torch.Tensor:
    """`out`, with the bits of `dense`. As integers, since torch copies no elements narrower than a byte."""
    bits_of(out.detach()).copy_(bits_of(dense))
    return out


def check_buffer(buffer: torch.Tensor) -> None:
    """Raises CodecError unless it is flat uint8 in memory."""
    _refuse(buffer, "a buffer")
    if buffer.dtype is not torch.uint8 or buffer.dim() != 1:
        raise CodecError(
            f"a buffer is flat contiguous uint8, this one is {buffer.dtype} of shape {tuple(buffer.shape)}"
        )


def whole_words(buffer: torch.Tensor) -> torch.Tensor:
    """`buffer` in whole 32-bit words, as digests take it; a copy if zero bytes must be added."""
    return torch.nn.functional.pad(buffer, (0, -buffer.numel() % 4)) if buffer.numel() % 4 else buffer


def written(out: torch.Tensor | None) -> None:
    """Tells autograd that a kernel wrote to a tensor behind its back, as any in-place operation does."""
    if out is not None and not out.is_inference():
        torch.autograd.graph.increment_version(out)


def flatten(tensor: torch.Tensor, what: str) -> tuple[torch.Tensor, Spec]:
    """The tensor's memory as a one-dimensional integer view (a copy only if it has holes or overlaps).

    Raises:
        CodecError: not a dense tensor of 1, 2, 4 or 8-byte elements on a supported device.
    """
    _refuse(tensor, what)
    tensor = tensor.detach().as_subclass(torch.Tensor).resolve_conj().resolve_neg()
    if not _fills_its_memory(tensor):
        tensor = tensor.contiguous()
    spec = Spec(shape=tensor.shape, stride=tensor.stride(), dtype=tensor.dtype, device=tensor.device)
    return bits_of(tensor.as_strided((tensor.numel(),), (1,))), spec


def _refuse(tensor: torch.Tensor, what: str) -> None:
    if not isinstance(tensor, torch.Tensor):
        raise CodecError(f"{what} takes a tensor, not {type(tensor).__name__}")
    if tensor.layout is not torch.strided or tensor.is_nested:
        raise CodecError(f"{what} takes dense tensors, this one is {tensor.layout}: call .to_dense() first")
    if tensor.is_quantized or tensor.dtype in _QUANTIZED:
        raise CodecError(f"{what} takes plain tensors, this one is quantized: pass .int_repr()")
    if tensor.device.type not in DEVICES:
        raise CodecError(f"{what}: no back end for device {tensor.device} (there are {', '.join(DEVICES)})")
    if tensor.element_size() not in _INTEGERS:
        raise CodecError(
            f"{what}: {tensor.dtype} elements have {tensor.element_size()} bytes, codecs take 1, 2, 4 or 8: "
            "pass torch.view_as_real(tensor)"
        )
    if not has_memory(tensor):
        raise CodecError(
            f"{what}: the {type(tensor).__name__} has no memory to read: it is fake, wrapped or freed"
        )


def has_memory(tensor: torch.Tensor) -> bool:
    """Whether a tensor's elements lie at addresses of its own: not so for fake tensors, for those that a
    function transform wraps, and for a storage that was freed."""
    try:
        storage = tensor.untyped_storage()
        if storage.device.type != tensor.device.type:  # a fake tensor's storage says "meta"
            return False
        return not tensor.numel() or (storage.data_ptr() != 0 and storage.nbytes() >= tensor.element_size())
    except (RuntimeError, NotImplementedError):
        return False


def _overlaps(tensor: torch.Tensor) -> bool:
    """Whether two elements may lie at one address: a stride shorter than what lies within it."""
    reach = 0
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size > 1 and stride <= reach:
            return tensor.numel() > 0
        reach += stride * (size - 1)
    return False


def _fills_its_memory(tensor: torch.Tensor) -> bool:
    """Whether the elements occupy numel() consecutive places, in any order of the dimensions."""
    expected = 1
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size == 1:
            continue
        if stride != expected:
            return tensor.numel() == 0
        expected *= size
    return True
