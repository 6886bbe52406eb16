"""Comparisons that raise, and an oracle that shares no code with any back end."""

from __future__ import annotations

import numpy as np
import torch

FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
DTYPES = (*FLOATS, torch.int8)
VIEWS = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}


def same_bits(a: torch.Tensor, b: torch.Tensor) -> None:
    """Raises unless two tensors have one dtype, shape and content, NaN payloads and signs of zero
    included."""
    assert a.dtype == b.dtype
    assert a.shape == b.shape
    assert raw(a).tobytes() == raw(b).tobytes()


def raw(tensor: torch.Tensor) -> np.ndarray:
    """Bit patterns, in the order of the elements."""
    flat = tensor.detach().contiguous().flatten()
    return flat.view(torch.uint8).cpu().numpy().view(VIEWS[flat.element_size()])


def oracle(tensor: torch.Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Counts per 1024 elements, bitmap bytes and values of a contiguous tensor, by numpy."""
    bits = raw(tensor)
    nonzero = bits != 0
    counts = [int(nonzero[i : i + 1024].sum()) for i in range(0, len(bits), 1024)]
    return np.array(counts, np.int32), np.packbits(nonzero, bitorder="little"), bits[nonzero]


def activation(shape: tuple[int, ...] | int, dtype: torch.dtype, density: float = 0.5) -> torch.Tensor:
    """A tensor with about that share of nonzeros."""
    values = torch.randn(shape).mul(9).abs().add(1).to(dtype)
    return values.masked_fill(torch.rand(values.shape) >= density, 0)


def special(dtype: torch.dtype) -> torch.Tensor:
    """−0.0, infinities, denormals, both signs of NaN with several payloads, scattered among zeros."""
    size = dtype.itemsize
    view = {2: torch.int16, 4: torch.int32, 8: torch.int64}[size]
    high = {torch.float32: 0x7F80_0000, torch.float16: 0x7C00, torch.bfloat16: 0x7F80}
    inf = high.get(dtype, 0x7FF0_0000_0000_0000)
    sign = -(1 << (8 * size - 1))
    patterns = [
        sign,
        inf,
        inf + sign,
        1,
        1 + sign,
        inf + 1,
        inf + 1 + sign,
        inf + 5,
        sign + inf - 1,
        -1,
        inf - 1,
    ]
    bits = torch.zeros(3000, dtype=view)
    bits[torch.arange(len(patterns)) * 211 + 3] = torch.tensor(patterns, dtype=view)
    bits[-1] = sign
    return bits.view(dtype)
