"""Every template, five seeds: train, verify, then run at lengths far beyond training. Writes result.json beside it.

    python benchmarks/npi-ladder/run.py [--seeds 5] [--templates addition …]

The reference answers are Python's own (integers, `sorted`, `bisect`, networkx-free graph searches).
"""

import argparse
import json
import platform
import random
import time
from pathlib import Path

import torch

from outsize.programs import npi
from outsize.programs.npi.library import LIBRARY

LADDER = {
    "addition": (3, 10, 100, 1_000, 5_000, 10_000, 100_000),
    "subtraction": (10, 1_000, 10_000),
    "bubble_sort": (3, 8, 20, 90, 300, 1_000),
    "quick_sort": (7, 30, 70, 1_000, 10_000),
    "merge_sort": (7, 30, 70, 1_000, 10_000),
    "topological_sort": (8, 70, 120, 1_000),
}
#: The network itself, asked at every step: what its lock-step rounds finish in minutes.
NETWORK = {
    "addition": 1_000,
    "subtraction": 1_000,
    "multiplication": 10,
    "bubble_sort": 20,
    "insertion_sort": 20,
}
PROBLEMS = 100


def score(model, name, length, engine, source, problems=PROBLEMS):
    """Exact results out of `problems`, and the system calls made."""
    entry = LIBRARY[name]
    right = steps = 0
    batch = problems if length <= 10_000 else 10  # keeps the tapes of a batch in memory
    for start in range(0, problems, batch):
        cases = [entry.sample(source, length) for _ in range(min(batch, problems - start))]
        heads = [entry.encode(*case) for case in cases]
        steps += npi.run(model, heads, engine=engine).steps
        right += sum(entry.decode(h) == entry.oracle(*c) for c, h in zip(cases, heads))
    return {"length": length, "engine": engine, "right": right, "of": problems, "steps": steps}


def one(name, seed):
    started, cpu = time.perf_counter(), time.process_time()
    model = npi.learn(name, seed=seed)
    trained, trained_cpu = time.perf_counter() - started, time.process_time() - cpu
    started, cpu = time.perf_counter(), time.process_time()
    certificate = npi.verify(npi.template_of(name), model)
    verified, verified_cpu = time.perf_counter() - started, time.process_time() - cpu
    source = random.Random(1_000 + seed)
    scores = [score(model, name, n, "native", source) for n in LADDER.get(name, (10, 1_000))]
    scores.append(score(model, name, NETWORK.get(name, 50), "network", source))
    return {
        "template": name, "seed": seed, "holds": certificate.holds, "traces": certificate.traces,
        "witnesses": certificate.witnesses, "sequences": certificate.sequences,
        "sequences_before": certificate.sequences_before, "decisions": certificate.decisions,
        "least_margin": round(certificate.check.least_margin, 3),
        "primitive_inputs": sum(p["inputs"] for p in certificate.primitives.values()),
        "train_s": round(trained, 2), "verify_s": round(verified, 2),
        "train_cpu_s": round(trained_cpu, 2), "verify_cpu_s": round(verified_cpu, 2), "scores": scores,
    }  # fmt: skip


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--templates", nargs="*", default=list(LIBRARY))
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("result.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    runs = []
    for name in options.templates:
        for seed in range(options.seeds):
            runs.append(one(name, seed))
            worst = min(s["right"] / s["of"] for s in runs[-1]["scores"])
            print(f"{name} seed {seed}: holds {runs[-1]['holds']}, worst exact {worst:.0%}", flush=True)
            write(options.out, runs)


def write(path, runs):
    machine = f"{platform.machine()}, {torch.get_num_threads()} thread, torch {torch.__version__}"
    path.write_text(json.dumps({"machine": machine, "problems": PROBLEMS, "runs": runs}, indent=1) + "\n")


if __name__ == "__main__":
    main()
