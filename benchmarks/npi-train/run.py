"""Wall time of tracing, training and verifying each template, on an idle machine. Writes result.json beside it.

python benchmarks/npi-train/run.py [--seeds 2] [--templates addition …]
"""

import argparse
import json
import os
import time
from pathlib import Path

import torch

from outsize.programs import npi
from outsize.programs.npi.library import LIBRARY


def one(name, seed):
    started, cpu = time.perf_counter(), time.process_time()
    model = npi.learn(name, seed=seed)
    trained = time.perf_counter()
    certificate = npi.verify(npi.template_of(name), model)
    ended = time.perf_counter()
    return {
        "template": name, "seed": seed, "train_s": round(trained - started, 2), "verify_s": round(ended - trained, 2),
        "wall_s": round(ended - started, 2), "cpu_s": round(time.process_time() - cpu, 2), "holds": certificate.holds,
    }  # fmt: skip


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--templates", nargs="*", default=list(LIBRARY))
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("result.json"))
    options = parser.parse_args()
    runs = []
    for seed in range(options.seeds):
        for name in options.templates:
            runs.append(one(name, seed))
            worst = max(runs, key=lambda run: run["wall_s"])
            report = {
                "machine": f"{os.cpu_count()} cores, torch {torch.__version__}",
                "templates": len({r["template"] for r in runs}), "seeds": seed + 1,
                "worst": worst, "all_hold": all(r["holds"] for r in runs), "runs": runs,
            }  # fmt: skip
            options.out.write_text(json.dumps(report, indent=1) + "\n")
            print(json.dumps(runs[-1]), flush=True)


if __name__ == "__main__":
    main()
