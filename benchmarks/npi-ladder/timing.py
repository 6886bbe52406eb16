"""Seconds to train and verify each template, one after the other, in one thread. Writes timing.json beside it.

flock /tmp/outsize.bench.lock nice -n -5 python benchmarks/npi-ladder/timing.py
"""

import json
import time
from pathlib import Path

import torch

from outsize.programs import npi


def main():
    torch.set_num_threads(1)  # networks this small lose to handing over between threads
    rows = []
    for name in npi.LIBRARY:
        started, cpu = time.perf_counter(), time.process_time()
        model = npi.learn(name, seed=1)
        trained = time.perf_counter()
        certificate = npi.verify(npi.template_of(name), model)
        rows.append(
            {
                "template": name,
                "train_s": round(trained - started, 2),
                "verify_s": round(time.perf_counter() - trained, 2),
                "cpu_s": round(time.process_time() - cpu, 2),
                "holds": certificate.holds,
            }
        )
        print(rows[-1], flush=True)
    worst = max(row["train_s"] + row["verify_s"] for row in rows)
    Path(__file__).with_name("timing.json").write_text(
        json.dumps({"worst_s": worst, "rows": rows}, indent=1) + "\n"
    )


if __name__ == "__main__":
    main()
