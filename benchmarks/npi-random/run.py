"""Random programs, learned and certified: does a certified model ever differ from its program?

    nice -n 15 python benchmarks/npi-random/run.py --programs 10000

Each seed is a program of its own (tests/programs/npi/random_programs.py). It is traced; its rows are run as tables
against the program; it is trained, certified, and run on every engine against the program on inputs that no trial has
seen. The counts are kept in result.json (`--rows`: rows.json), so a run that is stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import functools
import json
import random
import sys
import time
from pathlib import Path

import torch

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1]))

from tests.programs.npi.random_programs import RandomProgram, outcome, random_program, rows_machine  # noqa: E402

from outsize.errors import NpiError  # noqa: E402
from outsize.native import available  # noqa: E402
from outsize.programs import npi  # noqa: E402

RESULT = HERE / "result.json"
ENGINES = ("network", "tables", "native") if available() else ("network", "tables")
INPUTS = 30
EXAMPLES = 8  # what they do not show is looked for, and else learned from the program's text
_START = {"next": 0, "refused": 0, "rows_only": 0, "certified": 0, "not_certified": 0, "inputs": 0, "seconds": 0.0,
          "different": []}  # fmt: skip


def one(seed: int, learn: bool) -> tuple[str, int, str]:
    """What became of a program, the inputs that were compared, and the first difference."""
    made = random_program(seed, EXAMPLES)
    try:
        template = npi.parameterize(npi.trace(made.function, made.examples))
    except NpiError:
        return "refused", 0, ""
    inputs = made.inputs(random.Random(-1 - seed), INPUTS)
    want = [outcome(lambda heads: made.function(*heads), make) for make in inputs]
    machine = rows_machine(template)
    got = [outcome(lambda heads: machine.run([heads]), make) for make in inputs]
    if got != want:
        return "rows_only", len(inputs), f"seed {seed}, rows"
    if not learn:
        return "rows_only", len(inputs), ""
    try:
        model = npi.train(template)
    except NpiError:
        return "not_certified", len(inputs), ""
    if not npi.verify(template, model).holds:
        return "not_certified", len(inputs), ""
    return "certified", len(inputs), engines_differ(seed, made, model, inputs, want)


def engines_differ(seed: int, made: RandomProgram, model: npi.Trained, inputs: list, want: list) -> str:
    limits = npi.Limits(steps=5_000)
    ends = [i for i, result in enumerate(want) if result != "fails"]
    for engine in ENGINES:
        heads = [inputs[i]() for i in ends]
        try:  # those that end side by side; the others, and all if that fails, one by one
            npi.run(model, heads, engine=engine, limits=limits)
            alike = [[(h.tape.cells, h.position) for h in one] for one in heads] == [want[i] for i in ends]
            alone = [i for i in range(len(want)) if want[i] == "fails"]
        except NpiError:
            alike, alone = True, range(len(want))
        run = functools.partial(run_one, model, engine, limits)
        if not alike or any(outcome(run, inputs[i]) != want[i] for i in alone):
            return f"seed {seed}, engine {engine}"
    return ""


def run_one(model: npi.Trained, engine: str, limits: npi.Limits, heads: list[npi.Head]) -> None:
    npi.run(model, [heads], engine=engine, limits=limits)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--programs", type=int, default=10_000, help="seeds 0 to this")
    parser.add_argument("--seconds", type=float, default=1e9, help="stop after so long")
    parser.add_argument(
        "--rows", action="store_true", help="no training: the program's own rows, run as tables"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    path = RESULT.with_stem("rows") if options.rows else RESULT
    found = json.loads(path.read_text()) if path.exists() else dict(_START)
    begin, before = time.monotonic(), found["seconds"]
    while found["next"] < options.programs and time.monotonic() - begin < options.seconds:
        way, compared, difference = one(found["next"], not options.rows)
        found[way] += 1
        found["inputs"] += compared
        found["different"] += [difference] * bool(difference)
        found["next"] += 1
        if found["next"] % 20 == 0 or found["next"] == options.programs:
            found["seconds"] = round(before + time.monotonic() - begin, 1)
            path.write_text(json.dumps(found, indent=2) + "\n")
    print(json.dumps(found, indent=2))
    raise SystemExit(bool(found["different"]))


if __name__ == "__main__":
    main()
