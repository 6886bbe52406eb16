"""The tables of README.md and docs/measured.md, from the committed results: so no figure in them is typed by hand.

    python benchmarks/table.py            print the table
    python benchmarks/table.py --write    put it into both; README.md has the rows with a `headline`

A row appears when its file is there. To add one: a claim, the bar, the file, and how to read the figure from it.
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
README, MEASURED = HERE.parent / "README.md", HERE.parent / "docs/measured.md"
BEGIN, END = "<!-- table -->\n", "<!-- end of table -->\n"


@dataclass(frozen=True, kw_only=True)
class Row:
    """A claim, the figure to reach, the file that holds what was reached, and how to read it ("" leaves it out).

    `headline` is the claim as the README words it; without one it is left to docs/measured.md.
    """

    claim: str
    bar: str
    file: str
    read: Callable[[Any], str]
    headline: str = ""


def yes(flag: bool) -> str:
    return "yes" if flag else "**no**"


def right_everywhere(row: Any) -> bool:
    """Whether an algorithm is proved, and ran at all three sizes without a wrong answer."""
    sizes = row.get("sizes", {}).values()
    return bool(row["proved"]) and len(sizes) == 3 and all(s["right"] == s["instances"] for s in sizes)


def worst_share(ladder: Any, template: str, length: int) -> str:
    """The worst seed's share of exact results."""
    scores = [s for run in ladder["runs"] if run["template"] == template for s in run["scores"]]
    return f"{min(s['right'] / s['of'] for s in scores if s['length'] == length):.0%}"


def of_plain(rows: Any, way: str) -> float:
    """Seconds of a step over those of the plain one."""
    return float(rows[way]["step_seconds"] / rows["plain, our executor"]["step_seconds"])


ROWS = (
    Row(
        claim="default run: measured peak ÷ budget",
        bar="≤ 1.00",
        file="default-run/result.json",
        read=lambda r: f"{r['peak_over_budget']:.3f}",
    ),
    Row(
        claim="default run: losses of planned and plain steps equal to the bit, dropout included",
        headline="losses equal to the plain step's, to the bit",
        bar="yes",
        file="default-run/result.json",
        read=lambda r: yes(r["losses_equal_to_the_bit"]),
    ),
    Row(
        claim="default run: planned step ÷ plain step, median",
        bar="–",
        file="default-run/result.json",
        read=lambda r: f"{r['step_over_plain']['median']:.2f} ×" if r["timed_alone"] else "",
    ),
    Row(
        claim="ResNet-50, batch 16, 224², disk tier, 60 % budget: step ÷ plain step, same allocator, median",
        bar="≤ 1.10",
        file="resnet-step/result.json",
        read=lambda r: f"{r['summary']['seconds of 60% over plain']['median']:.2f} ×",
    ),
    Row(
        claim="the same ÷ the plain step under its fastest allocator",
        headline="ResNet-50 on a CPU, 60 % of the memory, swapping to disk: step ÷ plain step",
        bar="≤ 1.35",
        file="resnet-step/result.json",
        read=lambda r: f"{r['summary']['seconds of 60% over plain-fastest']['median']:.2f} ×",
    ),
    Row(
        claim="the same at the smallest feasible budget",
        bar="≤ 1.25",
        file="resnet-step/result.json",
        read=lambda r: f"{r['summary']['seconds of smallest over plain']['median']:.2f} ×",
    ),
    Row(
        claim="fall of the peak resident set ÷ fall of the logical peak, 60 % budget",
        bar="≥ 0.80",
        file="resnet-step/result.json",
        read=lambda r: f"{r['summary']['fall of the resident set over the logical fall, 60%']['median']:.2f}",
    ),
    Row(
        claim="capture + plan + rewrite of ResNet-50",
        headline="time to plan ResNet-50, once",
        bar="≤ 10 s",
        file="capture-time/result.json",
        read=lambda r: f"{r['summary']['total_seconds']['median']:.1f} s",
    ),
    Row(
        claim="measured peak ÷ budget, worst over families × 5 budgets",
        headline="measured peak ÷ budget, the worst case",
        bar="≤ 1.00",
        file="peak-bounds/result.json",
        read=lambda r: (
            f"{r['summary']['measured_over_budget_worst']:.4f} ({r['summary']['families']} families)"
        ),
    ),
    Row(
        claim="predicted against measured peak, median and worst, the same runs",
        bar="≤ 1 %, ≤ 3 %",
        file="peak-bounds/result.json",
        read=lambda r: (
            f"{r['summary']['prediction_error_median']:.2%}, {r['summary']['prediction_error_worst']:.2%}"
        ),
    ),
    Row(
        claim="slack rule: stall ÷ that of the distance rule, simulated, median over 9 families",
        bar="≤ 1",
        file="slack-vs-distance/result.json",
        read=lambda r: f"{r['summary']['median_stall_slack_over_distance']:.2f}",
    ),
    Row(
        claim="mixed plan: times faster than the best single action at equal budget, simulated, median over "
        "a quarter of the peak and the tightest budgets, 85 cases",
        bar="≥ 1.10",
        file="plan-mixed/result.json",
        read=lambda r: f"{r['both_budgets']['median']:.2f} × (at a quarter {r['all']['median']:.2f} ×)",
    ),
    Row(
        claim="H100, ResNet-50, batch 128: step ÷ plain step at 60 % and at 40 % of the peak",
        headline="ResNet-50 on an H100, 60 % and 40 % of the memory: step ÷ plain step",
        bar="–",
        file="gpu-step/result.json",
        read=lambda r: ", ".join(f"{of_plain(r['rows']['resnet50'], way):.2f} ×" for way in ("60%", "40%")),
    ),
    Row(
        claim="npi: addition exact at 100,000 digits, five seeds, learned from sums of up to 3",
        bar="100 %",
        file="npi-ladder/result.json",
        read=lambda r: worst_share(r, "addition", 100_000),
    ),
    Row(
        claim="npi: slowest to train and verify of the 19 templates of 2026-11-25 (26 now), two cores",
        bar="≤ 60 s",
        file="npi-train/result.json",
        read=lambda r: f"{r['worst']['wall_s']:.1f} s",
    ),
    Row(
        claim="npi: system calls per second, compiled tables ÷ network, least of 7 repetitions",
        bar="≥ 20",
        file="npi-speed/result.json",
        read=lambda r: f"{min(r['native_over_network']):.0f} ×",
    ),
    Row(
        claim="npi: algorithms of CLRS-30 proved, and right on every instance of size 16, 64 and 1,000",
        bar="≥ 20 of 30",
        file="npi-clrs/result.json",
        read=lambda r: f"{sum(map(right_everywhere, r.values()))} of 30",
    ),
)


def table(*, headlines: bool = False) -> str:
    """The rows whose results are there, as Markdown."""
    to = "benchmarks" if headlines else "../benchmarks"
    lines = ["| claim | bar | reached | result |", "|---|---|---|---|"]
    for row in ROWS:
        path, claim = HERE / row.file, row.headline if headlines else row.claim
        if claim and path.exists() and (reached := row.read(json.loads(path.read_text()))):
            folder = Path(row.file).parent
            lines.append(f"| {claim} | {row.bar} | {reached} | [{folder}]({to}/{row.file}) |")
    return "\n".join(lines) + "\n"


def updated(text: str, *, headlines: bool = False) -> str:
    """A document with the table between its marks."""
    head, rest = text.split(BEGIN)
    return head + BEGIN + table(headlines=headlines) + END + rest.split(END)[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="put it into the documents")
    if parser.parse_args().write:
        README.write_text(updated(README.read_text(), headlines=True))
        MEASURED.write_text(updated(MEASURED.read_text()))
    else:
        print(table(), end="")


if __name__ == "__main__":
    main()
