"""Recompute-only plans beside torch's `activation_memory_budget` and full block checkpointing, on real networks.

All three are read by one meter: bytes of live storages at each operator (parameters, gradients, inputs included) and
FLOPs by torch's formulas. The networks are captured on tensors without bytes. At the peak of each baseline point the
search gets that peak as its budget; costs are FLOPs alone, which is what the table counts. At half and a third of the
plain peak a lower bound stands beside the search: no plan of this graph that recomputes alone, its ops in this order,
runs fewer FLOPs there (`outsize.plan.search.relaxation.least_again`). The partitioner may repeat a draw of random
numbers, which makes another dropout mask for the backward than the forward had; such points are counted and marked.

Beside a DenseNet stands the memory-efficient scheme of Pleiss et al. 2017, see `dense.py`.

python benchmarks/plan-baselines/run.py [gpt|bert|vit|resnet50|unet2d|densenet …]
"""

import json
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from statistics import median

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

sys.path.insert(0, str(Path(__file__).parents[1]))
from baselines import SOLVERS, Joint, checkpointed
from dense import DenseNet

from outsize.plan import PlanSettings
from outsize.plan.search.cuts import Effort
from outsize.plan.search.relaxation import least_again
from outsize.values import OpCost, Profile, StepGraph
from outsize.zoo.models.convolutional import ResNet, ResNetSize
from outsize.zoo.models.transformer import GPT, Bert, TransformerSize, ViT
from outsize.zoo.models.unet import UNet, UNetSize
from plan_bench import Case, save

BUDGETS = (0.7, 0.5, 0.35, 0.2, 0.1)
SHARES = (0.5, 1 / 3)
SETTINGS = PlanSettings(margin=0.0)
PROOF = Effort(gap=1e-4, seconds=30.0, rounds=3, cuts=16)
Blocks = Callable[[nn.Module], list[nn.Module]]


def transformer(kind: type, context: int, dropout: float, **more: object) -> nn.Module:
    depth = 8 if kind is GPT else 6
    size = TransformerSize(width=768, depth=depth, heads=12, context=context, dropout=dropout)
    return kind(size, **more)  # type: ignore[no-any-return]


def symbols(batch: int, length: int) -> Tensor:
    return torch.zeros(batch, length, dtype=torch.int64)


MODELS: dict[str, tuple[Callable[[], nn.Module], Callable[[], Tensor], Blocks]] = {
    "gpt": (lambda: transformer(GPT, 1024, 0.0), lambda: symbols(8, 1024), lambda m: [*m.blocks]),
    "bert": (lambda: transformer(Bert, 512, 0.1), lambda: symbols(32, 512), lambda m: [*m.blocks]),
    "vit": (
        lambda: transformer(ViT, 196, 0.0, patch=16, classes=1000),
        lambda: torch.empty(128, 3, 224, 224),
        lambda m: [*m.blocks],
    ),
    "resnet50": (
        lambda: ResNet(ResNetSize(stages=(3, 4, 6, 3)), classes=1000),
        lambda: torch.empty(128, 3, 224, 224),
        lambda m: [*m.blocks],
    ),
    "unet2d": (
        lambda: UNet(UNetSize(width=32, depth=4), dimensions=2, classes=3),
        lambda: torch.empty(16, 1, 256, 256),
        lambda m: [*m.down, *m.merge],
    ),
    "densenet": (DenseNet, lambda: torch.empty(64, 3, 224, 224), lambda m: m.stages()),
}
#: Schemes of their own: what they checkpoint.
SCHEMES: dict[str, tuple[str, Blocks]] = {"densenet": ("memory_efficient", lambda m: m.joins())}


def costs(graph: StepGraph) -> Profile:
    return Profile(ops=tuple(OpCost(seconds=op.flops / 1e12) for op in graph.ops), estimated=True)


def draws(graph: StepGraph) -> int:
    return sum(op.random for op in graph.ops)


def point(graph: StepGraph, plain: StepGraph) -> dict:
    flops = sum(op.flops for op in graph.ops) / sum(op.flops for op in plain.ops)
    repeated = draws(graph) - draws(plain)
    return {"peak_bytes": max(graph.plain_residency()), "flops": flops, "draws_repeated": repeated}


def torch_points(joint: Joint, plain: StepGraph) -> list[dict]:
    points = [{"budget": 1.0, "solver": "min-cut", **point(joint.partitioned(1.0, "dp"), plain)}]
    for solver in SOLVERS:
        for budget in BUDGETS:
            made = point(joint.partitioned(budget, solver), plain)
            points.append({"budget": budget, "solver": solver, **made})
    points.append({"budget": 0.0, "solver": "inputs only", **point(joint.partitioned(0.0, "dp"), plain)})
    return points


def best(points: list[dict]) -> list[dict]:
    """The points that no other point beats in both bytes and FLOPs."""
    kept: list[dict] = []
    for p in sorted(points, key=lambda p: (p["peak_bytes"], p["flops"])):
        if not kept or p["flops"] < kept[-1]["flops"] - 1e-9:
            kept.append(p)
    return kept


def ours(case: Case, total: int, budget: int) -> float | None:
    plan = case.plan(budget, "search", ("recompute",), SETTINGS)
    return 1 + plan.recomputed_flops / total if plan else None


def least(case: Case, total: int, budget: int) -> float:
    """FLOPs ÷ plain that any recompute-only plan needs."""
    return 1 + least_again(case.problem(budget, ("recompute",), SETTINGS), PROOF) * 1e12 / total


def block_point(name: str, total: int, blocks: Blocks) -> dict:
    make, data, _ = MODELS[name]
    module, args = make(), (data(),)
    plain_peak, plain_flops = checkpointed(make(), args, [])
    peak, flops = checkpointed(module, args, blocks(module))
    return {"peak_bytes": peak, "flops": flops / plain_flops, "eager_plain_peak_bytes": plain_peak,
            "eager_flops_over_graph": plain_flops / total}  # fmt: skip


def checkpoints(row: dict) -> list[dict]:
    """The points of a family's checkpointed steps."""
    return [
        row[key] for key in ("block_checkpointing", *(kind for kind, _ in SCHEMES.values())) if key in row
    ]


def measure(name: str) -> dict:
    make, data, blocks = MODELS[name]
    with FakeTensorMode(allow_non_fake_inputs=True):
        joint = Joint(make(), (data(),))
        plain = joint.plain()
        total = sum(op.flops for op in plain.ops)
        case = Case(plain, costs(plain))
        began = time.perf_counter()
        points = torch_points(joint, plain)
        row: dict = {"family": name, "ops": len(plain.ops), "plain_peak_bytes": case.peak,
                     "floor": case.floor / case.peak, "torch_seconds": time.perf_counter() - began}  # fmt: skip
        row["block_checkpointing"] = block_point(name, total, blocks)
        if name in SCHEMES:
            row[SCHEMES[name][0]] = block_point(name, total, SCHEMES[name][1])
    compared = [*checkpoints(row), *(front := best(points))]
    for p in compared:
        p["peak"] = p["peak_bytes"] / case.peak
        p["ours"] = ours(case, total, p["peak_bytes"])
    row |= {"torch_points": points, "torch_front": front}
    row["lowest_torch_peak"] = min(p["peak"] for p in front)
    above = [p for p in compared if p["ours"] is None or p["ours"] > p["flops"] + 1e-9]
    row["more_flops_than_a_baseline_in"] = len(above)
    row["of_them_repeat_a_draw"] = sum(p.get("draws_repeated", 0) > 0 for p in above)
    row["at"] = {f"{share:.3f}": ours(case, total, int(share * case.peak)) for share in SHARES}
    row["least_at"] = {f"{share:.3f}": least(case, total, int(share * case.peak)) for share in SHARES}
    return row


if __name__ == "__main__":
    path = Path(__file__).with_name("result.json")
    wanted = sys.argv[1:] or list(MODELS)
    kept = json.loads(path.read_text())["rows"] if sys.argv[1:] and path.is_file() else []
    known = {r["family"]: r for r in kept}
    pool = ProcessPoolExecutor(max_workers=2, mp_context=get_context("spawn"))
    for future in as_completed({pool.submit(measure, name): name for name in wanted}):
        chosen = future.result()["family"]
        known[chosen] = future.result()
        print({k: v for k, v in known[chosen].items() if k != "torch_points"}, flush=True)
        rows = [known[name] for name in MODELS if name in known]
        ratios = [p["ours"] / p["flops"] for r in rows for p in [*checkpoints(r), *r["torch_front"]]
                  if p["ours"]]  # fmt: skip
        save(__file__, {
            "bars": {"0.500": 1.05, "0.333": 1.15}, "compared_points": len(ratios),
            "more_flops_than_a_baseline_in": sum(r["more_flops_than_a_baseline_in"] for r in rows),
            "of_them_repeat_a_draw": sum(r["of_them_repeat_a_draw"] for r in rows),
            "median_flops_ours_over_theirs": median(ratios), "rows": rows,
        })  # fmt: skip
