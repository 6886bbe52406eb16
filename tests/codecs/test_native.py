"""What only the C module does: instruction sets, threads, streams past the cache, sizes beyond 2³¹."""

from __future__ import annotations

import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch

import outsize.codecs as codecs
import outsize.codecs.choose as choose_module
from outsize import native as native_module
from outsize.codecs.native import Native
from outsize.codecs.reference import Reference

from .helpers import DTYPES, FLOATS, activation, same_bits

LEVELS = {name: Native(i) for i, name in enumerate(Native.levels())}


@pytest.fixture(params=LEVELS)
def level(request: pytest.FixtureRequest) -> Native:
    return LEVELS[request.param]


def test_levels_are_listed_best_first() -> None:
    known = ("avx512", "avx2", "neon", "portable")
    places = [known.index(name) for name in Native.levels()]
    assert places == sorted(places)
    assert Native.levels()[-1] == "portable"
    assert "native" in codecs.backends()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("threads", [1, 2, 5])
def test_threads_and_streams_change_no_byte(level: Native, dtype: torch.dtype, threads: int) -> None:
    """Large enough for several chunks per thread and for stores past the cache, which need whole lines."""
    numel = (9 << 20) // dtype.itemsize + 333
    x = activation(numel, dtype)
    expected = codecs.compress(x, backend=LEVELS["portable"])
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        c = codecs.compress(x, backend=level)
        buffer = torch.empty(c.layout.nbytes(numel) + 64, dtype=torch.uint8)[16:]  # off the cache line
        d = codecs.encode_into(x, buffer, backend=level)
        for made in (c, d):
            same_bits(made.buffer, expected.buffer)
            assert made.encoded.digest == expected.encoded.digest
            same_bits(made.decompress(), x)
        unaligned = torch.empty(numel + 1, dtype=dtype)[1:]
        same_bits(c.decompress(out=unaligned), x)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_fused_relu_over_many_chunks(level: Native, dtype: torch.dtype) -> None:
    x = torch.randn(300_001).to(dtype)
    y, c = codecs.relu_encode(x, backend=level)
    same_bits(y, torch.relu(x))
    same_bits(c.decompress(), y)
    assert not c.encoded.negative


def test_beyond_two_to_the_31_elements() -> None:
    """Pages of zeros are shared by the system: 2 GiB of input, but only the output is ever resident."""
    numel = 2**31 + 3
    x = torch.from_numpy(np.zeros(numel, np.int8))
    places = [0, 2**31 - 1, 2**31, numel - 1]
    for value, place in enumerate(places, 1):
        x[place] = value
    c = codecs.compress(x)
    assert c.nnz == 4
    assert c.nbytes == c.layout.nbytes(4) == (4 * -(-numel // 1024) + 15) // 16 * 16 + 2**28 + 16 + 4
    assert c.values.tolist() == [1, 2, 3, 4]
    x.fill_(9)
    assert c.decompress(out=x) is x
    assert [int(x[place]) for place in places] == [1, 2, 3, 4]
    assert np.count_nonzero(x.numpy()) == 4


def test_without_the_module_plain_torch_serves_after_one_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("outsize.codecs.native.available", lambda: False)
    monkeypatch.setattr("outsize.codecs.native.kernels", None)
    native_module.warn_missing.cache_clear()
    x = activation(3000, torch.float32)
    with pytest.warns(RuntimeWarning, match=r"without its C module, so codecs run in plain torch"):
        c = codecs.compress(x)
    assert c.backend.name == "reference"
    same_bits(c.decompress(), x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        codecs.compress(x)
    assert codecs.backends() == ("reference",)
    with pytest.raises(codecs.CodecError, match="'native' does not run on this machine: 'reference' do"):
        codecs.compress(x, backend="native")
    with pytest.raises(codecs.CodecError, match="C module, which was not built"):
        Native().digest(x.view(torch.uint8))
    native_module.warn_missing.cache_clear()


BAD_TENSORS = {
    "sparse": (lambda: torch.eye(3).to_sparse(), r"sparse_coo: call \.to_dense"),
    "quantized": (lambda: torch.quantize_per_tensor(torch.ones(3), 1.0, 0, torch.qint8), r"int_repr"),
    "meta": (lambda: torch.empty(3, device="meta"), "no back end for device meta"),
    "complex128": (lambda: torch.ones(3, dtype=torch.complex128), "16 bytes"),
    "nested": (lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]), "dense"),
    "no tensor": (lambda: [1.0], "not list"),
}


@pytest.mark.parametrize("codec", ["relu", "mask"])
@pytest.mark.parametrize("what", BAD_TENSORS)
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested", "ignore:.*quantize_per_tensor.*")
def test_tensors_that_no_codec_takes(codec: str, what: str) -> None:
    make, message = BAD_TENSORS[what]
    with pytest.raises(codecs.CodecError, match=message):
        codecs.compress(make(), codec)


def test_unknown_names() -> None:
    x = torch.ones(3)
    with pytest.raises(codecs.CodecError, match=r"no codec 'gzip'.*'relu', 'mask'"):
        codecs.compress(x, "gzip")
    with pytest.raises(codecs.CodecError, match=r"no back end 'cuda'.*'native'"):
        codecs.compress(x, backend="cuda")
    with pytest.raises(codecs.CodecError, match="mask codec takes"):
        codecs.compress(torch.ones(3, dtype=torch.complex64), "mask")
    with pytest.raises(codecs.CodecError, match="relu_encode takes"):
        codecs.relu_encode(torch.ones(3, dtype=torch.int32))
    assert choose_module.choose(None, torch.device("cpu")).name == "native"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda n: torch.empty(n, dtype=torch.int8), "flat contiguous uint8"),
        (lambda n: torch.empty(2 * n, dtype=torch.uint8)[::2], "flat contiguous uint8"),
        (lambda n: torch.empty(n + 1, dtype=torch.uint8)[1:], "16-byte boundary"),
        (
            lambda n: torch.empty(100, dtype=torch.uint8),
            r"take 144 bytes before any value, the buffer has 100",
        ),
        (lambda n: torch.empty(n, dtype=torch.uint8, device="meta"), "lies on meta"),
    ],
)
def test_bad_planned_buffers(make: object, message: str) -> None:
    x = activation(1000, torch.float32)
    with pytest.raises(codecs.CodecError, match=message):
        codecs.encode_into(x, make(8000))
    with pytest.raises(codecs.CodecError, match="'raise' or 'flag', not 'ignore'"):
        codecs.encode_into(x, torch.empty(8000, dtype=torch.uint8), overflow="ignore")


def test_complex_and_short_types() -> None:
    for dtype in (torch.complex64, torch.bool, torch.int16, torch.uint8, torch.float8_e4m3fn, torch.uint16):
        x = torch.tensor([0, 1, 0, 2, 0], dtype=torch.float32).to(dtype)
        same_bits(codecs.compress(x).decompress(), x)
    x = torch.complex(torch.tensor([1.0, 0.0]), torch.tensor([2.0, 0.0])).conj()
    torch.testing.assert_close(codecs.compress(x).decompress(), x.resolve_conj())


def test_a_process_that_only_reads_the_help_imports_no_triton() -> None:
    code = "import sys, outsize.codecs; print('triton' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_reference_and_native_agree_on_noise(level: Native) -> None:
    """Arbitrary bits are arbitrary NaNs, denormals and signs."""
    for dtype in DTYPES:
        x = torch.randint(0, 256, (40_000,), dtype=torch.uint8).view(dtype)
        x = x.masked_fill(torch.rand(x.shape) < 0.5, 0)
        for codec in ("relu", "mask"):
            a, b = codecs.compress(x, codec, Reference()), codecs.compress(x, codec, level)
            same_bits(a.buffer, b.buffer)
            assert a.encoded.digest == b.encoded.digest
            same_bits(a.decompress(), b.decompress())
