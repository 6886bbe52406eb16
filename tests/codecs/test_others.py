"""The codecs beside zero suppression: digits, pooling places, byte planes, bounded losses."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

import outsize.codecs as codecs
from outsize.codecs.contract import Backend
from outsize.codecs.lossy import SCALE_BLOCK
from outsize.errors import CodecError

from .helpers import DTYPES, FLOATS, activation, same_bits


@pytest.mark.parametrize("low", [-9, 0, 1000])
@pytest.mark.parametrize("width", [0, 1, 4, 7, 8, 9, 15, 16, 31, 32])
def test_digits(backend: Backend, low: int, width: int) -> None:
    x = torch.randint(low, low + 2**width, (3, 333))
    x[0, 0], x[0, 1] = low, low + 2**width - 1
    c = codecs.compress(x, "bits", backend)
    assert c.nbytes == width * 128
    same_bits(c.decompress(), x)


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32], ids=str)
def test_digits_of_every_integer_type(backend: Backend, dtype: torch.dtype) -> None:
    info = None if dtype is torch.bool else torch.iinfo(dtype)
    low, high = (0, 1) if info is None else (info.min, info.max)
    x = torch.randint(low, high + 1, (50, 7)).to(dtype).t()
    x[0, :2] = torch.tensor([low, high]).to(dtype)
    c = codecs.compress(x, "bits", backend)
    y = c.decompress()
    same_bits(y, x)
    assert y.stride() == x.stride()


def test_digits_refuse(backend: Backend) -> None:
    with pytest.raises(CodecError, match=r"range.* has 60"):
        codecs.compress(torch.tensor([0, 2**59]), "bits", backend)
    with pytest.raises(CodecError, match=r"integers and booleans, not torch.float32"):
        codecs.compress(torch.ones(3), "bits", backend)
    c = codecs.compress(torch.arange(100), "bits", backend)
    damaged = c.buffer.clone()
    damaged[3] ^= 1
    with pytest.raises(CodecError, match="digest of the 7 bitmaps"):
        c.with_buffer(damaged).decompress()


POOLS = {
    "2x2": ({"kernel_size": 2, "stride": 2}, 2),
    "3x3 as in ResNet": ({"kernel_size": 3, "stride": 2, "padding": 1}, 4),
    "3x2, dilated": ({"kernel_size": (3, 2), "stride": (1, 2), "dilation": (2, 3)}, 3),
    "5x5": ({"kernel_size": 5, "stride": 1, "padding": 2}, 5),
}


@pytest.mark.parametrize("name", POOLS)
def test_pool_indices_in_the_fewest_bits(backend: Backend, name: str) -> None:
    options, width = POOLS[name]
    x = torch.randn(2, 3, 17, 20)
    out, indices = F.max_pool2d(x, **options, return_indices=True)
    pair = {k: v if isinstance(v, tuple) else (v, v) for k, v in options.items()}
    pair = {k.removesuffix("_size"): v for k, v in pair.items()}
    c = codecs.compress_pool_indices(indices, codecs.Window(plane=(17, 20), **pair), backend)
    assert c.nbytes <= width * (-(-indices.numel() // 128) * 16)
    same_bits(c.decompress(), indices)
    same_bits(c.with_buffer(c.buffer.clone()).decompress(), indices)
    grad = torch.randn_like(out)
    geometry = [
        pair["kernel"],
        pair["stride"],
        pair.get("padding", (0, 0)),
        pair.get("dilation", (1, 1)),
        False,
    ]
    backward = torch.ops.aten.max_pool2d_with_indices_backward
    first, second = (backward(grad, x, *geometry, i) for i in (indices, c.decompress()))
    same_bits(first, second)


def test_pool_indices_of_another_geometry(backend: Backend) -> None:
    _, indices = F.max_pool2d(torch.randn(1, 1, 8, 8), 2, return_indices=True)
    with pytest.raises(CodecError, match="outside their windows"):
        codecs.compress_pool_indices(
            indices, codecs.Window(plane=(8, 9), kernel=(2, 2), stride=(2, 2)), backend
        )
    with pytest.raises(CodecError, match="int64"):
        codecs.compress_pool_indices(
            indices.int(), codecs.Window(plane=(8, 8), kernel=(2, 2), stride=(2, 2)), backend
        )


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("numel", [0, 1, 5, 70_000])
def test_byte_planes(dtype: torch.dtype, numel: int) -> None:
    x = F.gelu(torch.randn(numel)).to(dtype)
    c = codecs.compress(x, "planes")
    same_bits(c.decompress(), x)
    if numel == 70_000 and dtype is torch.float32:
        assert c.ratio < 0.9
        assert [packed for _, packed in c.runs] == [False, False, False, True]


def test_byte_planes_refuse_damage() -> None:
    c = codecs.compress(F.gelu(torch.randn(30_000)), "planes")
    for byte in (5, c.nbytes - 100):
        damaged = c.buffer.clone()
        damaged[byte] ^= 16
        with pytest.raises(CodecError, match="digest"):
            c.with_buffer(damaged).decompress()
    damaged = c.buffer.clone()
    damaged[-c.runs[-1][0] :] = 0
    with pytest.raises(CodecError, match="byte plane 3 is no whole zstd frame"):
        c.with_buffer(damaged).decompress(verify=False)


#: Values whose rounding is hardest: ties, the ends of the range, denormals.
HARD = [
    0.0,
    -0.0,
    1.0,
    1 + 2.0**-8,
    1 + 2.0**-9,
    3.4e38,
    -3.4e38,
    1e-38,
    1e-42,
    448.0,
    464.0,
    127.5,
    6e-5,
    1e-7,
]


@pytest.mark.parametrize("codec", ["bf16", "fp8", "int8"])
@pytest.mark.parametrize("dtype", FLOATS[:3], ids=str)
@given(seed=st.integers(0, 2**32), scale=st.sampled_from([1e-40, 1e-30, 1e-6, 1.0, 300.0, 1e30]))
@settings(max_examples=25, deadline=None)
def test_losses_stay_within_the_declared_bound(
    codec: str, dtype: torch.dtype, seed: int, scale: float
) -> None:
    if codec == "bf16" and dtype is not torch.float32:
        with pytest.raises(CodecError, match="does not take"):
            codecs.compress(torch.ones(3, dtype=dtype), codec)
        return
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(3 * SCALE_BLOCK + 17, generator=generator) * scale
    x = torch.cat([x, torch.tensor(HARD), x.relu()]).clamp(-torch.finfo(dtype).max, torch.finfo(dtype).max)
    x = x.to(dtype)
    x = torch.where(x.isfinite(), x, torch.zeros((), dtype=dtype))
    c = codecs.compress(x, codec)
    assert not c.lossless
    error = (c.decompress().double() - x.double()).abs()
    assert bool((error <= codecs.bound(codec, x)).all())
    assert c.nbytes <= x.numel() * (2 if codec == "bf16" else 1 + 4 / SCALE_BLOCK) + 36


def test_bounds_are_not_slack() -> None:
    """Some element comes within a tenth of each bound: a looser claim would be an empty one."""
    x = torch.randn(200_000)
    for codec in ("bf16", "fp8", "int8"):
        error = (codecs.compress(x, codec).decompress().double() - x.double()).abs()
        assert float((error / codecs.bound(codec, x)).max()) > 0.9


def test_losses_keep_zeros_strides_and_infinities() -> None:
    x = activation((3, 50, 7), torch.float32).transpose(0, 2)
    for codec in ("bf16", "fp8", "int8"):
        y = codecs.compress(x, codec).decompress()
        assert y.stride() == x.stride()
        assert bool((y[x == 0] == 0).all())
    special = torch.tensor([float("inf"), -float("inf"), float("nan"), 1.0])
    same = codecs.compress(special, "bf16").decompress()
    torch.testing.assert_close(same, special, equal_nan=True)
    for codec in ("fp8", "int8"):
        with pytest.raises(CodecError, match="NaN or infinite"):
            codecs.compress(special, codec)


@pytest.mark.parametrize("codec", ["bf16", "fp8", "int8"])
def test_lossy_damage_is_found(codec: str) -> None:
    c = codecs.compress(torch.randn(1000), codec)
    damaged = c.buffer.clone()
    damaged[700] ^= 64
    with pytest.raises(CodecError, match="digest"):
        c.with_buffer(damaged).decompress()
    with pytest.raises(CodecError, match="holds"):
        c.with_buffer(damaged[:-1])
