"""Does `make train` keep its budget, change no bit, and at what price? Planned and plain steps, in turns.

    python benchmarks/default-run/run.py [--rounds 2] [--steps 20] [--model gpt] [--alone]

Each round starts two fresh processes, plain then planned, on the same seed. Costs of operators are measured in this
run, not taken from the cache. Writes `result.json`.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent


def child(model: str, planned: bool, steps: int) -> dict:
    """One run in this process: the record's figures, seconds of each step, bytes."""
    import torch

    from outsize import api, zoo
    from outsize.zoo import training

    torch.manual_seed(0)
    workload = zoo.load(model, seed=0)
    optimizer = training.make_optimizer(workload)
    budget = None
    if planned:
        budget = int(0.6 * training.plain_plan(workload, optimizer).plain_peak_bytes)
        api.compile(workload.module, budget, optimizer=optimizer)
    else:
        api.meter(workload.module, optimizer=optimizer)
    seconds: list[float] = []
    record = training.run(workload, optimizer, steps=steps, on_step=lambda step: seconds.append(step.seconds))
    keys = (
        "budget_bytes", "plain_peak_bytes", "predicted_peak_bytes", "measured_peak_bytes", "resident_bytes",
        "swapped_out_bytes", "swapped_in_bytes", "stall_seconds", "predicted_step_seconds", "plain_step_seconds",
        "recomputed_flops", "plain_flops", "rss_peak_bytes", "losses", "validation_loss", "validation_loss_before",
        "planner", "capture_seconds", "measure_seconds", "planning_seconds", "rewrite_seconds", "notes",
    )  # fmt: skip
    figures = {key: getattr(record, key) for key in keys}
    return {**figures, "step_seconds": seconds, "decisions": len(record.decisions)}


def start(model: str, planned: bool, steps: int, cache: str) -> dict:
    words = [sys.executable, __file__, "--child", "planned" if planned else "plain"]
    words += ["--model", model, "--steps", str(steps)]
    done = subprocess.run(
        words, check=True, stdout=subprocess.PIPE, text=True, env={**os.environ, "XDG_CACHE_HOME": cache}
    )
    return json.loads(done.stdout.splitlines()[-1])


def summarise(plain: list[dict], planned: list[dict], model: str, steps: int, *, alone: bool) -> dict:
    # The first steps plan, measure and warm the allocator up.
    settled = [statistics.median(run["step_seconds"][3:]) for run in (*plain, *planned)]
    ratios = [b / a for a, b in zip(settled[: len(plain)], settled[len(plain) :], strict=True)]
    budget = planned[0]["budget_bytes"]
    return {
        "timed_alone": alone,
        "model": model,
        "steps": steps,
        "rounds": len(plain),
        "cpus": os.cpu_count(),
        "load_average_after": os.getloadavg(),
        "peak_over_budget": max(run["measured_peak_bytes"] for run in planned) / budget,
        "peak_over_plain": max(run["measured_peak_bytes"] for run in planned)
        / plain[0]["measured_peak_bytes"],
        "predicted_over_measured_peak": planned[-1]["predicted_peak_bytes"]
        / planned[-1]["measured_peak_bytes"],
        "step_over_plain": {"minimum": min(ratios), "median": statistics.median(ratios), "all": ratios}
        if alone
        else None,
        "losses_equal_to_the_bit": all(run["losses"] == plain[0]["losses"] for run in (*plain, *planned)),
        "plain": plain,
        "planned": planned,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--model", default="gpt")
    parser.add_argument("--alone", action="store_true", help="nothing else runs: compare times as well")
    parser.add_argument("--child", choices=("plain", "planned"))
    options = parser.parse_args()
    if options.child:
        print(json.dumps(child(options.model, options.child == "planned", options.steps)))
        return
    plain, planned = [], []
    with tempfile.TemporaryDirectory() as cache:
        for _ in range(options.rounds):
            plain.append(start(options.model, False, options.steps, cache))
            planned.append(start(options.model, True, options.steps, cache))
    result = summarise(plain, planned, options.model, options.steps, alone=options.alone)
    (HERE / "result.json").write_text(json.dumps(result, indent=1) + "\n")
    print(
        json.dumps({key: value for key, value in result.items() if key not in ("plain", "planned")}, indent=1)
    )


if __name__ == "__main__":
    main()
