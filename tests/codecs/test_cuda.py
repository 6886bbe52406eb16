"""The Triton programs on a GPU: large tensors, many programs at once, streams side by side."""

from __future__ import annotations

import pytest
import torch

import outsize.codecs as codecs
from outsize.codecs.reference import Reference

from .helpers import DTYPES, activation, same_bits

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def test_it_is_chosen_for_a_tensor_on_the_gpu() -> None:
    c = codecs.compress(torch.ones(3, device="cuda"))
    assert c.backend.name == "triton"
    assert codecs.backends()[0] == "triton"


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("density", [0.02, 0.5, 0.98])
def test_thousands_of_programs_agree_with_the_reference(dtype: torch.dtype, density: float) -> None:
    """Each waits for the sums of those before it, in an order that changes from run to run."""
    x = activation((9 << 20) + 333, dtype, density).cuda()
    expected = codecs.compress(x, backend=Reference())
    buffer = torch.empty(expected.layout.nbytes(x.numel()), dtype=torch.uint8, device="cuda")
    for _ in range(10):
        buffer.fill_(255)
        c = codecs.encode_into(x, buffer)
        same_bits(c.buffer, expected.buffer)
        assert c.encoded.digest == expected.encoded.digest
        y = torch.full_like(x, 7)
        assert torch.equal(c.decompress(out=y, verify=True).view(torch.uint8), x.view(torch.uint8))
    same_bits(codecs.compress(x).buffer, expected.buffer)


def test_beyond_two_to_the_31_elements() -> None:
    numel = 2**31 + 3
    x = torch.zeros(numel, dtype=torch.int8, device="cuda")
    places = [0, 2**31 - 1, 2**31, numel - 1]
    for value, at in enumerate(places, 1):
        x[at] = value
    c = codecs.compress(x)
    assert c.nnz == 4
    assert c.values.tolist() == [1, 2, 3, 4]
    x.fill_(9)
    c.decompress(out=x)
    assert [int(x[at]) for at in places] == [1, 2, 3, 4]
    assert int(torch.count_nonzero(x)) == 4


def test_streams_side_by_side() -> None:
    tensors = [activation(3_000_000, torch.float32, d).cuda() for d in (0.1, 0.3, 0.5, 0.7)]
    expected = [codecs.compress(x, backend=Reference()).buffer for x in tensors]
    streams = [torch.cuda.Stream() for _ in tensors]
    buffers = [torch.empty(4 * x.numel() * 2, dtype=torch.uint8, device="cuda") for x in tensors]
    torch.cuda.synchronize()
    for _ in range(5):
        made = []
        for stream, x, buffer in zip(streams, tensors, buffers):
            with torch.cuda.stream(stream):
                made.append(codecs.encode_into(x, buffer, overflow="flag"))
        torch.cuda.synchronize()
        for c, want in zip(made, expected):
            same_bits(c.buffer, want)
