"""Tensors that look ordinary and are not, and memory that is shared: an error, never a wrong tensor."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

import outsize.codecs as codecs

from .helpers import activation, same_bits

BACKENDS = [b for b in ("reference", "native") if b in codecs.backends()]
FULL = ("relu", "mask", "bits", "planes", "bf16", "fp8", "int8")


def freed() -> torch.Tensor:
    x = torch.randn(100)
    x.untyped_storage().resize_(0)
    return x


def fake() -> torch.Tensor:
    with FakeTensorMode():
        return torch.randn(100)


def seen_by_vmap() -> torch.Tensor:
    seen = []

    def keep(row: torch.Tensor) -> torch.Tensor:
        seen.append(row)
        return row

    torch.vmap(keep)(torch.randn(3, 4))
    return seen[0]


UNREADABLE = {
    "freed": freed,
    "fake": fake,
    "vmap": seen_by_vmap,
    "meta": lambda: torch.empty(5, device="meta"),
    "zero": lambda: torch._efficientzerotensor(5),
    "quantized by view": lambda: torch.zeros(9, dtype=torch.uint8).view(torch.quint8),
    "none": lambda: None,
    "array": lambda: np.zeros(3, np.float32),
    "number": lambda: 1.0,
}


@pytest.mark.parametrize("codec", FULL)
@pytest.mark.parametrize("kind", UNREADABLE)
def test_what_has_no_memory_is_refused(kind: str, codec: str) -> None:
    with pytest.raises(codecs.CodecError):
        codecs.compress(UNREADABLE[kind](), codec)


@pytest.mark.parametrize("kind", ["freed", "fake", "meta", "array", "number"])
def test_a_buffer_without_memory_is_refused(kind: str) -> None:
    c = codecs.compress(activation(100, torch.float32))
    with pytest.raises(codecs.CodecError):
        c.with_buffer(UNREADABLE[kind]())
    with pytest.raises(codecs.CodecError):
        c.decompress(out=UNREADABLE[kind]())
    with pytest.raises(codecs.CodecError):
        codecs.encode_into(torch.ones(4), UNREADABLE[kind]())


@pytest.mark.parametrize("backend", BACKENDS)
def test_one_boolean_value_has_no_digits(backend: str) -> None:
    for value in (True, False):
        x = torch.full((77,), value)
        c = codecs.compress(x, "bits", backend=backend)
        assert c.nbytes == 0
        same_bits(c.decompress(), x)


@pytest.mark.parametrize("dtype", [torch.uint4, torch.int7, torch.uint16, torch.uint64, torch.float8_e5m2])
@pytest.mark.parametrize("codec", ["relu", "planes"])
def test_element_types_that_torch_cannot_compute_with(codec: str, dtype: torch.dtype) -> None:
    x = torch.randint(0, 256, (999 * dtype.itemsize,), dtype=torch.uint8).view(dtype)
    c = codecs.compress(x, codec)
    out = torch.empty(2 * 999 * dtype.itemsize, dtype=torch.uint8).view(dtype)[::2]
    assert torch.equal(c.decompress().view(torch.uint8), x.view(torch.uint8))
    wide = {1: torch.uint8, 2: torch.int16, 8: torch.int64}[dtype.itemsize]
    assert torch.equal(c.decompress(out=out).view(wide), x.view(wide))


def test_memory_that_is_read_and_written_at_once_is_refused() -> None:
    memory = torch.zeros(80_000, dtype=torch.uint8)
    x = memory[4096:12_288].view(torch.float32)
    with pytest.raises(codecs.CodecError, match="share memory"):
        codecs.encode_into(x, memory)
    c = codecs.compress(torch.zeros(2048, dtype=torch.uint8))
    with pytest.raises(codecs.CodecError, match="share memory"):
        codecs.compress(torch.ones(300, dtype=torch.uint8)).with_buffer(memory[:364]).decompress(
            out=memory[:300]
        )
    with pytest.raises(codecs.CodecError, match="share memory"):
        c.decompress(out=torch.zeros(1, dtype=torch.uint8).expand(2048))
    with pytest.raises(codecs.CodecError, match="share memory"):
        codecs.relu_encode(memory[:8192].view(torch.float32), out=memory[4:8196].view(torch.float32))


def test_writing_in_place_is_seen_by_autograd() -> None:
    weight = torch.ones(2048, requires_grad=True)
    held = torch.randn(2048)
    product = weight * held
    codecs.relu_encode(held, out=held)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        product.sum().backward()
    product = weight * held
    codecs.compress(torch.zeros(2048)).decompress(out=held)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        product.sum().backward()


def test_a_damaged_bitmap_does_not_reach_a_gradient() -> None:
    c = codecs.compress(activation(5000, torch.float32))
    damaged = c.buffer.clone()
    bitmap = damaged[c.layout.table_bytes : c.layout.head_bytes]
    bitmap[:2] = bitmap[:2].flip(0) ^ 1  # one bit more, or one less, and others moved
    with pytest.raises(codecs.CodecError):
        codecs.mask_backward(torch.ones(5000), c.with_buffer(damaged))


def test_names_that_do_not_exist() -> None:
    x = torch.ones(3)
    for codec in ("zip", None, ["relu"], 3):
        with pytest.raises(codecs.CodecError, match="there is no codec"):
            codecs.compress(x, codec)
    for backend in ("gpu", ["native"], 3):
        with pytest.raises(codecs.CodecError, match="there is no back end"):
            codecs.compress(x, backend=backend)
