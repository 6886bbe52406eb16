"""The chunk size that the search finds, against a sweep of fixed sizes, in one paired run: see README.md.

python benchmarks/parallel-chunks/main.py
"""

from __future__ import annotations

import json
import random
import statistics
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
STEP = HERE.parent / "parallel-step" / "main.py"
SIZES = ["0.25", "0.5", "1", "2", "4", "8"]
SEARCH_STEPS = 19  # one for the order of the gradients, then six sizes of three steps at most


def measure() -> None:
    variants = ["ours", *(f"ours@{size}" for size in SIZES)]
    subprocess.run(
        [
            sys.executable, str(STEP), "--net", "mlp-2048", "--batch", "16", "--warm", str(SEARCH_STEPS), "--steps", "60",
            "--memory-steps", "1", "--variants", *variants, "--out", "../parallel-chunks/result.json",
        ],
        check=True,
    )  # fmt: skip


def median_of_pairs(one: list[float], other: list[float]) -> float:
    """What the first takes of the second's time, in the same turn and so under the same load."""
    return statistics.median(a / b for a, b in zip(one, other, strict=True))


def interval(one: list[float], other: list[float]) -> list[float]:
    """95 % of the medians of pairs of steps drawn anew from those measured."""
    draw = random.Random(0)
    pairs = list(zip(one, other, strict=True))
    drawn = [median_of_pairs(*zip(*draw.choices(pairs, k=len(pairs)))) for _ in range(2000)]
    cuts = statistics.quantiles(drawn, n=40)
    return [cuts[0], cuts[-1]]


def main() -> None:
    if "--again" not in sys.argv:  # else: another look at the times of the last run
        measure()
    path = HERE / "result.json"
    result = json.loads(path.read_text())
    times = {name: found["seconds"] for name, found in result["variants"].items()}
    medians = {name: statistics.median(taken) for name, taken in times.items()}
    found = f"ours@{result['chunk_mb']:g}"
    best = min((name for name in medians if name != "ours"), key=medians.__getitem__)

    result = {
        "found_mb": result["chunk_mb"], "search_steps": SEARCH_STEPS, "best_of_sweep": best,
        "found_over_best_median_of_pairs": median_of_pairs(times["ours"], times[best]),
        "found_over_best_median_of_pairs_95_percent": interval(times["ours"], times[best]),
        "found_over_best_medians": medians["ours"] / medians[best],
        # The same chunks twice, in other processes: 1 but for noise, so this shows what each measure is worth.
        "found_over_itself_median_of_pairs": median_of_pairs(times["ours"], times[found]),
        "found_over_itself_medians": medians["ours"] / medians[found],
        "found_over_itself_minima": min(times["ours"]) / min(times[found]),
        "seconds_median": medians, "seconds_min": {name: min(taken) for name, taken in times.items()},
        **{key: result[key] for key in ("command", "machine", "torch", "cores", "workers", "net", "batch", "chunk_mb")},
        "variants": result["variants"],
    }  # fmt: skip
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps({key: result[key] for key in list(result)[:9]}, indent=1))


if __name__ == "__main__":
    main()
