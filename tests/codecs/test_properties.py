"""Properties over random tensors, against an oracle written in numpy."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import outsize.codecs as codecs
from outsize.errors import CodecError

from .conftest import BACKENDS, place
from .helpers import DTYPES, oracle, raw, same_bits

INTERPRETED = [*BACKENDS] == ["triton"]
EXAMPLES = 8 if INTERPRETED else 60
LARGEST = 5000 if INTERPRETED else 40_000
backends = st.sampled_from([*BACKENDS])


@st.composite
def tensors(draw: st.DrawFn) -> torch.Tensor:
    """Random bits in random runs of zeros and nonzeros, so that whole groups and blocks of both kinds
    occur."""
    dtype = draw(st.sampled_from(DTYPES))
    numel = draw(st.one_of(st.integers(0, 200), st.integers(0, LARGEST)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    bits = rng.integers(0, 256, numel * dtype.itemsize, dtype=np.uint8)
    run = draw(st.sampled_from([1, 7, 64, 1500]))
    keep = np.repeat(rng.random(-(-numel // run)) < draw(st.floats(0, 1)), run)[:numel]
    bits.reshape(numel, dtype.itemsize)[~keep] = 0
    x = torch.empty(numel, dtype=dtype)
    x.view(torch.uint8).copy_(torch.from_numpy(bits))
    return x


@given(x=tensors(), name=backends)
@settings(max_examples=EXAMPLES, deadline=None)
def test_triton_and_others_equal_the_oracle(x: torch.Tensor, name: str) -> None:
    x = x.to(place(name))
    c = codecs.compress(x, backend=BACKENDS[name])
    table, bitmap, values = oracle(x)
    np.testing.assert_array_equal(c.table.cpu().numpy(), table)
    np.testing.assert_array_equal(c.bitmap.cpu().numpy()[: len(bitmap)], bitmap)
    np.testing.assert_array_equal(raw(c.values), values)
    same_bits(c.decompress(), x)


@given(x=tensors(), name=backends, data=st.data())
@settings(max_examples=EXAMPLES, deadline=None)
def test_triton_and_others_never_give_a_wrong_tensor(x: torch.Tensor, name: str, data: st.DataObject) -> None:
    """Any damage: an error, or (where it hit padding) the right tensor."""
    x = x.to(place(name))
    c = codecs.compress(x, backend=BACKENDS[name])
    damaged = c.buffer.clone()
    if not damaged.numel():
        return
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, damaged.numel() - 1))
        damaged[at] = data.draw(st.integers(0, 255))
    try:
        y = c.with_buffer(damaged).decompress()
    except CodecError:
        assert not torch.equal(damaged, c.buffer), "a sound buffer was refused"
        return
    same_bits(y, x)


@given(x=tensors(), name=backends, share=st.floats(0, 1.2))
@settings(max_examples=EXAMPLES, deadline=None)
def test_triton_and_others_stay_inside_a_planned_buffer(x: torch.Tensor, name: str, share: float) -> None:
    backend, x = BACKENDS[name], x.to(place(name))
    exact = codecs.compress(x, backend=backend)
    room = exact.layout.head_bytes + int(share * (exact.nbytes - exact.layout.head_bytes))
    memory = torch.full((room + 256,), 170, dtype=torch.uint8, device=x.device)
    c = codecs.encode_into(x, memory[:room], backend=backend, overflow="flag")
    assert c.overflowed == (exact.nbytes > room)
    assert bool((memory[room:] == 170).all())
    if not c.overflowed:
        same_bits(c.buffer, exact.buffer)
        same_bits(c.decompress(), x)
