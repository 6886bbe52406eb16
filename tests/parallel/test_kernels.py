"""The native sum and update against fp64, and the same bits from every instruction set."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from outsize.native import kernels
from outsize.parallel.rules import add_up

SGD, ADAM, ADAMW = 0, 1, 2
ROWS = np.array(
    [[3, 5, 1500, 0, 7, 0], [1600, 1700, 61, 1, 1600, 0]], dtype=np.int64
)  # unaligned, over a block
SPACE = 1800


def hyper(kind: int, step: int) -> np.ndarray:
    if kind == SGD:
        return np.array([[0.1, 0.9, 0.7, 0.01, step % 2, 0, 0, 1.0], [0.2, 0.0, 1.0, 0.0, 0, 0, 0, -1.0]])
    bias = [1 - 0.9**step, (1 - 0.999**step) ** 0.5]
    return np.array([[1e-2, 0.9, 0.999, 1e-8, 0.1, *bias, 1.0], [1e-3, 0.9, 0.999, 1e-6, 0.0, *bias, -1.0]])


def oracle(
    kind: int, h: np.ndarray, g: torch.Tensor, p: torch.Tensor, m: torch.Tensor, v: torch.Tensor
) -> None:
    """torch's documented formulas, in fp64, in place."""
    g = g * h[7]
    if kind == SGD:
        g = g + h[3] * p
        if h[1]:
            m.mul_(h[1]).add_(h[2] * g)
            g = g + h[1] * m if h[4] else m
        p.sub_(h[0] * g)
        return
    if kind == ADAMW:
        p.mul_(1 - h[0] * h[4])
    else:
        g = g + h[4] * p
    m.mul_(h[1]).add_((1 - h[1]) * g)
    v.mul_(h[2]).add_((1 - h[2]) * g * g)
    p.sub_(h[0] / h[5] * m / (v.sqrt() / h[6] + h[3]))


def reduce(
    kind: int, sources: list[torch.Tensor], h: np.ndarray, tensors: list[torch.Tensor], level: int
) -> None:
    addresses = np.array([s.data_ptr() for s in sources], dtype=np.uint64)
    half = sources[0].dtype == torch.bfloat16
    kernels.reduce(
        kind, ROWS.ctypes.data, len(ROWS), addresses.ctypes.data, len(sources), 0, half, 1 / len(sources),
        h.ctypes.data, *[t.data_ptr() for t in tensors[:3]], tensors[3].data_ptr() if len(tensors) > 3 else 0, level,
    )  # fmt: skip


@pytest.mark.parametrize("kind", [SGD, ADAM, ADAMW])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@given(workers=st.integers(1, 5), seed=st.integers(0, 999))
@settings(max_examples=8, deadline=None)
def test_steps_against_fp64(kind: int, dtype: torch.dtype, workers: int, seed: int) -> None:
    torch.manual_seed(seed)
    start = [torch.randn(SPACE), torch.zeros(SPACE), torch.zeros(SPACE)]
    ours, exact = [t.clone() for t in start], [t.double() for t in start]
    halves = [torch.zeros(SPACE, dtype=torch.bfloat16)] if dtype == torch.bfloat16 else []
    by_level = {level: [t.clone() for t in start] for level in (0, 1, 2)}
    for step in range(1, 5):
        grads = [torch.randn(SPACE).to(dtype) for _ in range(workers)]
        h = hyper(kind, step)
        reduce(kind, grads, h, ours + halves, -1)
        for level, tensors in by_level.items():
            try:
                reduce(kind, grads, h, tensors + halves, level)
            except ValueError:  # an instruction set that this processor lacks
                tensors[0] = ours[0]
        for row in ROWS.tolist():
            at, staged = slice(row[0], row[0] + row[2]), slice(row[1], row[1] + row[2])
            mean = sum(g[staged].double() for g in grads) / workers
            oracle(kind, h[row[3]], mean, *[t[at] for t in exact])
    assert (ours[0] - exact[0]).abs().max() < 3e-5
    for tensors in by_level.values():
        assert torch.equal(tensors[0], ours[0])
    touched = np.zeros(SPACE, dtype=bool)
    for row in ROWS.tolist():
        touched[row[0] : row[0] + row[2]] = True
    assert torch.equal(ours[0][~touched], start[0][~touched])
    if halves:
        assert torch.equal(halves[0][touched], ours[0].bfloat16()[touched])


def test_error_is_below_torchs_own() -> None:
    """Twenty AdamW steps over gradients of nine orders of magnitude: no further from fp64 than fused AdamW."""
    torch.manual_seed(0)
    rows = np.array([[0, 0, 4096, 0, 0, 0]], dtype=np.int64)
    p = torch.randn(4096)
    fused, exact = torch.nn.Parameter(p.clone()), torch.nn.Parameter(p.double())
    m, v = torch.zeros(4096), torch.zeros(4096)
    optimizers = torch.optim.AdamW([fused], lr=1e-2, fused=True), torch.optim.AdamW([exact], lr=1e-2)
    for step in range(1, 21):
        grad = torch.randn(4096) * 10 ** torch.empty(4096).uniform_(-6, 3)
        fused.grad, exact.grad = grad.clone(), grad.double()
        for optimizer in optimizers:
            optimizer.step()
        h = np.array([[1e-2, 0.9, 0.999, 1e-8, 0.01, 1 - 0.9**step, (1 - 0.999**step) ** 0.5, 1.0]])
        source = np.array([grad.data_ptr()], dtype=np.uint64)
        kernels.reduce(
            ADAMW, rows.ctypes.data, 1, source.ctypes.data, 1, 0, 0, 1.0, h.ctypes.data,
            p.data_ptr(), m.data_ptr(), v.data_ptr(), 0, -1,
        )  # fmt: skip
    assert (p - exact).abs().max() <= (fused - exact).abs().max()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64, torch.float16])
def test_sums_in_the_order_of_the_workers(dtype: torch.dtype) -> None:
    sources = [torch.randn(SPACE).to(dtype) for _ in range(3)]
    own = torch.randn(1500).to(dtype)
    rows = ROWS.copy()
    rows[0, 5] = own.data_ptr()  # the first run of worker 1 lies elsewhere
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    out = torch.zeros(SPACE, dtype=wide)
    addresses = np.array([s.data_ptr() for s in sources], dtype=np.uint64)
    squares = add_up(rows, addresses, 1, dtype, 0.5, out)
    first = [sources[0][5:1505], own, sources[2][5:1505]]
    expected = ((first[0].to(wide) + first[1].to(wide)) + first[2].to(wide)) * 0.5
    assert torch.equal(out[7:1507], expected)
    second = sum(s[1700:1761].double() for s in sources) * 0.5
    torch.testing.assert_close(
        squares, float(expected.double().square().sum() + second.square().sum()), rtol=1e-5, atol=0
    )


def test_an_unknown_instruction_set_is_refused() -> None:
    with pytest.raises(ValueError, match="instruction set"):
        reduce(ADAMW, [torch.zeros(SPACE)], hyper(ADAMW, 1), [torch.zeros(SPACE) for _ in range(3)], 9)
