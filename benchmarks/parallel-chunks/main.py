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


def main() -> None:
    variants = ["ours", *(f"ours@{size}" for size in SIZES)]
    subprocess.run(
        [
            sys.executable, str(STEP), "--net", "mlp-2048", "--batch", "16", "--warm", str(SEARCH_STEPS), "--steps", "30",
            "--memory-steps", "1", "--variants", *variants, "--out", "../parallel-chunks/result.json",
        ],
        check=True,
    )  # fmt: skip
    path = HERE / "result.json"
    result = json.loads(path.read_text())
    times = {name: found["seconds"] for name, found in result["variants"].items()}
    fixed = {name: min(taken) for name, taken in times.items() if name != "ours"}
    best = min(fixed, key=fixed.__getitem__)
    pairs = sorted(a / b for a, b in zip(times["ours"], times[best]))
    result = {
        "found_mb": result["chunk_mb"], "search_steps": SEARCH_STEPS, "best_of_sweep": best,
        "found_over_best_min": min(times["ours"]) / fixed[best],
        "found_over_best_median_of_pairs": statistics.median(pairs),
        "seconds_min": {name: min(taken) for name, taken in times.items()}, **result,
    }  # fmt: skip
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps({key: result[key] for key in list(result)[:6]}, indent=1))


if __name__ == "__main__":
    main()
