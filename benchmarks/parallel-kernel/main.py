"""The fused sum + AdamW pass against the memory bandwidth measured beside it, and its error against fp64.

python benchmarks/parallel-kernel/main.py
"""

from __future__ import annotations

import json
import os
import platform
import time
from pathlib import Path

import numpy as np
import torch

from outsize.native import kernels

LENGTH = 25_000_000
HYPER = np.array([[1e-3, 0.9, 0.999, 1e-8, 0.01, 0.1, 0.001**0.5, 1.0]])


def table(length: int) -> np.ndarray:
    return np.array([[0, 0, length, 0, 0, 0]], dtype=np.int64)


def reduce(
    rule: int, rows: np.ndarray, sources: list[torch.Tensor], hyper: np.ndarray, *out: torch.Tensor
) -> None:
    addresses = np.array([s.data_ptr() for s in sources], dtype=np.uint64)
    tensors = [t.data_ptr() for t in out] + [0] * (3 - len(out))
    kernels.reduce(
        rule, rows.ctypes.data, len(rows), addresses.ctypes.data, len(sources), 0, 0, 1 / len(sources),
        hyper.ctypes.data, *tensors, 0, -1,
    )  # fmt: skip


def floor(parts: list[torch.Tensor]) -> None:
    """The same traffic and almost no arithmetic: read four arrays more than are written, write three.

    out-of-place `torch.add(..., out=)` reads two and writes one; three of them move nine arrays, so the time is
    scaled by eight ninths to the eight arrays of two gradients + update.
    """
    a, b, p, m, v = parts
    torch.add(p, a, alpha=0.0, out=p)
    torch.add(m, b, alpha=0.0, out=m)
    torch.add(v, a, alpha=0.0, out=v)


def seconds(act, repeats: int) -> list[float]:
    taken = []
    for _ in range(repeats):
        begin = time.perf_counter()
        act()
        taken.append(time.perf_counter() - begin)
    return taken


def error() -> dict[str, float]:
    torch.manual_seed(0)
    n, options = 1 << 16, {"lr": 1e-2}
    start = torch.randn(n)
    ours, mean, square = start.clone(), torch.zeros(n), torch.zeros(n)
    fused, exact = torch.nn.Parameter(start.clone()), torch.nn.Parameter(start.double())
    optimizers = torch.optim.AdamW([fused], fused=True, **options), torch.optim.AdamW([exact], **options)
    for t in range(1, 21):
        grad = torch.randn(n) * 10 ** torch.empty(n).uniform_(-6, 3)
        fused.grad, exact.grad = grad.clone(), grad.double()
        for optimizer in optimizers:
            optimizer.step()
        hyper = np.array([[1e-2, 0.9, 0.999, 1e-8, 0.01, 1 - 0.9**t, (1 - 0.999**t) ** 0.5, 1.0]])
        reduce(2, table(n), [grad], hyper, ours, mean, square)
    return {
        "ours": (ours.double() - exact).abs().max().item(),
        "torch_fused": (fused.double() - exact).abs().max().item(),
    }


def main() -> None:
    torch.set_num_threads(1)
    parts = (
        [torch.randn(LENGTH) for _ in range(2)]
        + [torch.randn(LENGTH)]
        + [torch.zeros(LENGTH) for _ in range(2)]
    )
    grads, state = parts[:2], parts[2:]
    kernel_times, floor_times = [], []
    for _ in range(15):  # turn by turn
        kernel_times += seconds(lambda: reduce(2, table(LENGTH), grads, HYPER, *state), 1)
        floor_times += [s * 8 / 9 for s in seconds(lambda: floor(parts), 1)]
    ratios = sorted(f / k for f, k in zip(floor_times, kernel_times))
    result = {
        "machine": platform.machine(), "cores": len(os.sched_getaffinity(0)), "torch": torch.__version__,
        "elements": LENGTH, "bytes_moved": 32 * LENGTH,
        "kernel_seconds": kernel_times, "floor_seconds": floor_times,
        "share_of_floor_min": min(floor_times) / min(kernel_times),
        "share_of_floor_median_of_pairs": ratios[len(ratios) // 2],
        "gigabytes_per_second": 32 * LENGTH / min(kernel_times) / 1e9,
        "largest_error_against_fp64_after_20_steps": error(),
    }  # fmt: skip
    print(json.dumps({k: v for k, v in result.items() if not isinstance(v, list)}, indent=1))
    (Path(__file__).parent / "result.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
