"""One plan from all actions against the best single action at equal budget, simulated.

At two budgets: a quarter of the plain peak, and the tightest that any plan can keep, 3 % above the floor, where that is
below a quarter. At a half the best single action costs 1.09 to 1.13 × plain on four of these steps, so that no plan at
all gains much.

Each network twice where it has a larger kind: what runs out of memory is rarely the base size, and a wider layer has
more seconds for each byte that it makes. VGG-16 is left out: one op of it needs 0.56 of the plain peak, and the claim is
about budgets up to one half.

How much can any plan gain? `most_gain_proved` is the time of the best single action over a proved bound: a program over
some positions (`outsize.plan.frontier`), a relaxation of every plan by swap and recompute, with what each lane can carry
between two of them. It leaves out encoding (and compressed swaps), which costs six passes over the memory here, more than
a normalisation and a ReLU run again; `decisions` says how often a plan has it.

The planner is asked for each action alone and for all together under the same settings, with an effort of 4.
"""

import sys
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.plan.families import _transformer, bert, gpt, resnet, unet, vit
from tests.plan.nets import MACHINES

from outsize.plan import PlanSettings
from outsize.plan.search.cuts import Effort
from outsize.plan.search.relaxation import least_again
from plan_bench import Case, save

SETTINGS = PlanSettings(effort=4)
SINGLE = {"swap": ("swap",), "recompute": ("recompute",), "encode": ("encode",)}
ALL = ("swap", "recompute", "encode")
STEPS = {
    "resnet50": lambda m: resnet(m, 50, 64),
    "gpt": gpt,
    "bert": lambda m: bert(m, layers=6, batch=32),
    "vit": lambda m: vit(m, layers=6, batch=96),
    "unet2d": unet,
    "unet3d": lambda m: unet(m, 3, 16, 96, 2, 3),
    "resnet101": lambda m: resnet(m, 101, 48),
    "gpt-xl": lambda m: _transformer(m, 6, 1600, 25, 1024, 8, dropout=False, pre=True),
    "bert-large": lambda m: _transformer(m, 6, 1024, 16, 512, 16, dropout=True, pre=False),
    "vit-huge": lambda m: _transformer(m, 6, 1280, 20, 257, 64, dropout=False, pre=True),
}
BASE = ("resnet50", "gpt", "bert", "vit", "unet2d", "unet3d")
LINKS = ("v100-pcie3", "a100-pcie4", "h100-pcie5", "gh200-c2c", "a100-nvme")
#: How far a bound is taken.
PROOF = Effort(gap=1e-3, seconds=10.0, rounds=3, cuts=10)


def bound(case: Case, budget: int) -> float:
    """Step time ÷ plain below which no plan by swap and recompute gets."""
    problem = case.problem(budget, ("swap", "recompute"), SETTINGS)
    return 1 + least_again(problem, PROOF) / case.profile.seconds


def row_of(name: tuple[str, str, str]) -> dict | None:
    machine, family, kind = name
    case = Case(*STEPS[family](MACHINES[machine]))
    least = 1.03 * case.floor / case.peak
    share = max(0.25, least) if kind == "quarter" else least
    if kind == "tight" and least >= 0.25:
        return None
    assert share <= 0.5, f"{family} needs more than half of its peak"
    budget = int(share * case.peak)
    row: dict = {"machine": machine, "family": family, "budget": kind, "budget_share": share}
    for action, actions in {**SINGLE, "mixed": ALL}.items():
        plan = case.plan(budget, "search", actions, SETTINGS)
        row[action] = plan.predicted_step_seconds / plan.plain_step_seconds if plan else None
        if action == "mixed" and plan:
            row["decisions"] = dict(Counter(d.action for d in plan.decisions))
    assert row["mixed"], "no mixed plan"
    single = min(row[action] for action in SINGLE if row[action] is not None)
    row |= {"best_single": single, "gain": single / row["mixed"]}
    if kind == "quarter":
        row["bound"] = bound(case, budget)
        row["most_gain_proved"] = single / row["bound"]
    print(row, flush=True)
    return row


def summary(rows: list[dict]) -> dict:
    return {
        "cases": len(rows),
        "slower_than_best_single_in": sum(r["gain"] < 1 - 1e-6 for r in rows),
        "worst": min(r["gain"] for r in rows),
        "median": median(r["gain"] for r in rows),
        "best": max(r["gain"] for r in rows),
        "median_best_single_over_plain": median(r["best_single"] for r in rows),
        "plans_that_encode": sum(any("encode" in a for a in r["decisions"]) for r in rows),
    }


def proved(rows: list[dict]) -> dict:
    """What the bounds say."""
    allowed = [r["gain"] for r in rows if r["most_gain_proved"] >= 1.10]
    return {
        "median_most_gain_proved": median(r["most_gain_proved"] for r in rows),
        "cases_where_1.10_is_not_refuted": len(allowed),
        "median_where_1.10_is_not_refuted": median(allowed) if allowed else None,
        "median_mixed_over_bound": median(r["mixed"] / r["bound"] for r in rows),
    }


if __name__ == "__main__":
    cases = [(m, f, k) for k in ("tight", "quarter") for m in LINKS for f in STEPS]
    with ProcessPoolExecutor(2) as pool:
        made = [row for row in pool.map(row_of, cases) if row]
    tight = [row for row in made if row["budget"] == "tight"]
    rows = [row for row in made if row["budget"] == "quarter"]
    result = {
        "networks": list(STEPS),
        "both_budgets": summary(made),
        "tight": summary(tight)
        | {"where_no_single_action_but_swap_fits": sum(not r["recompute"] for r in tight)},
        "tight_machines": {m: summary([r for r in tight if r["machine"] == m]) for m in LINKS},
        "all": summary(rows) | proved(rows),
        "base_sizes": summary([r for r in rows if r["family"] in BASE]),
        "larger_sizes": summary([r for r in rows if r["family"] not in BASE]),
        "machines": {
            m: summary(of) | proved(of) for m in LINKS if (of := [r for r in rows if r["machine"] == m])
        },
        "rows": made,
    }
    save(__file__, result)
