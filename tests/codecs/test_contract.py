"""One contract, every back end: the layout to the byte, round trips to the bit, refusals by name."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import outsize.codecs as codecs
from outsize.codecs.contract import Backend
from outsize.codecs.layout import Layout
from outsize.codecs.reference import Reference
from outsize.errors import CodecError

from .helpers import DTYPES, FLOATS, activation, oracle, raw, same_bits, special

SIZES = (0, 1, 31, 32, 33, 64, 1023, 1024, 1025, 4096, 5000)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("numel", SIZES)
def test_regions_are_those_of_the_claims(backend: Backend, dtype: torch.dtype, numel: int) -> None:
    x = activation(numel, dtype)
    c = codecs.compress(x, backend=backend)
    table, bitmap, values = oracle(x)
    assert isinstance(c, codecs.ReluCompressed)
    np.testing.assert_array_equal(c.table.cpu().numpy(), table)
    np.testing.assert_array_equal(c.bitmap.cpu().numpy()[: len(bitmap)], bitmap)
    assert not c.bitmap.cpu().numpy()[len(bitmap) :].any()
    np.testing.assert_array_equal(raw(c.values), values)
    pad = lambda n: (n + 15) // 16 * 16  # noqa: E731
    assert c.nbytes == pad(4 * -(-numel // 1024)) + pad(-(-numel // 8)) + dtype.itemsize * len(values)
    assert c.buffer.untyped_storage().nbytes() == c.nbytes
    starts = [region.data_ptr() - c.buffer.data_ptr() for region in (c.table, c.bitmap)]
    assert starts == [0, pad(4 * len(table))]
    same_bits(c.decompress(), x)


@pytest.mark.parametrize("density", [0.0, 0.01, 0.3, 0.9, 1.0])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_density(backend: Backend, dtype: torch.dtype, density: float) -> None:
    x = activation((3, 37, 41), dtype, density)
    c = codecs.compress(x, backend=backend)
    assert c.nnz == int((x != 0).sum())
    same_bits(c.decompress(), x)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_special_bit_patterns_survive(backend: Backend, dtype: torch.dtype) -> None:
    x = special(dtype)
    c = codecs.compress(x, backend=backend)
    assert c.nnz == 12
    same_bits(c.decompress(), x)


@pytest.mark.parametrize("codec", ["relu", "mask"])
def test_back_ends_agree_byte_for_byte(backend: Backend, codec: str) -> None:
    x = activation(5001, torch.float32) - activation(5001, torch.float32)
    a, b = codecs.compress(x, codec, Reference()), codecs.compress(x, codec, backend)
    same_bits(a.buffer, b.buffer)
    assert a.encoded.digest == b.encoded.digest
    same_bits(a.with_buffer(b.buffer.clone()).decompress(), b.with_buffer(a.buffer.clone()).decompress())


STRIDED = {
    "transposed": lambda x: x.transpose(0, 2),
    "channels last": lambda x: x[None].contiguous(memory_format=torch.channels_last),
    "sliced": lambda x: x[:, ::2, 1:],
    "expanded": lambda x: x[:1].expand(4, -1, -1),
    "offset by one": lambda x: x.flatten()[1:],
    "scalar": lambda x: x[0, 0, 0],
    "empty": lambda x: x[:, :0],
}


@pytest.mark.parametrize("name", STRIDED)
@pytest.mark.parametrize("codec", ["relu", "mask"])
def test_any_strides(backend: Backend, codec: str, name: str) -> None:
    x = STRIDED[name](activation((5, 6, 70), torch.float32))
    expected = x if codec == "relu" else (x > 0).float()
    c = codecs.compress(x, codec, backend)
    y = c.decompress()
    same_bits(y, expected)
    if name in ("transposed", "channels last"):
        assert y.stride() == x.stride()
    for out in (torch.full_like(x, 7), torch.full((*x.shape, 2), 7.0)[..., 0]):
        assert c.decompress(out=out) is out
        same_bits(out, expected)


def test_input_is_left_alone_and_needs_no_gradient(backend: Backend) -> None:
    x = activation(2000, torch.float32).requires_grad_()
    before = x.detach().clone()
    y = codecs.compress(x, backend=backend).decompress()
    same_bits(x, before)
    assert not y.requires_grad


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("numel", [0, 5, 1024, 6001])
def test_relu_encode_is_relu_then_encode(backend: Backend, dtype: torch.dtype, numel: int) -> None:
    x = torch.randn(numel, dtype=dtype)
    x[: numel // 100] = -0.0
    expected = torch.relu(x)
    y, c = codecs.relu_encode(x, backend=backend)
    same_bits(y, expected)
    same_bits(c.buffer, codecs.compress(expected, backend=Reference()).buffer)
    same_bits(c.decompress(), expected)
    inplace, d = codecs.relu_encode(x, out=x, backend=backend)
    assert inplace is x
    same_bits(x, expected)
    same_bits(c.buffer, d.buffer)


def test_relu_encode_keeps_nan(backend: Backend) -> None:
    x = special(torch.float32)
    y, _ = codecs.relu_encode(x, backend=backend)
    torch.testing.assert_close(y, torch.relu(x), rtol=0, atol=0, equal_nan=True)
    assert y.isnan().sum() == 4


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_mask_gives_the_same_gradient(backend: Backend, dtype: torch.dtype) -> None:
    x = special(dtype) if dtype in FLOATS else activation(3000, dtype)
    if dtype in FLOATS:
        x = torch.cat([x, torch.randn(2500, dtype=dtype)])
    grad = torch.randn(x.shape).to(dtype if dtype in FLOATS else torch.float32)
    expected = torch.where(x <= 0, torch.zeros((), dtype=grad.dtype), grad)
    if dtype in FLOATS:
        same_bits(torch.ops.aten.threshold_backward(grad, x, 0), expected)
    mask, whole = codecs.compress(x, "mask", backend), codecs.compress(x, "relu", backend)
    assert mask.nbytes == (x.numel() + 127) // 128 * 16
    same_bits(codecs.mask_backward(grad, mask), expected)
    same_bits(codecs.mask_backward(grad, whole), expected)
    if dtype in FLOATS:
        same_bits(torch.ops.aten.threshold_backward(grad, mask.decompress(), 0), expected)
    same_bits(codecs.mask_backward(grad, mask, out=grad), expected)


def test_boolean_masks_come_back(backend: Backend) -> None:
    x = torch.rand(3, 1001) < 0.9
    c = codecs.compress(x, "mask", backend)
    same_bits(c.decompress(), x)
    assert c.nbytes <= x.numel() / 8 + 16


@pytest.mark.parametrize("dtype", [torch.float32, torch.int8], ids=str)
def test_planned_buffer(backend: Backend, dtype: torch.dtype) -> None:
    x = activation(5000, dtype)
    exact = codecs.compress(x, backend=Reference())
    layout = Layout(numel=x.numel(), itemsize=dtype.itemsize)
    buffer = torch.full((layout.planned_bytes(exact.density) + 3,), 255, dtype=torch.uint8)
    c = codecs.encode_into(x, buffer, backend=backend)
    assert c.buffer.data_ptr() == buffer.data_ptr()
    assert not c.overflowed
    same_bits(c.buffer, exact.buffer)
    assert bool((buffer[-3:] == 255).all())
    same_bits(c.decompress(), x)


def test_overflow_is_said_and_stays_inside(backend: Backend) -> None:
    x = activation(50_000 if backend.name != "triton" else 9000, torch.float32)
    exact = codecs.compress(x, backend=Reference())
    room = exact.layout.planned_bytes(0.25)
    memory = torch.full((room + 4096,), 255, dtype=torch.uint8)
    with pytest.raises(
        codecs.CodecError, match=rf"{exact.nbytes} bytes.*planned has {room}.*density of 0\.[45]"
    ):
        codecs.encode_into(x, memory[:room], backend=backend)
    c = codecs.encode_into(x, memory[:room], backend=backend, overflow="flag")
    assert bool((memory[room:] == 255).all())
    assert c.overflowed
    assert c.nnz == exact.nnz
    same_bits(c.table, exact.table)
    same_bits(c.bitmap, exact.bitmap)
    for use in (c.decompress, lambda: c.buffer, lambda: c.values):
        with pytest.raises(codecs.CodecError, match="keep the tensor"):
            use()
    y, c = codecs.relu_encode(0 - x, buffer=memory[:room], backend=backend, overflow="flag")
    assert not c.overflowed
    same_bits(y, torch.relu(0 - x))


REGIONS = {"table": (0, 8), "bitmap": (16, 500), "values": (700, None)}


@pytest.mark.parametrize("region", REGIONS)
def test_any_flipped_bit_is_found(backend: Backend, region: str) -> None:
    x = activation(4001, torch.float16)
    c = codecs.compress(x, backend=backend)
    low, high = REGIONS[region]
    high = high or c.nbytes
    step = 1 if backend.name == "triton" else 10
    for byte in torch.randint(low, high, (4 * step,)).tolist():
        damaged = c.buffer.clone()
        damaged[byte] ^= 1 << (byte % 8)
        with pytest.raises(CodecError, match=r"table|digest|beyond"):
            c.with_buffer(damaged).decompress()
    if region != "values":
        return
    swapped = c.buffer.clone()
    swapped[-8:-4], swapped[-4:] = c.buffer[-4:].clone(), c.buffer[-8:-4].clone()
    with pytest.raises(CodecError, match="digest"):
        c.with_buffer(swapped).decompress()


def test_compensating_flips_are_found(backend: Backend) -> None:
    """Counts still agree with the bitmap: only the digest can tell."""
    c = codecs.compress(activation(4001, torch.float32), backend=backend)
    damaged = c.buffer.clone()
    bits = np.unpackbits(damaged[16:17].cpu().numpy(), bitorder="little")
    assert 0 < bits.sum() < 8
    damaged[16] = int(np.packbits(np.roll(bits, 1), bitorder="little")[0])
    with pytest.raises(CodecError, match="digest"):
        c.with_buffer(damaged).decompress()
    c.with_buffer(damaged).decompress(verify=False)


def test_mask_damage_is_found(backend: Backend) -> None:
    x = activation(1000, torch.float32)
    c = codecs.compress(x, "mask", backend)
    damaged = c.buffer.clone()
    damaged[40] ^= 4
    with pytest.raises(CodecError, match="digest of the bitmap"):
        c.with_buffer(damaged).decompress()
    with pytest.raises(CodecError, match="digest of the bitmap"):
        codecs.mask_backward(x, c.with_buffer(damaged))
    with pytest.raises(CodecError, match=r"shape \(3,\), the mask \(1000,\)"):
        codecs.mask_backward(torch.ones(3), c)


def test_truncated_or_foreign_buffers(backend: Backend) -> None:
    for codec in ("relu", "mask"):
        c = codecs.compress(activation(1000, torch.float32), codec, backend)
        for wrong in (c.buffer[:-1], c.buffer[:0], torch.cat([c.buffer, c.buffer])):
            with pytest.raises(CodecError, match=rf"holds {wrong.numel()} bytes.*has {c.nbytes}"):
                c.with_buffer(wrong)
        with pytest.raises(CodecError, match="flat contiguous uint8"):
            c.with_buffer(c.buffer.to(torch.int16))
        memory = torch.empty(c.nbytes + 1, dtype=torch.uint8)
        shifted = memory[1:].copy_(c.buffer)
        same_bits(c.with_buffer(shifted).decompress(), c.decompress())


BAD_OUTS = {
    "shape": (torch.empty(999), r"shape \(999,\).*\(1000,\)"),
    "dtype": (torch.empty(1000, dtype=torch.float64), "dtype torch.float64"),
    "device": (torch.empty(1000, device="meta"), "meta"),
    "layout": (torch.zeros(1000).to_sparse(), "dense"),
}


@pytest.mark.parametrize("what", BAD_OUTS)
@pytest.mark.parametrize("codec", ["relu", "mask"])
def test_bad_out(backend: Backend, codec: str, what: str) -> None:
    out, message = BAD_OUTS[what]
    c = codecs.compress(activation(1000, torch.float32), codec, backend)
    with pytest.raises(CodecError, match=message):
        c.decompress(out=out)
