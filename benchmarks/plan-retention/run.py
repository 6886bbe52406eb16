"""Recompute-only plans of the families in which something small that nobody saves lies before something large.

Each family twice: spelt on the tape of `tests/plan/nets.py`, and captured from a torch module (`modules.py`). Each at
0.7, 0.5 and a third of its plain peak, on a processor's roofline: predicted seconds and FLOPs over the plain step's, and
the seconds over a proved lower bound, a program over ten positions. Where they are more than 5 % apart the program is
solved again over twenty positions, for longer; where it is loose the true ratio is smaller.

The smallest budget that recomputation alone fits stands beside the floor that no plan at all goes below, and, between
the two, the largest budget for which a program over some positions shows that no recomputation fits; and what the same
passes get through when they may retain nothing.

How loose is the bound near the smallest budget? Two families with fewer layers, 4 % above it, stand beside the program
over every position of the step (`planners/exact.py`), which is too large for the families themselves.

python benchmarks/plan-retention/run.py [family … | shallow]    the others keep the rows that they have
"""

import json
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2]))
from modules import MODULES, captured
from tests.plan.families import RETAINING, dense_stage, gnn, unet
from tests.plan.nets import CPU

from outsize.plan import PlanSettings
from outsize.plan.planners.exact import lower_bound
from outsize.plan.search import smallest
from outsize.plan.search.cuts import Effort
from outsize.plan.search.relaxation import least_again, optima
from outsize.plan.search.search import fastest
from outsize.plan.settings import SMALLEST_WITHIN
from outsize.values import Profile, StepGraph
from plan_bench import Case, save

SETTINGS = PlanSettings(margin=0.0)
PROOF = Effort(gap=1e-3, seconds=10.0, rounds=2, cuts=10)
LONGER = Effort(gap=1e-3, seconds=40.0, rounds=4, cuts=20)
REFUTED = Effort(gap=0.5, seconds=5.0, rounds=4, cuts=12)
SHARES = (0.7, 0.5, 1 / 3)
BARS = {"median_over_bound": 1.01, "worst_over_bound": 1.05}
STEPS: dict[str, Callable[[], tuple[StepGraph, Profile]]] = {
    **{name: lambda make=make: make(CPU) for name, make in RETAINING.items()},  # type: ignore[misc]
    "unet2d": lambda: unet(CPU),
    **{f"{name}, captured": lambda name=name: captured(name) for name in MODULES},  # type: ignore[misc]
}

SHALLOW: dict[str, Callable[[], tuple[StepGraph, Profile]]] = {
    "dense-stage of 3 layers": lambda: dense_stage(CPU, layers=3),
    "gnn of 2 layers": lambda: gnn(CPU, layers=2),
}


def shallow(name: str) -> dict:
    """A plan, the bound over some positions, and that over all."""
    settings = PlanSettings(margin=0.0, exact_seconds=50.0)
    case = Case(*SHALLOW[name]())
    least = smallest.smallest_budget(case.problem(case.peak, ("recompute",), settings))
    problem = case.problem(int(1.04 * least), ("recompute",), settings)
    everywhere, plain = lower_bound(problem), case.profile.seconds
    return {
        "family": name, "ops": len(case.graph.ops), "budget": 1.04 * least / case.peak,
        "seconds": fastest(problem).seconds / plain, "bound": 1 + least_again(problem, LONGER) / plain,
        "bound_of_every_position": everywhere.seconds / plain, "proved": everywhere.proved,
    }  # fmt: skip


def refuted(case: Case, low: int, high: int) -> int:
    """The largest budget seen for which no plan by recomputation fits, to a fiftieth of what lies between."""
    within = max(1, (high - low) // 50)
    while high - low > within:
        middle = (low + high) // 2
        found = optima(
            case.problem(middle, ("recompute",), SETTINGS), middle, REFUTED, retain=retainable(case)
        )
        if any(not one.feasible for one in found):
            low = middle
        else:
            high = middle
    return low


def without_retention(case: Case) -> int:
    """The smallest budget of the same passes, none of which retains anything."""
    problem = case.problem(case.peak, ("recompute",), SETTINGS)
    policies = [replace(policy, retain=frozenset()) for policy in smallest._policies(problem)]
    low, high = case.floor, case.peak
    while high - low > max(1, int(high * SMALLEST_WITHIN)):
        middle = (low + high) // 2
        through = any(smallest._gets_through(problem, policy, middle) for policy in policies)
        low, high = (low, middle) if through else (middle, high)
    return high


def retainable(case: Case) -> list[int]:
    return case.problem(case.peak, ("recompute",), SETTINGS).retainable


def point(case: Case, share: float) -> dict | None:
    """What the plan costs at a share of the peak, and what no plan costs less than."""
    budget, start = int(share * case.peak), time.process_time()
    plan = case.plan(budget, "search", ("recompute",), SETTINGS)
    if plan is None:
        return None
    planning, problem = time.process_time() - start, case.problem(budget, ("recompute",), SETTINGS)
    seconds = plan.predicted_step_seconds / plan.plain_step_seconds
    bound = 1 + least_again(problem, PROOF) / case.profile.seconds
    if longer := seconds > BARS["worst_over_bound"] * bound:
        bound = max(bound, 1 + least_again(problem, LONGER) / case.profile.seconds)
    return {
        "budget": share, "seconds": seconds, "bound": bound, "over_bound": seconds / bound, "longer_proof": longer,
        "flops": 1 + plan.recomputed_flops / plan.plain_flops, "planning_cpu_seconds": planning,
        "retained": sum(r.reason == "RETAINED" for r in plan.refusals),
    }  # fmt: skip


def row_of(name: str) -> dict:
    case = Case(*STEPS[name]())
    least = smallest.smallest_budget(case.problem(case.peak, ("recompute",), SETTINGS))
    row: dict = {"family": name, "ops": len(case.graph.ops), "floor": case.floor / case.peak}
    row |= {"smallest": least / case.peak, "smallest_retaining_nothing": without_retention(case) / case.peak}
    row |= {"refuted": refuted(case, case.floor, least) / case.peak}
    return row | {"points": [one for share in SHARES if (one := point(case, share)) is not None]}


def main(wanted: list[str]) -> None:
    path = Path(__file__).with_name("result.json")
    result = json.loads(path.read_text()) if path.is_file() else {"rows": []}
    known = {row["family"]: row for row in result["rows"]}
    names = [name for name in wanted if name in STEPS] if wanted else list(STEPS)
    if not wanted or "shallow" in wanted:
        result["shallow"] = [shallow(name) for name in SHALLOW]
        print(result["shallow"], flush=True)
    for name in [*names, ""]:
        if name:
            known[name] = row_of(name)
            print(known[name], flush=True)
        rows = [known[name] for name in STEPS if name in known]
        over = [one["over_bound"] for row in rows for one in row["points"]]
        found = {"median_over_bound": median(over), "worst_over_bound": max(over)}
        save(__file__, {**result, "bars": BARS, **found, "rows": rows})


if __name__ == "__main__":
    main(sys.argv[1:])
