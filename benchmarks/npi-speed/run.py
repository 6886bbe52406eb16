"""System calls per second on one core: the network at batch 1,024, the tables, the tables in C. Writes result.json.

    python benchmarks/npi-speed/run.py

Addition of two 60-digit numbers, 1,024 at once, tapes and primitives included in the time. The three engines run one
after the other in each of the repetitions, so each ratio is taken within one repetition.
"""

import json
import random
import statistics
import time
from pathlib import Path

import torch

from outsize.programs import npi
from outsize.programs.npi.brains import NetworkBrain, TableBrain
from outsize.programs.npi.library import LIBRARY

BATCH, DIGITS, REPETITIONS = 1_024, 60, 7


def timed(model, entry, cases, engine):
    heads = [entry.encode(*case) for case in cases]
    started = time.perf_counter()
    stats = npi.run(model, heads, engine=engine)
    seconds = time.perf_counter() - started
    return stats.steps / seconds, [entry.decode(h) for h in heads]


def controller_only(model, engine):
    """Decisions per second without tapes: one batch of states, advanced over and over."""
    import numpy as np

    brain = NetworkBrain(model.controller) if engine == "network" else TableBrain(model.tables)
    program = np.zeros(BATCH, dtype=np.int64)
    state = np.full((BATCH, brain.width), -1 if engine == "tables" else 0, dtype=brain.kind)
    rounds = 200
    started = time.perf_counter()
    for _ in range(rounds):
        actions, _ = brain.decide(program, program, state)
        for _ in actions:
            pass
    return rounds * BATCH / (time.perf_counter() - started)


def main():
    torch.set_num_threads(1)
    model, entry = npi.shipped("addition"), LIBRARY["addition"]
    source = random.Random(5)
    cases = [entry.sample(source, DIGITS) for _ in range(BATCH)]
    npi.run(model, [entry.encode(*cases[0])], engine="native")
    rates = {e: [] for e in ("network", "tables", "native")}
    decisions = {e: [] for e in ("network", "tables")}
    for _ in range(REPETITIONS):
        results = []
        for engine in rates:
            rate, result = timed(model, entry, cases, engine)
            rates[engine].append(rate)
            results.append(result)
        assert results[0] == results[1] == results[2] == [entry.oracle(*case) for case in cases]
        for engine in decisions:
            decisions[engine].append(controller_only(model, engine))
    report = {
        "batch": BATCH,
        "digits": DIGITS,
        "repetitions": REPETITIONS,
        "machine": f"one core, torch {torch.__version__}",
        "system_calls_per_s": {e: {"median": statistics.median(r), "max": max(r)} for e, r in rates.items()},
        "decisions_per_s": {e: {"median": statistics.median(r), "max": max(r)} for e, r in decisions.items()},
        "native_over_network": [n / m for n, m in zip(rates["native"], rates["network"])],
        "outputs_equal": True,
    }
    Path(__file__).with_name("result.json").write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
