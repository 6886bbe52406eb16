"""Stall of the slack rule against TFLMSv2's distance rule at equal budget, simulated."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.plan.families import FAMILIES
from tests.plan.nets import CPU, MACHINES

from plan_bench import Case, save

rows = []
for machine, rates in {"cpu-disk": CPU, **MACHINES}.items():
    for family, make in FAMILIES.items():
        case = Case(*make(rates))
        for share in (0.0, 0.2, 0.4, 0.6, 0.8):
            budget = case.between(share)
            stall = {}
            for planner in ("slack", "distance"):
                plan = case.plan(budget, planner, ("swap",))
                assert plan is not None
                stall[planner] = plan.predicted_step_seconds - plan.plain_step_seconds
            rows.append({"machine": machine, "family": family, "budget_share": budget / case.peak, **stall})
higher = [r for r in rows if r["slack"] > r["distance"] + 1e-9]
some = sorted(r["slack"] / r["distance"] for r in rows if r["distance"] > 1e-9)
save(
    __file__,
    {
        "cases": len(rows),
        "slack_stalls_longer_in": len(higher),
        "median_stall_ratio_slack_over_distance": some[len(some) // 2],
        "worst_stall_ratio": some[-1],
        "rows": rows,
    },
)
