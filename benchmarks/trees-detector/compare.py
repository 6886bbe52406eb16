"""Train the detector and every baseline on the same functions with the same bugs; judge all on held-out
packages.

python benchmarks/trees-detector/compare.py --corpus runs/trees --steps 500 --seeds 3 --out result.json
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import platform
import time
from pathlib import Path

import baselines as b
import numpy as np
import torch

from outsize.programs.trees import evaluate
from outsize.programs.trees.functions import Functions
from outsize.programs.trees.grammar import PLACES
from outsize.programs.trees.model import Detector, DetectorConfig
from outsize.programs.trees.pipeline import spread
from outsize.programs.trees.words import WordTable

SIZES = DetectorConfig()
MODELS = {
    "localized tree convolution": lambda: Detector(SIZES),
    "undirected tree convolution": lambda: b.PlaceClassifier(
        b.UndirectedEncoder(SIZES.width, SIZES.layers), SIZES.width
    ),
    "undirected tree convolution, our heads": lambda: Detector(
        SIZES, b.UndirectedEncoder(SIZES.width, SIZES.layers)
    ),
    "GRU over tokens": lambda: b.PlaceClassifier(b.SequenceEncoder(SIZES.width), SIZES.width),
    "GRU over tokens, our heads": lambda: Detector(SIZES, b.SequenceEncoder(SIZES.width)),
    "TBCNN, pooled, leave one out": lambda: b.PooledTreeConv(SIZES.width, SIZES.layers),
    "linear bag of window kinds": b.LinearWindow,
    "n-gram table": b.NgramTable,
}
RATES = {"linear bag of window kinds": 2e-2, "n-gram table": 2e-2}


def train(
    model, name: str, functions: Functions, table: WordTable, steps: int, size: int, seed: int
) -> float:
    """One-cycle AdamW, the same for all; returns processor seconds."""
    rng = np.random.default_rng(seed)
    rate = RATES.get(name, 1.5e-3)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, steps, pct_start=0.1)
    started = time.process_time()
    for _ in range(steps):
        drawn = functions.select(np.sort(rng.choice(functions.count, size, replace=False)))
        if isinstance(model, b.NgramTable):
            sound, _ = b.prepared(drawn.select(range(drawn.count)), table, rng, 0.0, model)
            model.count(drawn, sound)
        batch, _ = b.prepared(drawn, table, rng, 0.5, model)
        answer, place = model.losses(batch)
        optimizer.zero_grad()
        (answer + place).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return time.process_time() - started


@torch.no_grad()
def judge(model, functions: Functions, table: WordTable, share: float, seed: int) -> evaluate.Outcome:
    rng = np.random.default_rng(seed)
    parts = []
    for chosen in evaluate.batches(functions.count, 64):
        drawn = functions.select(chosen)
        batch, bugs = b.prepared(drawn, table, rng, share, model)
        outcome = evaluate.outcomes(batch, model(batch)[1], bugs.kind)
        outcome = dataclasses.replace(outcome, package=np.asarray(functions["distribution"])[chosen])
        keep = (outcome.places > 0) & ((bugs.kind >= 0) | (share < 1))
        parts.append({f.name: getattr(outcome, f.name)[keep] for f in dataclasses.fields(outcome)})
    return evaluate.Outcome(**{name: np.concatenate([p[name] for p in parts]) for name in parts[0]})


def mean_of(results: list[dict]) -> dict:
    names = ("located_at_1", "repaired_at_1", "announced_and_located", "announced_and_repaired", "left_alone")
    out = {n: round(float(np.mean([r[n] for r in results])), 4) for n in names}
    out |= {f"{n}_by_seed": [r[n] for r in results] for n in ("located_at_1", "repaired_at_1")}
    out["located_at_1_95_by_package"] = results[0]["located_at_1_95"]
    out["processor_seconds"] = [r["processor_seconds"] for r in results]
    out["by_kind"] = {
        kind: round(float(np.mean([r["by_kind"][kind]["located_at_1"] for r in results])), 4)
        for kind in PLACES[:4]
    }
    return out


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--corpus", type=Path, default=Path("runs/trees"))
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--test", type=int, default=2000)
    parser.add_argument("--only", nargs="*")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("result.json"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    training, test = (Functions.load(args.corpus / f"{name}.forest") for name in ("train", "test"))
    test = test.select(spread(test.count, args.test))
    tables = [WordTable(split.forest.tokens, SIZES.rows) for split in (training, test)]
    report = json.loads(args.out.read_text()) if args.out.exists() else {}
    report |= {
        "machine": {"processor": platform.machine(), "torch": torch.__version__, "threads": 1},
        "training_functions_seen": args.steps * args.batch, "test_functions": args.test,
        "test_packages": len(np.unique(test["distribution"])), "sizes": dataclasses.asdict(SIZES),
    }  # fmt: skip
    names = [name for name in MODELS if not args.only or name in args.only]
    runs = report.setdefault("runs", {})
    # Seeds outermost, each run written at once: whenever it is stopped, what was done stands, and the next call of
    # the same command goes on from there.
    for seed in range(args.seeds):
        for name in names:
            done = runs.setdefault(name, {})
            if str(seed) in done:
                continue
            torch.manual_seed(seed)
            model = MODELS[name]()
            seconds = train(model, name, training, tables[0], args.steps, args.batch, seed)
            model.eval()
            buggy, sound = (judge(model, test, tables[1], share, 1) for share in (1.0, 0.0))
            result = evaluate.summary(buggy, sound, evaluate.threshold_for(sound, 0.85), resamples=500)
            done[str(seed)] = result | {"processor_seconds": round(seconds, 1)}
            print(
                name,
                seed,
                result["located_at_1"],
                result["announced_and_located"],
                round(seconds),
                flush=True,
            )
            report.setdefault("models", {})[name] = mean_of(list(done.values())) | {"seeds": len(done)}
            report["random_place"] = result["random_place"]
            args.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
