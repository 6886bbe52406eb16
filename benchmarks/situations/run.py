"""Situations from public reports, each trained eager and under plans: equal, refused, wrong, over its budget or broken.

python benchmarks/situations/run.py [NAME …] [--processes 2] [--quick]
"""

import argparse
import collections
import json
import multiprocessing
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parent))

import torch
from harness import PLANS, SITUATIONS, Found, as_json, tried

#: Situations of one set of processes: what is compiled stays in a process.
CHUNK = 30
for name in ("buffers", "randomness", "recurrent", "gradients", "loops", "details"):
    __import__(name)


def rows_of(name: str, quick: bool) -> list[dict]:
    torch.set_num_threads(1)
    torch._dynamo.reset()
    what = SITUATIONS[name]
    found = tried(what, PLANS[:1] if quick else PLANS)
    return [{"situation": name, "public": what.public, **as_json(f)} for f in found]


def some(names: list[str], asked: argparse.Namespace) -> Iterator[dict]:
    """In processes of their own; one that ends in the middle is a row."""
    with ProcessPoolExecutor(asked.processes, multiprocessing.get_context("spawn")) as pool:
        jobs = {pool.submit(rows_of, name, asked.quick): name for name in names}
        for job in as_completed(jobs):
            try:
                yield from job.result()
            except BrokenProcessPool as error:
                crashed = Found(verdict="crashed", detail=str(error))
                yield {"situation": jobs[job], "public": SITUATIONS[jobs[job]].public, **as_json(crashed)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="one plan of each in place of nine")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "result.json")
    asked = parser.parse_args()
    names, rows = list(asked.names or SITUATIONS), []
    for start in range(0, len(names), CHUNK):
        for row in some(names[start : start + CHUNK], asked):
            rows.append(row)
            if row["verdict"] != "equal":
                told = row["detail"][:300].replace("\n", " ")
                print(row["situation"], row["verdict"], row["actions"], row["share"], told, flush=True)
    counts = collections.Counter(row["verdict"] for row in rows)
    refused = [row for row in rows if row["verdict"] == "refused"]
    summary = {
        "situations": len({row["situation"] for row in rows}),
        "runs": len(rows),
        "verdicts": dict(sorted(counts.items())),
        "plans_that_act": sum(bool(row["acted"]) for row in rows),
        "refused_for_capture_without_a_line": sorted(
            {row["situation"] for row in refused if "BudgetError" not in row["detail"] and not row["line"]}
        ),
    }
    rows.sort(key=lambda row: (row["situation"], row["actions"], row["share"], row["module"]))
    asked.out.write_text(json.dumps({"summary": summary, "rows": rows}, indent=1) + "\n")
    print(json.dumps(summary, indent=1))


if __name__ == "__main__":
    main()
