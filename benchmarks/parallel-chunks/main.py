"""The chunk size that the search finds, against a sweep of fixed sizes, in one paired run: see README.md.

python benchmarks/parallel-chunks/main.py
"""

from __future__ import annotations

import json
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


def main() -> None:
    if "--again" not in sys.argv:  # else: another look at the times of the last run
        measure()
    path = HERE / "result.json"
    result = json.loads(path.read_text())
    times = {name: found["seconds"] for name, found in result["variants"].items()}
    medians = {name: statistics.median(taken) for name, taken in times.items()}
    found = f"ours@{result['chunk_mb']:g}"
    best = min((name for name in medians if name != "ours"), key=medians.__getitem__)

    def paired(one: str, other: str) -> float:
        return statistics.median(a / b for a, b in zip(times[one], times[other]))

    result = {
        "found_mb": result["chunk_mb"], "search_steps": SEARCH_STEPS, "best_of_sweep": best,
        "found_over_best_median_of_pairs": paired("ours", best),
        "found_over_best_medians": medians["ours"] / medians[best],
        # The same chunks twice: what the machine's noise alone makes of the comparison.
        "found_over_itself_median_of_pairs": paired("ours", found) if found in times else None,
        "seconds_median": medians, "seconds_min": {name: min(taken) for name, taken in times.items()},
        **{key: result[key] for key in ("command", "machine", "torch", "cores", "workers", "net", "batch", "chunk_mb")},
        "variants": result["variants"],
    }  # fmt: skip
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps({key: result[key] for key in list(result)[:6]}, indent=1))


if __name__ == "__main__":
    main()
