"""Cost of the search's plans against the optimum of small steps.

The optimum is that of `labels`: transfers whole, lanes first in, first out, every plan checked and simulated. Where it
stays open within the time, the row has the interval between the larger of the two proved bounds (labels, and the MILP,
to which transfers are fluid) and the best plan known.
"""

import sys
from math import inf
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.plan.families import _transformer, unet, vgg
from tests.plan.graphs import chain, random_step
from tests.plan.nets import CPU, V100_PCIE3

from outsize.errors import BudgetError
from outsize.plan import PlanSettings
from outsize.plan.model import build_model
from outsize.plan.planners.exact import lower_bound
from outsize.plan.request import Request
from outsize.plan.search.optimum import optimum
from outsize.plan.search.problem import Problem
from outsize.plan.search.search import fastest
from plan_bench import Case, save

SETTINGS = PlanSettings(
    min_bytes=1, margin=0.0, moves=300, effort=4, exact_seconds=float(sys.argv[1]) if sys.argv[1:] else 10
)
STEPS = {
    **{f"chain{n}": chain(n, rate=70.0) for n in (5, 8, 12)},
    **{f"random{seed}": random_step(seed, ops=6) for seed in range(6)},
    "gpt1": _transformer(V100_PCIE3, 1, 512, 8, 512, 16, dropout=False, pre=True),
    "unet1": unet(CPU, 1, 16, 128, 4),
    "vgg-part": vgg(V100_PCIE3, 16, 96),
}
rows = []
for name, (graph, profile) in STEPS.items():
    if len(graph.ops) > SETTINGS.exact_ops:
        continue
    case = Case(graph, profile)
    for actions in (("recompute",), ("swap",), ("swap", "recompute")):
        for share in (0.15, 0.35, 0.6):
            request = Request(
                budget_bytes=case.between(share),
                actions=actions,
                tiers=case.tiers if "swap" in actions else (),
                settings=SETTINGS,
            )
            problem = Problem.of(build_model(graph, profile, case.slack, request))
            bound = lower_bound(problem)
            try:
                found = fastest(problem).seconds
            except BudgetError:
                found = None
            row = {
                "step": name,
                "ops": len(graph.ops),
                "actions": actions,
                "share": share,
                "plan_seconds": found,
            }
            row |= {
                "milp_seconds": bound.seconds if bound.feasible else None,
                "milp_proved": bound.proved,
                "feasible": bound.feasible,
            }
            best = optimum(
                problem, known=found or inf, bound=bound.seconds if bound.feasible else 0.0,
                seconds=SETTINGS.exact_seconds,
            )  # fmt: skip
            row |= {"best_seconds": best.seconds, "bound_seconds": best.bound} if best.seconds < inf else {}
            row["solved"] = best.seconds <= best.bound * 1.0002
            row["ratio"] = found / best.seconds if found else None
            row["ratio_to_bound"] = found / best.bound if found else None
            print(row, flush=True)
            rows.append(row)


def summary(rows: list[dict]) -> dict:
    found = {}
    for kind in ("network", "random"):
        for actions in (("recompute",), ("swap",), ("swap", "recompute")):
            of_kind = [
                r for r in rows
                if r["actions"] == actions and r["ratio"] and r["step"].startswith("random") == (kind == "random")
            ]  # fmt: skip
            solved = [r["ratio"] for r in of_kind if r["solved"]]
            open_ = [r["ratio_to_bound"] for r in of_kind if not r["solved"]]
            if of_kind:
                found[f"{kind} steps, {'+'.join(actions)}"] = {
                    "cases": len(solved), "median": median(solved) if solved else None,
                    "worst": max(solved, default=None), "open": len(open_),
                    "open_worst": max(open_, default=None),
                    "open_worst_to_best_known": max((r["ratio"] for r in of_kind if not r["solved"]), default=None),
                }  # fmt: skip
    return found


unplanned = sum(r["plan_seconds"] is None and r["feasible"] for r in rows)
save(__file__, {"summary": summary(rows), "feasible_without_plan": unplanned, "rows": rows})
