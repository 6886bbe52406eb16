"""Does the slack rule stall less than TFLMSv2's distance rule at equal budget?  (Method 2, claim C2.7.)

Every family of the zoo in its test size, whose links are slowed down so that its transfers weigh as much against its
operators as those of a ResNet-50 at 224² do against the disk here; both planners at five budgets; the stall is that
of the simulator, which shares no code with either rule.
`python run.py` writes `result.json` beside itself.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
from pathlib import Path
from typing import Any

from outsize import api, zoo
from outsize.decide import Options, decide
from outsize.errors import BudgetError
from outsize.plan import PlanSettings, Request, lower, make_plan, simulate
from outsize.slack import compute_slack
from outsize.values import LinkRate, Profile, StepGraph

PLACES = (0.0, 0.2, 0.4, 0.6, 0.8)
FAMILIES = ("autoencoder", "vgg16", "unet2d", "gpt", "gpt-tied", "vit", "resnet50", "unet3d", "lstm")
#: Time to move all activations out and in over the time to compute, for ResNet-50 on this disk.
WEIGHT = 0.9


def case(name: str) -> tuple[StepGraph, Profile]:
    """A family's step with measured costs and a link of the chosen weight."""
    work = zoo.load(name, seed=0, tiny=True)
    args = work.example().args
    step = api.capture(work.module, args)
    made = decide(
        step,
        api._unlearned(work.module, args, step, None),
        Options(request=Request(budget_bytes=2**62, actions=())),
    )
    moved = 2 * sum(s.nbytes for s in made.graph.candidates())
    rate = moved / (WEIGHT * made.profile.seconds)
    link = LinkRate(out_bytes_per_second=rate, in_bytes_per_second=rate, shared=True)
    return made.graph, Profile(ops=made.profile.ops, links={"disk": link})


def stall(graph: StepGraph, profile: Profile, budget: int, planner: str) -> float:
    """Simulated stall in seconds. Raises BudgetError below the smallest budget."""
    made = make_plan(
        graph,
        profile,
        compute_slack(graph, profile),
        Request(
            budget_bytes=budget, planner=planner, actions=("swap",), settings=PlanSettings(min_bytes=256)
        ),
    )
    return simulate(graph, profile, lower(graph, made)).stall_seconds


def family(name: str) -> list[dict[str, Any]]:
    graph, profile = case(name)
    plain = max(graph.plain_residency(profile.workspace))
    try:
        stall(graph, profile, 1, "slack")
        smallest = 1
    except BudgetError as error:
        smallest = error.smallest_feasible_bytes
    rows = []
    for place in PLACES:
        budget = int(smallest + place * (plain - smallest))
        found = {planner: stall(graph, profile, budget, planner) for planner in ("slack", "distance")}
        rows.append(
            {"family": name, "place": place, "budget": budget, "step_seconds": profile.seconds, **found}
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("result.json"))
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for name in FAMILIES:
        rows += family(name)
        print(name, file=sys.stderr, flush=True)
        write(options.out, rows)


def write(out: Path, rows: list[dict[str, Any]]) -> None:
    """Figures over the families so far."""
    shares = [row["slack"] / row["distance"] for row in rows if row["distance"] > 1e-3 * row["step_seconds"]]
    longer = [r for r in rows if r["slack"] > r["distance"] + 1e-3 * r["step_seconds"]]
    families = {r["family"] for r in rows}
    totals = {
        name: {p: sum(r[p] for r in rows if r["family"] == name) for p in ("slack", "distance")}
        for name in families
    }
    result = {
        "summary": {
            "families": len(families),
            "cases": len(rows),
            "slack_stalls_longer_in_cases": len(longer),
            "slack_stalls_longer_in_families": sorted(
                n for n, t in totals.items() if t["slack"] > t["distance"] * 1.001
            ),
            "median_stall_slack_over_distance": statistics.median(shares) if shares else None,
        },
        "machine": {
            "python": platform.python_version(),
            "cores": os.cpu_count(),
            "system": platform.platform(),
        },
        "families": totals,
        "rows": rows,
    }
    out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result["summary"], indent=1))


if __name__ == "__main__":
    main()
