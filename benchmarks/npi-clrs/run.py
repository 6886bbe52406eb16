"""Each algorithm: traced and learned from instances of size 16, proved or not, and run at 16, 64 and 1,000.

    python benchmarks/npi-clrs/run.py [--only NAME…] [--sizes 16 64 1000] [--json FILE] [--models FOLDER]

What the models answer is compared with digests of the answers of the benchmark's own code (expected.json, which
expected.py makes), and at 1,000, where that would run for days, with `oracles.py`. Rows are kept in result.json, so a run
that is stopped goes on where it was.
"""

import argparse
import hashlib
import json
import random
import time
import warnings
from pathlib import Path

import oracles
import torch
from algorithms import TASKS, UNSAID, Task
from instances import instance

from outsize.errors import NpiError
from outsize.programs import npi

HERE = Path(__file__).parent
RESULT, EXPECTED = HERE / "result.json", HERE / "expected.json"
#: Seeds of training examples, which are not among those that are compared.
LESSONS = range(1_000, 1_002)
SMALL = (2, 3, 4, 5)


def attempt(task: Task) -> tuple[dict[str, object], npi.Trained | None]:
    """What comes of a program: learned, proved, and the model."""
    started = time.process_time()
    row: dict[str, object] = {"algorithm": task.name, "proved": False, "why": ""}
    try:
        examples = [lambda seed=seed: task.heads(**instance(task.name, 16, seed)) for seed in LESSONS]
        template = npi.parameterize(npi.trace(task.program, examples))
        model = npi.train(template)
        certificate = npi.verify(template, model, sample=lambda source: sample(task, source))
    except NpiError as error:
        return row | {"why": str(error)}, None
    row |= {
        "proved": certificate.holds,
        "why": "" if certificate.holds else "; ".join(certificate.not_proved[:2]),
        "stops": [f"{slot}: {p['stops']}" for slot, p in certificate.primitives.items() if p["stops"]],
        "sequences": certificate.sequences,
        "primitives": len(certificate.primitives),
        "inputs": sum(p["inputs"] for p in certificate.primitives.values()),
        "least_margin": round(certificate.check.least_margin, 2),
        "trial": certificate.guard.inputs,
        "train_seconds": round(time.process_time() - started, 1),
    }
    return row, model.certified(certificate)


def sample(task: Task, source: random.Random) -> list[npi.Head]:
    return task.heads(**instance(task.name, source.choice(SMALL), source.getrandbits(32)))


def digest(parts: object) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def compare(task: Task, model: npi.Trained, size: int, expected: dict[str, str]) -> dict[str, object]:
    """The model on every instance of a size: how many there are, how many answers equal the benchmark's, and the first
    error that stopped one."""
    seeds = [int(key.split()[2]) for key in expected if key.startswith(f"{task.name} {size} ")] or [0]
    right, calls, stopped, started = 0, 0, "", time.process_time()
    for seed in seeds:
        problem = instance(task.name, size, seed)
        heads = task.heads(**problem)
        try:
            calls += npi.run(model, [heads], limits=npi.Limits(steps=10**12)).steps
        except NpiError as error:
            stopped = stopped or str(error)
            continue
        want = expected.get(f"{task.name} {size} {seed}") or digest(oracles.ORACLES[task.name](**problem))
        right += digest(task.output(heads)) == want
    seconds = round(time.process_time() - started, 1)
    found = {"instances": len(seeds), "right": right, "calls": calls, "seconds": seconds}
    return found | {"stopped": stopped} if stopped else found


def learned(
    task: Task, known: dict[str, object], models: Path | None
) -> tuple[dict[str, object], npi.Trained | None]:
    """The row and the model, from an earlier run where that kept them."""
    path = models / f"{task.name}.safetensors" if models is not None else None
    if path is not None and path.exists() and "sequences" in known:
        return dict(known), npi.load(path)
    row, model = attempt(task)
    if path is not None and model is not None:
        npi.save(model, path)
    return row | {"sizes": {}}, model


def keep(rows: dict[str, dict[str, object]], path: Path) -> None:
    path.write_text(json.dumps(dict(sorted(rows.items())), indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", nargs="+", default=[task.name for task in TASKS])
    parser.add_argument("--sizes", type=int, nargs="+", default=[16, 64, 1_000])
    parser.add_argument("--json", type=Path, default=RESULT)
    parser.add_argument("--models", type=Path, help="keep what is learned here")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    expected = json.loads(EXPECTED.read_text())
    rows = json.loads(options.json.read_text()) if options.json.exists() else {}
    rows |= {name: {"algorithm": name, "proved": False, "why": why} for name, why in UNSAID.items()}
    for task in (t for t in TASKS if t.name in options.only):
        known = rows.get(task.name, {})
        wanted = [size for size in options.sizes if str(size) not in known.get("sizes", {})]
        if not wanted and known:
            continue
        rows[task.name], model = learned(task, known, options.models)
        row = rows[task.name]
        keep(rows, options.json)
        # A model that was learned again is another one: of it nothing is known yet.
        for size in options.sizes if model is not None else ():
            if str(size) not in row["sizes"]:
                row["sizes"][str(size)] = compare(task, model, size, expected)
                keep(rows, options.json)
        sizes = {size: f"{r['right']}/{r['instances']}" for size, r in row.get("sizes", {}).items()}
        print(
            f"{task.name:30} {'proved' if row['proved'] else 'NOT proved':10} {sizes} {row['why']}",
            flush=True,
        )


if __name__ == "__main__":
    main()
