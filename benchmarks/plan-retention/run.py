"""Recompute-only plans of the families in which something small that nobody saves lies before something large.

Each at 0.7, 0.5 and a third of its plain peak, on a processor's roofline: predicted seconds and FLOPs over the plain
step's, and the seconds over a proved lower bound (a program over ten positions; where it is loose the true ratio is
smaller). The smallest budget that recomputation alone fits stands beside the floor that no plan at all goes below.

python benchmarks/plan-retention/run.py [family …]
"""

import sys
import time
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.plan.families import RETAINING
from tests.plan.nets import CPU

from outsize.plan import PlanSettings
from outsize.plan.search.cuts import Effort
from outsize.plan.search.relaxation import least_again
from outsize.plan.search.smallest import smallest_budget
from plan_bench import Case, save

SETTINGS = PlanSettings(margin=0.0)
PROOF = Effort(gap=1e-3, seconds=10.0, rounds=2, cuts=10)
SHARES = (0.7, 0.5, 1 / 3)

rows = []
for name in sys.argv[1:] or RETAINING:
    case = Case(*RETAINING[name](CPU))
    smallest = smallest_budget(case.problem(case.peak, ("recompute",), SETTINGS))
    row: dict = {"family": name, "ops": len(case.graph.ops), "floor": case.floor / case.peak}
    row |= {"smallest": smallest / case.peak, "points": []}
    for share in SHARES:
        budget, start = int(share * case.peak), time.process_time()
        plan = case.plan(budget, "search", ("recompute",), SETTINGS)
        if plan is None:
            continue
        planning = time.process_time() - start
        bound = 1 + least_again(case.problem(budget, ("recompute",), SETTINGS), PROOF) / case.profile.seconds
        seconds = plan.predicted_step_seconds / plan.plain_step_seconds
        row["points"].append({
            "budget": share, "seconds": seconds, "bound": bound, "over_bound": seconds / bound,
            "flops": 1 + plan.recomputed_flops / plan.plain_flops, "planning_cpu_seconds": planning,
            "retained": sum(r.reason == "RETAINED" for r in plan.refusals),
        })  # fmt: skip
    print(row, flush=True)
    rows.append(row)
    over = [point["over_bound"] for one in rows for point in one["points"]]
    save(
        __file__,
        {
            "bars": {"median_over_bound": 1.01, "worst_over_bound": 1.05},
            "median_over_bound": median(over),
            "worst_over_bound": max(over),
            "rows": rows,
        },
    )
