"""False alarms and injected bugs in code outside of functions, against functions.

python benchmarks/trees-scan/outside.py
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from run import largest_modules

from outsize.errors import TreesError
from outsize.programs.trees import calibrate, evaluate, store
from outsize.programs.trees.functions import Functions, concatenate
from outsize.programs.trees.grammar import KIND
from outsize.programs.trees.python_front import Source, python_file
from outsize.programs.trees.scan import CLASS_ODDS


def read(files: list[Path]) -> dict[str, Functions]:
    """Functions, module units and class units of the files that can be read."""
    inside, outside = [], []
    for path in files:
        try:
            found = python_file(Source(path.read_bytes()))
        except TreesError:
            continue
        inside += [found.functions] if found.functions.count else []
        outside += [found.outside] if found.outside.count else []
    units = concatenate(outside)
    kind = units.forest.kind[units.forest.ptr[:-1]]
    chosen = {
        name: np.flatnonzero(kind == KIND[k]) for name, k in (("modules", "Module"), ("classes", "ClassDef"))
    }
    return {"functions": concatenate(inside)} | {name: units.select(rows) for name, rows in chosen.items()}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--files", type=int, default=600, help="of the 1,000 largest, drawn at random")
    args = parser.parse_args()
    torch.set_num_threads(1)
    detector, calibration, _ = store.load()
    result: dict[str, object] = {"files": args.files, "threshold": round(calibration.threshold, 4)}
    for name, units in read(largest_modules(1000)[: args.files]).items():
        sound = evaluate.run(detector, units, seed=1, share=0.0, kinds=(0, 1, 2, 3, 4))
        buggy = evaluate.run(detector, units, seed=1, share=1.0)
        top = calibrate.apply(calibration, sound.top)
        flagged = top >= calibration.threshold
        lowered = calibrate.at_prior(top, 0.5, CLASS_ODDS / (1 + CLASS_ODDS)) >= calibration.threshold
        result[name] = {
            "units": units.count, "with_places": len(flagged), "places_per_unit": round(float(sound.places.mean()), 1),
            "flagged": round(float(flagged.mean()), 4),
            "flagged_per_1000_places": round(1000 * float(flagged.sum() / sound.places.sum()), 2),
            "flagged_in_a_scan": round(float((lowered if name == "classes" else flagged).mean()), 4),
            "bug_located_at_1": round(float(buggy.located.mean()), 4),
        }  # fmt: skip
        print(name, result[name], flush=True)
    Path(__file__).with_name("outside.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
