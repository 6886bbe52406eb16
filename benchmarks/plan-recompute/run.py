"""FLOPs of recompute-only plans at a given peak, against full block checkpointing, and a sweep of the budget.

Costs are FLOPs alone (a machine of infinite bandwidth), so the search minimises what the bar counts. Block
checkpointing keeps each block's input, drops all that the block makes, and runs the block again as a whole in front
of its first backward op, as `torch.utils.checkpoint` does.
"""

import sys
from itertools import pairwise
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.plan.families import bert, gpt, resnet, unet, vit
from tests.plan.nets import Machine

from outsize.plan import PlanSettings
from outsize.plan.schedule.lower import lower_decisions
from outsize.plan.schedule.simulate import simulate
from outsize.plan.search.cuts import Effort
from outsize.plan.search.relaxation import least_again
from outsize.values import Decision, StepGraph
from plan_bench import Case, save

FLOPS_ONLY = Machine(flops=1e12, bandwidth=1e18, launch=0.0, links={})
SETTINGS = PlanSettings(moves=300, move_ops=75_000)
PROOF = Effort(gap=1e-4, seconds=30.0, rounds=3, cuts=16)
STEPS = {
    "gpt": gpt(FLOPS_ONLY, 8, 768, 1024, 8),
    "bert": bert(FLOPS_ONLY, 12, 768, 512, 32),
    "vit": vit(FLOPS_ONLY, 12, 768, 128),
    "resnet50": resnet(FLOPS_ONLY, 50, 128),
    "unet2d": unet(FLOPS_ONLY, 4, 32, 256, 16),
}


def block_ends(graph: StepGraph, family: str) -> list[int]:
    """Last op of each block: residual adds two by two, ResNet's last relu, every second relu of the U-Net."""
    forward = [op for op in graph.ops if op.phase == "forward"]
    if family == "resnet50":
        sums = {op.writes[0] for op in forward if op.target == "aten.add"}
        return [op.index for op in forward if op.target == "aten.relu" and set(op.reads) & sums]
    target = "aten.relu" if family == "unet2d" else "aten.add"
    return [op.index for op in forward if op.target == target][1::2]


def checkpointed(graph: StepGraph, ends: list[int]) -> tuple[Decision, ...]:
    """Every block recomputed as a whole."""
    split = next(op.index for op in graph.ops if op.phase == "outside")
    decisions = []
    for start, end in pairwise([-1, *ends]):
        inner = range(start + 1, end)
        made = {s for o in inner for s in graph.ops[o].writes if not graph.ops[o].random}
        saved = [s for s in graph.candidates() if s.index in made and s.uses and s.uses[-1] > split]
        if not saved:
            continue
        first = min(u for s in saved for u in s.uses if u > split)
        region = tuple(o for o in inner if not graph.ops[o].random)
        for s in saved:
            after = max([s.producer, *(u for u in s.uses if u < split)])
            before = min(u for u in s.uses if u > split)
            decisions.append(
                Decision(
                    storage=s.index, action="recompute", after=after, before=before, free_before=after + 1,
                    fetch_before=first, region=region,
                )
            )  # fmt: skip
    return tuple(decisions)


def least_flops(case: Case, budget: int) -> float:
    """A lower bound on FLOPs ÷ plain that any recompute-only plan of this graph needs."""
    problem = case.problem(budget, ("recompute",), SETTINGS)
    return 1 + least_again(problem, PROOF) * FLOPS_ONLY.flops / sum(op.flops for op in case.graph.ops)


rows = []
for family, (graph, profile) in STEPS.items():
    case = Case(graph, profile)
    total = sum(op.flops for op in graph.ops)
    schedule = lower_decisions(graph, checkpointed(graph, block_ends(graph, family)))
    peak = simulate(graph, profile, schedule).peak_bytes
    again = sum(graph.ops[e.op].flops for e in schedule.entries if e.kind == "clone")
    row: dict = {"family": family, "ops": len(graph.ops), "floor": case.floor / case.peak}
    row["block_checkpointing"] = {"peak": peak / case.peak, "flops": 1 + again / total}
    for share in (0.5, 1 / 3, peak / case.peak):
        plan = case.plan(int(share * case.peak), "search", ("recompute",), SETTINGS)
        row[f"least_at_{share:.3f}"] = least_flops(case, int(share * case.peak))
        row[f"search_at_{share:.3f}"] = 1 + plan.recomputed_flops / total if plan else None
    sweep: list[dict] = []
    lowest = max(case.floor / case.peak + 0.03, 0.25)
    for k in range(12):
        share = lowest + (0.97 - lowest) * k / 11
        plan = case.plan(int(share * case.peak), "search", ("recompute",), SETTINGS)
        if plan:
            flops = 1 + plan.recomputed_flops / total
            sweep.append({"budget": share, "peak": plan.predicted_peak_bytes / case.peak, "flops": flops})
    row["sweep"] = sweep
    row["peak_is_monotone"] = all(a["peak"] <= b["peak"] for a, b in pairwise(sweep))
    row["flops_are_monotone"] = all(a["flops"] >= b["flops"] for a, b in pairwise(sweep))
    print({k: v for k, v in row.items() if k != "sweep"}, flush=True)
    rows.append(row)
save(__file__, {"bars": {"0.500": 1.05, "0.333": 1.15}, "rows": rows})
