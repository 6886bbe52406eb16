"""Pivots per second three ways, and the sum over children four ways, on functions of the standard library.

python benchmarks/trees-speed/run.py
"""

from __future__ import annotations

import json
import platform
import statistics
import sysconfig
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from outsize.errors import TreesError
from outsize.programs.trees import Forest, LocalizedTreeConv, Topology
from outsize.programs.trees.functions import concatenate
from outsize.programs.trees.python_front import python_functions

WIDTH, LAYERS, PAIRS = 128, 4, 9


def functions(count: int = 200) -> Forest:
    """Functions with 64 nodes or more, evenly spread over the standard library's own modules."""
    parts = []
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        try:
            parts.append(python_functions(path.read_bytes(), max_nodes=512))
        except TreesError:
            continue
    forest = concatenate([part for part in parts if part.count]).forest
    large = np.flatnonzero(np.diff(forest.ptr) >= 64)
    return forest.select(large[np.linspace(0, len(large) - 1, count).astype(int)])


def seconds(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def paired(ways: dict[str, Callable[[], object]], base: str, pairs: int) -> dict[str, dict[str, float]]:
    """Every round times every way once; ratios are taken within a round."""
    for run in ways.values():
        run()
    rounds = [{name: seconds(run) for name, run in ways.items()} for _ in range(pairs)]
    return {
        name: {
            "seconds_min": min(r[name] for r in rounds),
            "ratio_median": round(statistics.median(r[base] / r[name] for r in rounds), 2),
            "ratio_min": round(min(r[base] / r[name] for r in rounds), 2),
        }
        for name in ways
    }


def pivots(forest: Forest) -> dict:
    """All pivots of 20 functions; the full tree per pivot in portions of 200 pivots, as memory demands."""
    some = forest.select(range(0, forest.trees, 10))
    torch.manual_seed(0)
    model = LocalizedTreeConv(WIDTH, layers=LAYERS)
    x = torch.randn(some.nodes, WIDTH)
    chosen = np.flatnonzero(some.parent >= 0)

    def portions(way: str, size: int) -> torch.Tensor:
        return torch.cat([model(x, some, chosen[i : i + size], way=way) for i in range(0, len(chosen), size)])

    ways = {
        "full tree per pivot": lambda: portions("full", 200),
        "windows": lambda: portions("windows", 400),
        "all pivots rerooted": lambda: model(x, some, chosen, way="all"),
    }
    with torch.no_grad():
        full, windows, rerooted = (run() for run in ways.values())
        result = paired(ways, "full tree per pivot", 3)
    for row in result.values():
        row["pivots_per_second"] = round(len(chosen) / row["seconds_min"])
    return {
        "functions": some.trees, "nodes_per_function": round(some.nodes / some.trees, 1), "pivots": len(chosen),
        "width": WIDTH, "layers": LAYERS, "largest_difference": float(
            max((full - windows).abs().max(), (full - rerooted).abs().max())), "ways": result,
    }  # fmt: skip


def kernel(forest: Forest) -> dict:
    """`sum over children of (1 - rho) left + rho right` from one product's output, forward and with gradient."""
    topology = Topology.of(forest)
    n, rho = forest.nodes, topology.rho
    mixed = torch.randn(n, 3 * WIDTH)
    inner, above = topology.inner, topology.above
    weights = torch.cat([1 - rho[inner, 0], rho[inner, 0]])
    index = torch.stack([above.repeat(2), torch.cat([inner, inner + n])])
    coo = torch.sparse_coo_tensor(index, weights, (n, 2 * n)).coalesce()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        csr = coo.to_sparse_csr()
        turned = coo.t().coalesce().to_sparse_csr()

    def edges(m: torch.Tensor) -> torch.Tensor:
        left, right = m[:, WIDTH : 2 * WIDTH], m[:, 2 * WIDTH :]
        sent = torch.lerp(
            left.index_select(0, inner), right.index_select(0, inner), rho.index_select(0, inner)
        )
        return torch.zeros(n, WIDTH).index_add_(0, above, sent)

    def stacked(m: torch.Tensor) -> torch.Tensor:
        return torch.cat([m[:, WIDTH : 2 * WIDTH], m[:, 2 * WIDTH :]])

    class Csr(torch.autograd.Function):
        """CSR product with the transpose prepared beforehand, as the best of them would do it."""

        @staticmethod
        def forward(ctx, m):
            return csr @ stacked(m)

        @staticmethod
        def backward(ctx, grad):
            both = turned @ grad
            return torch.cat([grad.new_zeros(n, WIDTH), both[:n], both[n:]], 1)

    ways = {
        "edge list, index_add": edges,
        "CSR": Csr.apply,
        "COO": lambda m: torch.sparse.mm(coo, stacked(m)),
        "one pass in C": lambda m: topology.mixed_sum(m, WIDTH),
    }
    outputs = [way(mixed) for way in ways.values()]
    with torch.no_grad():
        forward = paired(
            {name: (lambda w=way: w(mixed)) for name, way in ways.items()}, "one pass in C", PAIRS
        )
    grad = torch.randn(n, WIDTH)

    def both(way: Callable) -> None:
        m = mixed.clone().requires_grad_()
        way(m).backward(grad)

    training = paired({name: (lambda w=way: both(w)) for name, way in ways.items()}, "one pass in C", PAIRS)
    best = {
        kind: round(min(1 / table[name]["ratio_median"] for name in list(ways)[:3]), 2)
        for kind, table in (("forward", forward), ("with_gradient", training))
    }
    return {
        "nodes": n, "width": WIDTH, "forward": forward, "with_gradient": training,
        "times_the_best_other": best,
        "largest_difference": float(max((o - outputs[0]).abs().max() for o in outputs[1:])),
    }  # fmt: skip


def main() -> None:
    torch.set_num_threads(1)
    forest = functions()
    result = {
        "machine": {"processor": platform.machine(), "torch": torch.__version__, "threads": 1},
        "kernel": kernel(forest), "pivots": pivots(forest),
    }  # fmt: skip
    Path(__file__).with_name("result.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
