"""Write the shipped detector again with other thresholds of its kinds; the weights stay to the bit.

python benchmarks/trees-real/set_thresholds.py 0.9 0.9 0.9 0.9 1.0     # in the order of grammar.PLACES
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

from outsize.programs.trees import store
from outsize.programs.trees.grammar import PLACES


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("thresholds", type=float, nargs=len(PLACES), metavar="P")
    parser.add_argument("--model", type=Path, default=store.SHIPPED)
    args = parser.parse_args()
    detector, calibration, history = store.load(args.model)
    calibration = dataclasses.replace(calibration, thresholds=tuple(args.thresholds))
    store.save(detector, args.model, calibration=calibration, history=history)
    print(dict(zip(PLACES, store.load(args.model)[1].by_kind())))


if __name__ == "__main__":
    main()
