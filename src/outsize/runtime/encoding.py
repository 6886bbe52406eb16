"""Encoded storages at run time: what is kept in place of the bytes, and what happens when they do not fit.

A plan reserves bytes for the encoded form from the densities that the latest steps showed. When a tensor turns out
denser, its bytes go to a tier instead of over the budget, and the frame counts it for the report.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import final

import torch
from torch import Tensor

from ..codecs import Compressed, LossyCompressed, MaskCompressed, ReluCompressed, compress, encode_into
from ..errors import CodecError
from .tiers import Block, Tier

#: Elements read to estimate a density. The error of a share p from n samples is sqrt(p (1 - p) / n) < 1 %.
SAMPLES = 4096


@final
@dataclass(kw_only=True)
class Form:
    """One storage's encoded form.

    Attributes:
        compressed: the encoding. While its bytes are in a tier it refers to an empty stand-in.
        dense: where the plain bytes went when they did not fit.
        density: share of nonzero elements, where encoding counted them.
    """

    compressed: Compressed | None
    dense: Block | None = None
    tier: Tier | None = None
    density: float | None = None

    def travel(self) -> None:
        """Let go of the bytes on the device: they are in a tier now."""
        if isinstance(self.compressed, (ReluCompressed, LossyCompressed)):
            self.compressed = replace(self.compressed, storage=self.compressed.storage.new_empty(0))

    def arrive(self, buffer: Tensor) -> None:
        """The bytes are back."""
        if self.compressed is not None:
            self.compressed = self.compressed.with_buffer(buffer)


def flat_storage(tensor: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """The whole storage behind `tensor`, flat, in its dtype."""
    storage = tensor.untyped_storage()
    count = storage.nbytes() // (dtype or tensor.dtype).itemsize
    flat = torch.empty(0, dtype=dtype or tensor.dtype, device=tensor.device)
    return flat.set_(storage, 0, (count,))  # type: ignore[call-overload, no-any-return]


def encode_storage(tensor: Tensor, codec: str, reserved: int, overflow: Tier | None) -> Form:
    """Encode into at most `reserved` bytes, or hand the plain bytes to `overflow`.

    Raises:
        CodecError: they do not fit, and there is no tier to take them.
    """
    flat = flat_storage(tensor)
    if codec != "relu":
        return Form(compressed=compress(flat, codec))
    buffer = torch.empty(reserved, dtype=torch.uint8, device=tensor.device)
    compressed = encode_into(flat, buffer, overflow="flag")
    if not compressed.overflowed:
        return Form(compressed=compressed, density=compressed.density)
    if overflow is None:
        raise CodecError(
            f"a tensor is denser than planned ({compressed.density:.3f}: {compressed.nbytes} bytes, "
            f"{reserved} reserved) and there is no tier to take it: allow the action 'swap', or give disk="
        )
    block = overflow.write(tensor.untyped_storage())
    block.settle()
    return Form(compressed=None, dense=block, tier=overflow, density=compressed.density)


def decode_storage(form: Form, dtype: torch.dtype) -> Tensor:
    """The plain storage, flat."""
    if form.compressed is not None:
        return form.compressed.decompress(verify=isinstance(form.compressed, MaskCompressed))
    assert form.tier is not None
    assert form.dense is not None
    return form.tier.read(form.dense).wait().view(dtype)


def sample_density(tensor: Tensor) -> float:
    """Share of nonzero elements, from a strided sample of the storage."""
    flat = flat_storage(tensor)
    step = max(1, flat.numel() // SAMPLES) | 1
    sample = flat[::step]
    return float(torch.count_nonzero(sample)) / max(1, sample.numel())
