"""What does a budget cost in seconds, and how far does the resident set fall? ResNet-50, batch 16, 224², disk tier.

Each way of running the step gets a process of its own; a round runs all of them in turn, so that ratios are taken
within one round. `python run.py` adds a round to `result.json` and summarises all of them.
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
from dataclasses import asdict
from pathlib import Path
from typing import Any

#: Way → share of the plain peak (0: the smallest feasible budget), None: plain.
WAYS: dict[str, float | None] = {"plain": None, "plain-fastest": None, "60%": 0.6, "smallest": 0.0}
#: One heap that never shrinks: the fastest allocator for a plain step in `benchmarks/allocator`.
ONE_HEAP = {
    "MALLOC_MMAP_THRESHOLD_": str(2**30),
    "MALLOC_TRIM_THRESHOLD_": str(2**40),
    "MALLOC_ARENA_MAX": "1",
}
STEPS = 3


def worker(way: str, budget: int | None, batch: int) -> dict[str, Any]:
    """One warm step, then `STEPS` timed ones."""
    import torch

    import outsize
    from outsize import api, zoo
    from outsize.device import memory

    if way == "plain-fastest":
        api.allocator.install = lambda: False  # type: ignore[assignment]
    work = zoo.load("resnet50", seed=0, batch=batch)
    if budget is None:
        module = outsize.meter(work.module)
    else:
        module = outsize.compile(work.module, budget)
    data = work.example()
    try:
        return steps(module, work.loss_fn, data, memory, outsize)
    except outsize.BudgetError as error:
        return {"smallest": error.smallest_feasible_bytes}
    finally:
        torch.set_grad_enabled(True)


def steps(module: Any, loss_fn: Any, data: Any, memory: Any, outsize: Any) -> dict[str, Any]:
    """Seconds per step, peaks of bytes and of resident set above the idle process."""
    idle = memory.rss_bytes()
    seconds, peaks, rss = [], [], []
    for _ in range(1 + STEPS):
        memory.reset_peak_rss()
        start = time.perf_counter()
        loss_fn(module(*data.args), data.target).backward()
        seconds.append(time.perf_counter() - start)
        rss.append(memory.peak_rss_bytes() - idle)
        module.zero_grad()
        peaks.append(outsize.report(module, timelines=False).measured_peak_bytes)
    record = outsize.report(module, timelines=False)
    return {
        "seconds": seconds[1:], "measured_peak": max(peaks[1:]), "rss_above_idle": max(rss[1:]),
        "predicted_peak": record.predicted_peak_bytes, "resident": record.resident_bytes,
        "swapped_out": record.swapped_out_bytes, "swapped_in": record.swapped_in_bytes,
        "stall_seconds": record.stall_seconds, "recomputed_flops": record.recomputed_flops,
        "plain_flops": record.plain_flops, "predicted_seconds": record.predicted_step_seconds,
        "capture_seconds": record.capture_seconds, "measure_seconds": record.measure_seconds,
        "planning_seconds": record.planning_seconds, "rewrite_seconds": record.rewrite_seconds,
        "decisions": len(record.decisions), "notes": list(record.notes), "links": links(module),
    }  # fmt: skip


def links(module: Any) -> dict[str, Any]:
    """The rates that the plan was made with."""
    from outsize import api

    prepared = api._SESSIONS[module].prepared
    return {} if prepared is None else {tier: asdict(link) for tier, link in prepared.profile.links.items()}


def price_of_moving(plain: dict[str, Any], planned: dict[str, Any]) -> dict[str, float]:
    """What no plan that only swaps can do without: the peak's excess leaves once and comes back once.

    Its transfers can hide; what they take from the compute lane (hashes, the memory's bandwidth) cannot.
    """
    excess = plain["measured_peak"] - planned["budget"]
    link = planned["links"]["disk"]
    drag = 2 * excess * link["drag_seconds_per_byte"]
    lanes = excess / link["out_bytes_per_second"] + excess / link["in_bytes_per_second"]
    return {
        "excess_bytes": excess,
        "bytes_moved": planned["swapped_out"] + planned["swapped_in"],
        "lane_seconds": lanes,
        "drag_seconds": drag,
        "least_over_plain": (min(plain["seconds"]) + drag) / min(plain["seconds"]),
    }


def call(way: str, budget: int | None, batch: int) -> dict[str, Any]:
    command = [sys.executable, __file__, "--way", way, "--batch", str(batch)]
    command += [] if budget is None else ["--budget", str(budget)]
    env = os.environ | (ONE_HEAP if way == "plain-fastest" else {})
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True, env=env)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def one_round(batch: int, smallest: int, backwards: bool) -> dict[str, Any]:
    """Every way once; the plain step first, because a budget is a share of its peak."""
    found = {"plain": call("plain", None, batch)}
    rest = [w for w in WAYS if w != "plain"]
    for way in reversed(rest) if backwards else rest:
        share = WAYS[way]
        budget = None if share is None else max(smallest, int(share * found["plain"]["measured_peak"]))
        found[way] = call(way, budget, batch) | {"budget": budget}
        print(way, found[way], file=sys.stderr, flush=True)
    return found


def summary(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """Ratios within a round; minimum and median over the rounds. Of a process's steps the fastest counts."""
    result: dict[str, Any] = {"rounds": len(rounds)}
    for way in ("60%", "smallest"):
        for base in ("plain", "plain-fastest"):
            ratios = [min(r[way]["seconds"]) / min(r[base]["seconds"]) for r in rounds]
            result[f"seconds of {way} over {base}"] = {
                "min": min(ratios),
                "median": statistics.median(ratios),
            }
        falls = [
            (r["plain"]["rss_above_idle"] - r[way]["rss_above_idle"])
            / (r["plain"]["measured_peak"] - r[way]["measured_peak"])
            for r in rounds
        ]
        result[f"fall of the resident set over the logical fall, {way}"] = {
            "max": max(falls), "median": statistics.median(falls),
        }  # fmt: skip
        priced = [r for r in rounds if r[way].get("links")]
        if priced:
            result[f"price of moving, {way}"] = price_of_moving(priced[-1]["plain"], priced[-1][way])
        result[f"worst measured over budget, {way}"] = max(
            r[way]["measured_peak"] / r[way]["budget"] for r in rounds
        )
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--way", choices=WAYS)
    parser.add_argument("--budget", type=int)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("result.json"))
    options = parser.parse_args()
    if options.way:
        print(json.dumps(worker(options.way, options.budget, options.batch)))
        return
    before = json.loads(options.out.read_text()) if options.out.exists() else {"rounds": [], "smallest": 0}
    smallest = before["smallest"] or call("smallest", 1, options.batch)["smallest"]
    rounds = [*before["rounds"], one_round(options.batch, smallest, len(before["rounds"]) % 2 == 1)]
    result = {
        "summary": summary(rounds),
        "machine": {
            "python": platform.python_version(),
            "cores": os.cpu_count(),
            "system": platform.platform(),
        },
        "smallest": smallest,
        "rounds": rounds,
    }
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result["summary"], indent=1))


if __name__ == "__main__":
    main()
