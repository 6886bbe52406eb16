"""How long until the first planned step? Capture, plan and rewrite of ResNet-50, batch 16, 224², at 60 % of its peak.

Each run is a process of its own; operator costs come from the cache on disk, as in every process but the first on a
machine (`measure_seconds` says what was measured anew). `python run.py` writes `result.json` beside itself.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

RUNS = 3


def once() -> dict[str, Any]:
    """Seconds of each stage, without running the step."""
    from outsize import api, zoo
    from outsize.decide import Options, decide
    from outsize.plan import Request
    from outsize.rewrite import rewrite_step, verify_step
    from outsize.runtime.ops import OPS

    work = zoo.load("resnet50", seed=0)
    args = work.example().args
    api.capture(
        zoo.load("resnet50", seed=0, tiny=True).module, zoo.load("resnet50", tiny=True).example().args
    )
    clock = [time.perf_counter()]
    step = api.capture(work.module, args)
    clock.append(time.perf_counter())
    learned = api._unlearned(work.module, args, step, None)
    plain = decide(
        step, learned, Options(request=Request(budget_bytes=2**62, actions=()))
    ).plan.plain_peak_bytes
    options = Options(request=Request(budget_bytes=int(0.6 * plain)))
    clock.append(time.perf_counter())
    made = decide(step, learned, options)
    clock.append(time.perf_counter())
    verify_step(step, rewrite_step(step, made.schedule, OPS), OPS)
    clock.append(time.perf_counter())
    measured, planned = made.seconds
    return {
        "nodes": len(list(step.module.graph.nodes)),
        "ops": len(step.graph.ops),
        "storages": len(step.graph.storages),
        "capture_seconds": clock[1] - clock[0],
        "measure_seconds": measured,
        "planning_seconds": planned,
        "rewrite_seconds": clock[4] - clock[3],
        "total_seconds": clock[1] - clock[0] + planned + clock[4] - clock[3],
        "decisions": len(made.plan.decisions),
        "load_average": os.getloadavg()[0],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--once", action="store_true")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("result.json"))
    options = parser.parse_args()
    if options.once:
        print(json.dumps(once()))
        return
    command = [sys.executable, __file__, "--once"]
    runs = []
    for _ in range(RUNS):
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
        runs.append(json.loads(done.stdout.splitlines()[-1]))
        print(runs[-1], file=sys.stderr, flush=True)
    keys = ("capture_seconds", "planning_seconds", "rewrite_seconds", "total_seconds")
    result = {
        "summary": {
            key: {"min": min(r[key] for r in runs), "median": statistics.median(r[key] for r in runs)}
            for key in keys
        },
        "machine": {
            "python": platform.python_version(),
            "cores": os.cpu_count(),
            "system": platform.platform(),
        },
        "runs": runs,
    }
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result["summary"], indent=1))


if __name__ == "__main__":
    main()
