"""Writes the planner benchmarks' READMEs and the table in docs/planning.md from their committed results.

python benchmarks/plan_readme.py
"""

from __future__ import annotations

import json
import re
from math import floor
from pathlib import Path

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "planning.md"
MACHINE = (
    "simulated steps of `tests/plan/families.py` (rooflines of `tests/plan/nets.py`); two shared x86 cores"
)


def load(name: str) -> dict | None:
    path = HERE / f"plan-{name}" / "result.json"
    return json.loads(path.read_text()) if path.is_file() else None


def retention(r: dict) -> list[str]:
    lines = [
        f"{sum(len(row['points']) for row in r['rows'])} points of {len(r['rows'])} families on a processor's roofline: "
        f"predicted seconds over the proved bound {r['median_over_bound']:.4f} × in the median, "
        f"{r['worst_over_bound']:.4f} × at worst (bars {r['bars']['median_over_bound']} and "
        f"{r['bars']['worst_over_bound']}); {sum(_open(p, r) for row in r['rows'] for p in row['points'])} above the "
        "second."
    ]
    for row in r["rows"]:
        points = ", ".join(
            f"{p['seconds']:.4f} × at {p['budget']:.3f} (no plan less than {p['bound']:.4f} ×; FLOPs {p['flops']:.4f} ×, "
            f"{p['retained']} kept{', open after a longer proof' if _open(p, r) else ''})"
            for p in row["points"]
        )
        lines.append(
            f"{row['family']} ({row['ops']} ops): {points}; smallest budget {row['smallest']:.3f} of the peak "
            f"({row['smallest_retaining_nothing']:.3f} where nothing is retained), none found to be impossible above "
            f"{row['refuted']:.3f}, floor of any plan {row['floor']:.3f}."
        )
    for few in r.get("shallow", ()):
        lines.append(
            f"How loose the bound is: {few['family']} ({few['ops']} ops) at {few['budget']:.3f}, 4 % above its smallest "
            f"budget: plan {few['seconds']:.4f} ×, bound {few['bound']:.4f} ×; over every position "
            f"{floored(few['bound_of_every_position'])} ×{'' if few['proved'] else ', where the time ended'}."
        )
    return lines


def _open(point: dict, r: dict) -> bool:
    return bool(point["over_bound"] > r["bars"]["worst_over_bound"])


def slack_distance(r: dict) -> list[str]:
    return [
        f"{r['cases']} cases (8 families, 7 machines, 5 budgets from the floor up): the slack rule stalls longer in "
        f"{r['slack_stalls_longer_in']}; median stall {r['median_stall_ratio_slack_over_distance']:.2f} × the "
        f"distance rule's, worst {r['worst_stall_ratio']:.2f} ×."
    ]


def recompute(r: dict) -> list[str]:
    lines = []
    for row in r["rows"]:
        at = {k: v for k, v in row.items() if k.startswith("search_at_")}
        found = ", ".join(
            f"{v:.4f} × at {float(k.removeprefix('search_at_')):.3f} (no plan less than "
            f"{floored(row[k.replace('search', 'least')])} ×)"
            for k, v in at.items() if v
        )  # fmt: skip
        block = row["block_checkpointing"]
        lines.append(
            f"{row['family']}: FLOPs {found}; block checkpointing {block['flops']:.3f} × at {block['peak']:.3f}; "
            f"12-point sweep: peak monotone {row['peak_is_monotone']}."
        )
    return lines


def hybrid(r: dict) -> list[str]:
    return [
        f"{row['machine']}, ResNet-{row['depth']} at {row['size']}², budget {row['budget_share']} × plain: swap only "
        f"{row['swap_only']:.2f} ×, units {row['units']:.2f} ×, search {row['search']:.2f} × the plain step; gain "
        f"{row['gain_units']:.2f} × and {row['gain_search']:.2f} ×, most possible {row['most_possible']:.2f} ×."
        for row in r["rows"]
        if row["units"] and row["search"]
    ]


def mixed(r: dict) -> list[str]:
    every, base, larger = r["all"], r["base_sizes"]["median"], r["larger_sizes"]["median"]
    tight, both = r["tight"], r["both_budgets"]
    return [
        f"Both budgets, {both['cases']} cases: mixed slower than the best single action in "
        f"{both['slower_than_best_single_in']}; {both['median']:.3f} × faster in the median.",
        "At the tightest budgets (1.03 × floor, where that is below a quarter of the plain peak; "
        f"{tight['cases']} cases, in {tight['where_no_single_action_but_swap_fits']} of which no single action but "
        f"swapping fits): {tight['median']:.2f} × faster in the median, {tight['worst']:.2f} to {tight['best']:.1f} ×. "
        + "; ".join(f"{m} {found['median']:.2f} ×" for m, found in r["tight_machines"].items())
        + ".",
        f"At a quarter: {every['cases']} cases ({len(r['machines'])} machines, {len(r['networks'])} networks of usual "
        f"and larger sizes, budget 0.25 or 1.03 × floor, at most 0.5): mixed slower than the best single action in "
        f"{every['slower_than_best_single_in']}; {every['median']:.3f} × faster in the median (usual sizes {base:.3f}, "
        f"larger {larger:.3f}), {every['best']:.2f} × at best.",
        f"By machine: {'; '.join(_by_machine(*pair) for pair in r['machines'].items())}.",
        "Limit: a bound is proved for each case (a program over ten positions, a relaxation of every plan by swap and "
        f"recompute): no such plan is more than {every['median_most_gain_proved']:.3f} × faster than the best single "
        f"action in the median, and 1.10 × is refuted in all but {every['cases_where_1.10_is_not_refuted']} cases, "
        f"where the median is {every['median_where_1.10_is_not_refuted']:.3f} ×. The mixed plans take "
        f"{every['median_mixed_over_bound']:.3f} × the bound in the median; {every['plans_that_encode']} of them encode "
        "too, which the bound does not cover.",
    ]


def _by_machine(name: str, found: dict) -> str:
    return f"{name} {found['median']:.3f} × in the median, at most {found['median_most_gain_proved']:.3f} ×"


def baselines(r: dict) -> list[str]:
    lines = [
        f"{r['compared_points']} points of the baselines (full block checkpointing, and the best of "
        "`activation_memory_budget` 0.1 to 0.7 with each of four solvers, 0 and 1; of DenseNet its own scheme): "
        "ours needs more FLOPs at the same "
        f"peak in {r['more_flops_than_a_baseline_in']}, of which {r['of_them_repeat_a_draw']} with a draw of random "
        "numbers repeated in the backward, which no plan here may do; ours ÷ theirs "
        f"{r['median_flops_ours_over_theirs']:.4f} in the median."
    ]
    for row in r["rows"]:
        block, low = row["block_checkpointing"], min(row["torch_front"], key=lambda p: p["peak"])
        at = ", ".join(
            f"{f'{v:.4f} ×' if v else 'none'} at {k} (no plan less than {floored(row['least_at'][k])} ×)"
            for k, v in row["at"].items()
        )
        if (scheme := row.get("memory_efficient")) is not None:
            at += (
                f"; the memory-efficient scheme {scheme['flops']:.4f} × at {scheme['peak']:.3f} (ours "
                f"{scheme['ours']:.4f} ×)"
            )
        lines.append(
            f"{row['family']} ({row['ops']} ops): FLOPs {at}; block checkpointing {block['flops']:.3f} × at "
            f"{block['peak']:.3f} (ours {_times(block['ours'])}); torch's lowest peak {low['flops']:.3f} × at "
            f"{low['peak']:.3f} (ours {_times(low['ours'])})."
        )
    return lines


def floored(bound: float) -> str:
    """A lower bound to four digits, never rounded up."""
    return f"{floor(bound * 1e4) / 1e4:.4f}"


def _times(value: float | None) -> str:
    return f"{value:.3f} ×" if value else "none"


def predicted(r: dict) -> list[str]:
    within = ", ".join(f"{name} {value:.3f}" for name, value in r["within_network"].items())
    return [
        f"{r['plans']} plans of {len(r['within_network'])} networks on {r['threads']} threads, over the disk and over it "
        "slowed down to 150 MB/s: Spearman "
        f"{r['spearman']:.3f} over seconds (bar {r['bar']}), {r['spearman_of_slowdowns']:.3f} over slowdowns; within a "
        f"network {within}."
    ]


def largest(r: dict) -> list[str]:
    lines = [
        f"{row['model']}, {row['budget_bytes'] / 2**30:.0f} GiB: plain {row['plain']}, planned "
        f"{row['swap+recompute']['batch']} ({row['gain']:.1f} ×, "
        f"{row['swap+recompute']['step_over_plain_per_sample']:.2f} × the plain time per sample; swap alone "
        f"{row['swap']['batch']}), any plan at most {row['limit_of_any_plan']}."
        for row in r["rows"]
    ]
    run, last = r["run"], r["run"]["ran"][-1]
    lines.append(
        f"Run for real, ResNet-50 at {run['size']}²: the plain peak of batch {run['plain_batch']}, {run['budget_bytes']} "
        f"bytes, holds batch {last['batch']} (measured peak {last['measured_peak_bytes']}"
        + (f"; batch {run['refused']['batch']} is refused" if "refused" in run else "") + ")."
    )  # fmt: skip
    return lines


def optimum(r: dict) -> list[str]:
    lines = []
    for name, s in r["summary"].items():
        solved = (
            f"{s['cases']} solved cases, plan ÷ optimum {s['median']:.4f} in the median, {s['worst']:.3f} at worst"
            if s["cases"] else "no solved case"
        )  # fmt: skip
        still = (
            f"; {s['open']} open, plan ÷ best known {s['open_worst_to_best_known']:.3f} and plan ÷ proved bound "
            f"{s['open_worst']:.3f} at worst"
            if s.get("open") else ""
        )  # fmt: skip
        lines.append(f"{name}: {solved}{still}.")
    return [
        *lines,
        "The optimum has whole transfers on lanes that serve first in, first out (`labels`); a case counts as solved "
        "where the best plan known and the proved bound are within 0.02 %. Plans with an effort of 4.",
        "Budgets that the MILP holds for feasible and the search finds no plan for: "
        f"{r.get('feasible_without_plan', 'not counted')}.",
    ]


def times(r: dict) -> list[str]:
    return [
        f"{row['ops']} ops {row.get('model', '')}, `{row['planner']}`{_effort(row)}: {row['seconds']:.2f} s of CPU time."
        for row in r["rows"]
    ]


def _effort(row: dict) -> str:
    return f", effort {row['effort']}" if row.get("effort", 1) > 1 else ""


def bitwise(r: dict) -> list[str]:
    s = r["summary"]
    return [
        f"{s['plans']} plans (networks of the zoo at tiny sizes, four planners, five budgets each), of which "
        f"{s['plans_that_act']} act, by {', '.join(s['actions'])}: {s['equal']} equal to the plain steps to the bit; "
        f"measured peak at worst {s['worst_measured_over_budget']:.4f} × the budget."
    ]


BENCHMARKS = {
    "slack-distance": (
        "The slack rule against TFLMSv2's distance rule at equal budget (C2.7)",
        slack_distance,
    ),
    "recompute": ("FLOPs of recompute-only plans at a given peak; monotone peak", recompute),
    "retention": ("Recompute-only plans that keep storages beyond their last use", retention),
    "baselines": ("Recompute-only plans beside torch's memory budget and block checkpointing", baselines),
    "hybrid": ("Swap and recompute units against swapping alone (method 4)", hybrid),
    "mixed": ("One plan from all actions against the best single action", mixed),
    "optimum": ("The search's plans against the optimum", optimum),
    "time": ("Planning time", times),
    "predicted": ("Predicted against measured step time", predicted),
    "bitwise": ("Every network under every planner, bit for bit", bitwise),
    "largest-batch": ("The largest batch under a fixed budget", largest),
}


def main() -> None:
    table = []
    for name, (claim, lines) in BENCHMARKS.items():
        result = load(name)
        if result is None:
            continue
        text = lines(result) + ([f"Note: {result['note']}."] if "note" in result else [])
        bullets = "\n".join(f"* {line}" for line in text)
        (HERE / f"plan-{name}" / "README.md").write_text(
            f"# {claim}\n\nCommand: `python benchmarks/plan-{name}/run.py`, then `python benchmarks/plan_readme.py`.\n\n"
            f"Machine: {MACHINE}.\n\nResult (`result.json`):\n\n{bullets}\n"
        )
        table.append(f"**{claim}** (`benchmarks/plan-{name}`)\n\n{bullets}\n")
    page = re.sub(
        r"## Measured\n.*?\n## Limits", lambda _: "## Measured\n\n" + "\n".join(table) + "\n## Limits",
        PAGE.read_text(), flags=re.DOTALL,
    )  # fmt: skip
    PAGE.write_text(page)


if __name__ == "__main__":
    main()
