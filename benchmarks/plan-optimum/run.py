"""Cost of the search's plans against the MILP's bound on small steps.

By recomputation alone the MILP is exact. With swaps it is a relaxation (transfers may be cut into pieces), so the
ratio is an upper limit of the true distance to the optimum.
"""

import sys
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.plan.families import _transformer, unet, vgg
from tests.plan.graphs import chain, random_step
from tests.plan.nets import CPU, V100_PCIE3

from outsize.errors import BudgetError
from outsize.plan import PlanSettings
from outsize.plan.exact import lower_bound
from outsize.plan.model import build_model
from outsize.plan.request import Request
from outsize.plan.search import Search
from plan_bench import Case, save

SETTINGS = PlanSettings(
    min_bytes=1, margin=0.0, walks=300, exact_seconds=float(sys.argv[1]) if sys.argv[1:] else 45
)
STEPS = {
    **{f"chain{n}": chain(n, rate=70.0) for n in (5, 8, 12)},
    **{f"random{seed}": random_step(seed, ops=6) for seed in range(10)},
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
            model = build_model(
                graph, profile, case.slack, budget_bytes=case.between(share), settings=SETTINGS
            )
            tiers = case.tiers if "swap" in actions else ()
            search = Search(model, Request(actions=actions, tiers=tiers, lossy={}))
            bound = lower_bound(search)
            try:
                found = search.planned().seconds
            except BudgetError:
                found = None
            row = {
                "step": name,
                "ops": len(graph.ops),
                "actions": actions,
                "share": share,
                "plan_seconds": found,
            }
            row |= {"bound_seconds": bound.seconds, "proved": bound.proved, "feasible": bound.feasible}
            row["ratio"] = found / bound.seconds if found and bound.feasible else None
            print(row, flush=True)
            rows.append(row)


def summary(rows: list[dict]) -> dict:
    found = {}
    for kind in ("network", "random"):
        for actions in (("recompute",), ("swap",), ("swap", "recompute")):
            ratios = [
                r["ratio"]
                for r in rows
                if r["actions"] == actions and r["ratio"] and r["proved"]
                and r["step"].startswith("random") == (kind == "random")
            ]  # fmt: skip
            if ratios:
                found[f"{kind} steps, {'+'.join(actions)}"] = {
                    "cases": len(ratios), "median": median(ratios), "worst": max(ratios),
                }  # fmt: skip
    return found


unproved = sum(not r["proved"] for r in rows)
save(__file__, {"summary": summary(rows), "unsolved_in_time": unproved, "rows": rows})
