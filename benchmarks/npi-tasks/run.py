"""Every task: traced, learned, proved or not, and run on random problems against the oracle.

python benchmarks/npi-tasks/run.py [--only WORD] [--json FILE]
"""

import argparse
import json
import random
import time
import traceback
import warnings
from pathlib import Path

import graphs
import lists
import numbers_
import structures
from tasks import Task

from outsize.errors import NpiError
from outsize.programs import npi

TASKS = [*lists.TASKS, *numbers_.TASKS, *structures.TASKS, *graphs.TASKS]
PROBLEMS = 100


def attempt(task: Task) -> dict[str, object]:
    """What comes of a task as it was written first."""
    started = time.process_time()
    row: dict[str, object] = {"task": task.name, "proved": False, "right": 0, "problems": PROBLEMS, "why": ""}
    try:
        examples = [lambda lesson=lesson: task.heads(lesson) for lesson in task.lessons]
        template = npi.parameterize(npi.trace(task.program, examples))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = npi.train(template)
            certificate = npi.verify(template, model)
            row |= {
                "proved": certificate.holds,
                "sequences": certificate.sequences,
                "why": "" if certificate.holds else "; ".join(certificate.not_proved[:2]),
            }
            row["right"] = right(task, model)
    except NpiError as error:
        row["why"] = str(error)
    except Exception:
        row["why"] = traceback.format_exc(limit=-4)
    return row | {"seconds": round(time.process_time() - started, 1)}


def right(task: Task, model: npi.Trained) -> int:
    source, count = random.Random(1), 0
    for _ in range(PROBLEMS):
        problem = task.sample(source)
        heads = task.heads(problem)
        npi.run(model, [heads], limits=npi.Limits(steps=100_000))
        count += task.result(heads) == task.oracle(*problem)
    return count


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = []
    for task in TASKS:
        if options.only in task.name:
            rows.append(row := attempt(task))
            print(f"{row['task']:28} {'proved' if row['proved'] else 'NOT proved':10} {row['right']}/{PROBLEMS} "
                  f"{row['seconds']} s {row['why']}", flush=True)  # fmt: skip
    print(f"{sum(bool(r['proved']) for r in rows)} of {len(rows)} proved at the first attempt")
    if options.json is not None:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
