"""One plan from all actions against the best single action at equal budget, simulated.

How much can any plan gain? `most_gain_proved` is the time of the best single action over a proved bound: a program over
some positions (`outsize.plan.frontier`), a relaxation of every plan by swap and recompute, with what each lane can carry
between two of them. Encoding plays no part: these profiles have no codec rates.
"""

import sys
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.plan.families import FAMILIES, bert, resnet, vit
from tests.plan.nets import MACHINES

from outsize.plan import PlanSettings
from outsize.plan.follow import least_again
from outsize.plan.frontier import Effort
from plan_bench import Case, save

SETTINGS = PlanSettings()
SINGLE = {"swap": ("swap",), "recompute": ("recompute",), "encode": ("encode",)}
STEPS = {
    **{name: make for name, make in FAMILIES.items() if name != "resnet152"},
    "resnet101": lambda m: resnet(m, 101, 48),
    "bert": lambda m: bert(m, layers=6, batch=32),
    "vit": lambda m: vit(m, layers=6, batch=96),
}


#: How far a bound is taken.
PROOF = Effort(gap=1e-3, seconds=10.0, rounds=3, cuts=10)


def bound(case: Case, budget: int) -> float:
    """Step time ÷ plain below which no plan by swap and recompute gets."""
    return (
        1 + least_again(case.searched(budget, ("swap", "recompute"), SETTINGS), PROOF) / case.profile.seconds
    )


rows = []
for machine in ("v100-pcie3", "a100-pcie4", "h100-pcie5", "gh200-c2c", "a100-nvme"):
    for family, make in STEPS.items():
        case = Case(*make(MACHINES[machine]))
        lowest = max(0.25, 1.03 * case.floor / case.peak)
        for share in (lowest,):
            row: dict = {"machine": machine, "family": family, "budget_share": share}
            for name, actions in {**SINGLE, "mixed": ("swap", "recompute", "encode")}.items():
                plan = case.plan(int(share * case.peak), "search", actions, SETTINGS)
                row[name] = plan.predicted_step_seconds / plan.plain_step_seconds if plan else None
            singles = [row[name] for name in SINGLE if row[name] is not None]
            row["best_single_over_mixed"] = min(singles) / row["mixed"] if singles else None
            row["most_that_any_plan_could_gain"] = min(singles) if singles else None
            row["bound"] = bound(case, int(share * case.peak))
            row["most_gain_proved"] = min(singles) / row["bound"] if singles else None
            print(row, flush=True)
            rows.append(row)
gains = [r["best_single_over_mixed"] for r in rows if r["best_single_over_mixed"]]
limits = [r["most_that_any_plan_could_gain"] for r in rows if r["best_single_over_mixed"]]
save(
    __file__,
    {
        "cases": len(rows),
        "slower_than_best_single_in": sum(g < 1 - 1e-6 for g in gains),
        "worst": min(gains),
        "median": median(gains),
        "best": max(gains),
        "median_limit_best_single_over_plain": median(limits),
        "cases_where_a_gain_of_1.10_is_possible": sum(x >= 1.10 for x in limits),
        "median_where_possible": median(g for g, x in zip(gains, limits) if x >= 1.10),
        "median_most_gain_proved": median(r["most_gain_proved"] for r in rows if r["most_gain_proved"]),
        "cases_where_1.10_is_not_refuted": len(
            allowed := [r["best_single_over_mixed"] for r in rows if (r["most_gain_proved"] or 0) >= 1.10]
        ),
        "median_where_1.10_is_not_refuted": median(allowed),
        "median_mixed_over_bound": median(r["mixed"] / r["bound"] for r in rows),
        "no_single_action_fits_in": sum(r["best_single_over_mixed"] is None for r in rows),
        "rows": rows,
    },
)
