"""Bytes that the Triton programs move, counted access by access in the interpreter."""

from __future__ import annotations

import pytest
import torch
from helpers import activation

import outsize.codecs as codecs
from outsize.codecs.kernels.backend import Triton, _interpreted
from outsize.codecs.kernels.traffic import count_traffic

pytestmark = pytest.mark.skipif(
    not _interpreted(), reason="needs TRITON_INTERPRET=1: test_kernels.py starts that run"
)


@pytest.mark.parametrize("density", [0.25, 0.5, 0.75])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_triton_traffic_is_near_the_minimum(dtype: torch.dtype, density: float) -> None:
    """Read once, write once: dense in and encoded out, or the other way round."""
    x = activation(16 * 4096, dtype, density)
    size = codecs.compress(x, backend=Triton()).nbytes
    buffer = torch.empty(2 * x.numel() * dtype.itemsize, dtype=torch.uint8)
    minimum = x.numel() * dtype.itemsize + size
    with count_traffic() as encoding:
        c = codecs.encode_into(x, buffer, backend=Triton())
    with count_traffic() as decoding:
        c.decompress(verify=True)
    with count_traffic() as fused:
        codecs.relu_encode(x, out=x, buffer=buffer, backend=Triton())
    assert minimum < sum(encoding) <= 1.15 * minimum
    assert minimum < sum(decoding) <= 1.15 * minimum
    assert minimum < sum(fused) - x.numel() * dtype.itemsize <= 1.15 * minimum
