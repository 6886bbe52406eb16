"""Bytes that the Triton programs move, counted access by access in the interpreter."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers import activation

import outsize.codecs as codecs
from outsize.codecs.kernels.backend import Triton, _interpreted

pytestmark = pytest.mark.skipif(
    not _interpreted(), reason="needs TRITON_INTERPRET=1: test_kernels.py starts that run"
)


@pytest.fixture
def moved(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list that each access to memory adds its bytes to: the lanes that its mask lets through."""
    from triton.runtime.interpreter import InterpreterBuilder

    count: list[int] = []

    def note(name: str, value: object, mask: object) -> None:
        monkeypatch.setattr(InterpreterBuilder, name, counted(getattr(InterpreterBuilder, name), value, mask))

    def counted(plain: object, value: object, mask: object) -> object:
        def access(self: object, *args: object, **options: object) -> object:
            result = plain(self, *args, **options)
            size = np.asarray((result if value is None else args[value]).data).itemsize
            lanes = np.asarray((args[mask]).data if mask is not None else np.ones_like(args[0].data, bool))
            count.append(int(lanes.sum()) * size)
            return result

        return access

    note("create_masked_load", None, 1)
    note("create_masked_store", 1, 2)
    note("create_atomic_rmw", 2, 3)
    return count


@pytest.mark.parametrize("density", [0.25, 0.5, 0.75])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_triton_traffic_is_near_the_minimum(moved: list[int], dtype: torch.dtype, density: float) -> None:
    """Read once, write once: dense in and encoded out, or the other way round."""
    x = activation(16 * 4096, dtype, density)
    size = codecs.compress(x, backend=Triton()).nbytes
    buffer = torch.empty(2 * x.numel() * dtype.itemsize, dtype=torch.uint8)
    minimum = x.numel() * dtype.itemsize + size
    moved.clear()
    c = codecs.encode_into(x, buffer, backend=Triton())
    assert minimum < sum(moved) <= 1.15 * minimum
    moved.clear()
    c.decompress(verify=True)
    assert minimum < sum(moved) <= 1.15 * minimum
    moved.clear()
    codecs.relu_encode(x, out=x, buffer=buffer, backend=Triton())
    assert minimum < sum(moved) - x.numel() * dtype.itemsize <= 1.15 * minimum
