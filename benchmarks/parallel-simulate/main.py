"""The simulator, fitted to a step of two workers, against steps of one and four: see README.md.

python benchmarks/parallel-simulate/main.py
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from pathlib import Path

from outsize.parallel.simulate import Rates, baseline, fit, simulate

HERE = Path(__file__).parent
STEP = HERE.parent / "parallel-step" / "main.py"
WIDTH, CHUNK = 2048, 4 << 20
OVERHEAD = (
    1.6e-4  # seconds of a core per chunk and worker: 30 ms a step with 154 chunks, 6 with 2 (parallel-step)
)
TOTAL = 4 * (3 * (WIDTH * WIDTH + WIDTH) + 10 * WIDTH + 10)


def measure(workers: int) -> dict[str, float]:
    """Median seconds of a step with synchronisation and of the forward and backward pass alone."""
    out = HERE / f"measured-{workers}.json"
    subprocess.run(
        [
            sys.executable, str(STEP), "--workers", str(workers), "--net", "mlp-2048", "--batch", "16", "--warm", "4",
            "--steps", "30", "--memory-steps", "1", "--chunk-mb", "4", "--variants", "local-arena", "ours",
            "--out", str(out),
        ],
        check=True,
    )  # fmt: skip
    found = json.loads(out.read_text())["variants"]
    out.unlink()
    return {name: statistics.median(times["seconds"]) for name, times in found.items()}


def main() -> None:
    if "--again" in sys.argv:  # another prediction from the measurements of the last run
        stored = json.loads((HERE / "result.json").read_text())["measured_seconds"]
        measured = {int(workers): found for workers, found in stored.items()}
    else:
        measured = {workers: measure(workers) for workers in (1, 2, 4)}
    count = -(-TOTAL // CHUNK)
    sizes = [TOTAL // count] * count
    both = measured[1]["local-arena"]  # forward : backward = 1 : 2, gradients in proportion to bytes
    crowding = max(measured[2]["local-arena"] / both - 1, 0.0)
    cores = (
        2  # of the machine that was measured: the pass of four workers tells what taking turns on them costs
    )
    switching = max(measured[4]["local-arena"] / (4 / cores * measured[2]["local-arena"]) - 1, 0.0)
    ready = [2 * both / 3 * (i + 1) / count for i in range(count)]
    guess = Rates(
        forward=both / 3, memory=4e10, core=4e10, wake=2e-5, straggle=0.02, cores=cores, crowding=crowding,
        switching=switching, overhead=OVERHEAD,
    )  # fmt: skip
    rates = fit(guess, ready, sizes, workers=2, measured=measured[2]["ours"])
    predicted = {w: simulate(ready, sizes, rates, workers=w).seconds for w in measured}
    link = Rates(**{**vars(rates), "link": 1.25e9, "latency": 2e-5})

    def best(nodes: int) -> tuple[float, int]:
        """Seconds, and the number of equal chunks that gives them: what the search would find."""
        trials = []
        for n in (1, 2, 4, count, 2 * count, 4 * count):
            at = [2 * both / 3 * (i + 1) / n for i in range(n)]
            step = simulate(at, [TOTAL // n] * n, link, workers=2 * nodes, nodes=nodes)
            trials.append((step.seconds, n))
        return min(trials)

    many = {
        nodes * 2: {
            "chunks": best(nodes)[0],
            "number_of_chunks": best(nodes)[1],
            "ordinary": baseline(2 * both / 3, TOTAL, link, workers=2 * nodes, nodes=nodes),
        }
        for nodes in (1, 5, 50, 500, 5000)
    }
    result = {
        "measured_seconds": measured, "predicted_seconds": predicted, "rates": vars(rates),
        "predicted_over_measured": {w: predicted[w] / measured[w]["ours"] for w in measured},
        "nodes_of_two_workers_at_10_gigabit": many,
    }  # fmt: skip
    (HERE / "result.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result["predicted_over_measured"], indent=1))


if __name__ == "__main__":
    main()
