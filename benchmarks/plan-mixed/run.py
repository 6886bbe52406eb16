"""One plan from all actions against the best single action at equal budget, simulated.

How much can the link add? Bytes that a plan has away at a moment were written before it and are read behind it, so in a
step of T seconds they are at most T · out · in ÷ (out + in). A mixed plan thus recomputes no less than a plan by
recomputation that has so many bytes more: `link_limit` is the time of the one over that of the other, both as found.
"""

import sys
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.plan.families import FAMILIES, bert, resnet, vit
from tests.plan.nets import MACHINES

from outsize.plan import PlanSettings
from plan_bench import Case, save

SETTINGS = PlanSettings()
SINGLE = {"swap": ("swap",), "recompute": ("recompute",), "encode": ("encode",)}
STEPS = {
    **{name: make for name, make in FAMILIES.items() if name != "resnet152"},
    "resnet101": lambda m: resnet(m, 101, 48),
    "bert": lambda m: bert(m, layers=6, batch=32),
    "vit": lambda m: vit(m, layers=6, batch=96),
}


def link_limit(case: Case, budget: int, row: dict) -> float | None:
    """Best single action ÷ a recompute-only plan that gets the bytes which the link could have away."""
    (link,) = case.profile.links.values()
    out, back = link.out_bytes_per_second, link.in_bytes_per_second
    away = row["mixed"] * case.profile.seconds * out * back / (out + back)
    plan = case.plan(budget + int(away), "search", ("recompute",), SETTINGS)
    if plan is None:
        return None
    least = plan.predicted_step_seconds / plan.plain_step_seconds
    return min(row[name] for name in SINGLE if row[name] is not None) / min(least, row["mixed"])


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
            row["link_limit"] = link_limit(case, int(share * case.peak), row) if singles else None
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
        "median_link_limit": median(r["link_limit"] for r in rows if r["link_limit"]),
        "cases_where_the_link_allows_1.10": len(
            allowed := [r["best_single_over_mixed"] for r in rows if (r["link_limit"] or 0) >= 1.10]
        ),
        "median_where_the_link_allows_1.10": median(allowed),
        "no_single_action_fits_in": sum(r["best_single_over_mixed"] is None for r in rows),
        "rows": rows,
    },
)
