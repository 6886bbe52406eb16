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

__all__ = ["Spec", "bits_of", "flatten"]

_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
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
        found = (tuple(out.shape), out.dtype, out.device)
        wanted = (tuple(self.shape), self.dtype, self.device)
        for name, have, want in zip(("shape", "dtype", "device"), found, wanted, strict=True):
            if have != want:
                raise CodecError(f"decompress(out=…): out has {name} {have}, the encoded tensor {want}")


def bits_of(flat: torch.Tensor) -> torch.Tensor:
    """A view of a tensor's elements as integers of the same width."""
    return flat.view(_INTEGERS[flat.element_size()])


def flatten(tensor: torch.Tensor, what: str) -> tuple[torch.Tensor, Spec]:
    """The tensor's memory as a one-dimensional integer view (a copy only if it has holes or overlaps).

    Raises:
        CodecError: not a dense tensor of 1, 2, 4 or 8-byte elements on a supported device.
    """
    _refuse(tensor, what)
    tensor = tensor.detach().resolve_conj().resolve_neg()
    if not _fills_its_memory(tensor):
        tensor = tensor.contiguous()
    spec = Spec(shape=tensor.shape, stride=tensor.stride(), dtype=tensor.dtype, device=tensor.device)
    return bits_of(tensor.as_strided((tensor.numel(),), (1,))), spec


def _refuse(tensor: torch.Tensor, what: str) -> None:
    if not isinstance(tensor, torch.Tensor):
        raise CodecError(f"{what} takes a tensor, not {type(tensor).__name__}")
    if tensor.layout is not torch.strided or tensor.is_nested:
        raise CodecError(f"{what} takes dense tensors, this one is {tensor.layout}: call .to_dense() first")
    if tensor.is_quantized:
        raise CodecError(f"{what} takes plain tensors, this one is quantized: pass .int_repr()")
    if tensor.device.type not in DEVICES:
        raise CodecError(f"{what}: no back end for device {tensor.device} (there are {', '.join(DEVICES)})")
    if tensor.element_size() not in _INTEGERS:
        raise CodecError(
            f"{what}: {tensor.dtype} elements have {tensor.element_size()} bytes, codecs take 1, 2, 4 or 8: "
            "pass torch.view_as_real(tensor)"
        )


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
