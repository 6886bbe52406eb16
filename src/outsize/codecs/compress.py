"""The codecs by name."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ..errors import CodecError
from .bits import compress_bits
from .contract import Backend, Compressed
from .lossy import LOSSY, compress_lossy
from .mask import compress_mask
from .planes import compress_planes
from .relu import compress_relu

__all__ = ["CODECS", "compress"]

CODECS: dict[str, Callable[[torch.Tensor, str | Backend | None], Compressed]] = {
    "relu": compress_relu,
    "mask": compress_mask,
    "bits": compress_bits,
    "planes": compress_planes,
    **{name: compress_lossy(name) for name in LOSSY},
}


def compress(tensor: torch.Tensor, codec: str = "relu", backend: str | Backend | None = None) -> Compressed:
    """Encodes a tensor.

    Args:
        tensor: dense, of 1, 2, 4 or 8-byte elements, any shape and strides, on the CPU or a GPU.
        codec: a key of `CODECS`.
        backend: `"reference"`, `"native"`, `"triton"`, or None for the fastest on the tensor's device.

    Returns:
        the encoding; its `nbytes` says what is kept, `decompress()` gives the tensor back, bit for bit unless the
        codec is lossy.

    Raises:
        CodecError: unknown codec or back end, or a tensor that it does not take.
    """
    if not isinstance(codec, str) or codec not in CODECS:
        raise CodecError(f"there is no codec {codec!r}: choose one of {', '.join(map(repr, CODECS))}")
    return CODECS[codec](tensor, backend)
