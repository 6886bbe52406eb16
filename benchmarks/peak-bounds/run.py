"""Does the measured peak stay under the budget, near it, and where it was predicted, with the same bits?

Each family trains in a process of its own: three plain steps under the meter, then three steps under each of five
budgets between the smallest feasible one and the plain peak, from the same state and seed. `python run.py` writes
`result.json` beside itself.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import platform
import statistics
import subprocess
import sys
from itertools import islice
from pathlib import Path
from typing import Any

#: Name → sizes that make an activation-heavy step of about a second: (batch, context or side).
FAMILIES = {
    "gpt": (2, 256),
    "gpt-tied": (2, 256),
    "resnet50": (4, 112),
    "vgg16": (4, 96),
    "vit": (16, 112),
    "unet2d": (2, 96),
    "unet3d": (1, 32),
    "lstm": (16, 48),
    "autoencoder": (32, 64),
}
#: These train with AdamW, the rest with SGD and momentum.
ADAMW = ("gpt", "gpt-tied", "vit")
#: Where between the smallest feasible budget (0) and the plain peak (1).
PLACES = (0.0, 0.2, 0.4, 0.6, 0.8)
STEPS = 3


def train(work: Any, module: Any, optimizer: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Every loss and gradient, the final state; and per step what was predicted and measured."""
    import torch

    import outsize

    torch.manual_seed(0)
    tensors: dict[str, Any] = {}
    figures = []
    for number, batch in enumerate(islice(work.batches(), STEPS)):
        loss = work.loss_fn(module(*batch.args), batch.target)
        loss.backward()
        optimizer.step()
        record = outsize.report(module)
        figures.append({
            "predicted": record.predicted_peak_bytes,
            "measured": record.measured_peak_bytes,
            "resident": record.resident_bytes,
            "swapped": record.swapped_out_bytes,
            "decisions": len(record.decisions),
            "seconds": record.measured_step_seconds,
        })  # fmt: skip
        tensors[f"loss {number}"] = loss.detach().clone()
        del loss
        # A copy of each gradient would count among the bytes in use, so a digest stays.
        tensors |= {
            f"grad {number} {n}": digest(p.grad) for n, p in module.named_parameters() if p.grad is not None
        }
        optimizer.zero_grad()
    tensors |= {f"state {k}": digest(v) for k, v in module.state_dict().items()}
    tensors["random"] = digest(torch.random.get_rng_state())
    return tensors, figures


def digest(tensor: Any) -> str:
    import xxhash

    return xxhash.xxh3_128_hexdigest(tensor.detach().contiguous().numpy().data)


def family(name: str) -> dict[str, Any]:
    """All budgets of one family."""
    import torch

    import outsize
    from outsize import zoo

    torch.set_num_threads(1)
    batch, size = FAMILIES[name]
    work = zoo.load(name, seed=0, batch=batch, size=size)

    def fresh() -> tuple[Any, Any]:
        module = copy.deepcopy(work.module)
        if name in ADAMW:
            return module, torch.optim.AdamW(module.parameters(), lr=1e-4)
        return module, torch.optim.SGD(module.parameters(), lr=1e-3, momentum=0.9)

    args = work.example().args
    module, optimizer = fresh()
    expected, figures = train(work, outsize.meter(module, optimizer=optimizer), optimizer)
    plain = max(f["measured"] for f in figures[1:])
    module, optimizer = fresh()
    try:
        outsize.compile(module, budget=1, optimizer=optimizer)(*args)
    except outsize.BudgetError as error:
        smallest = error.smallest_feasible_bytes
    del module, optimizer
    runs = []
    for place in PLACES:
        budget = int(smallest + place * (plain - smallest))
        module, optimizer = fresh()
        outsize.compile(module, budget=budget, optimizer=optimizer)
        run: dict[str, Any] = {"place": place, "budget": budget}
        try:
            found, steps = train(work, module, optimizer)
        except outsize.OutsizeError as error:
            run["error"] = f"{type(error).__name__}: {error}"
            runs.append(run)
            continue
        run["bitwise"] = all(torch.equal(v, found[k]) if isinstance(v, torch.Tensor) else v == found[k]
                             for k, v in expected.items())  # fmt: skip
        run["steps"] = steps
        run["notes"] = list(outsize.report(module).notes)
        runs.append(run)
        del module, optimizer
    return {
        "family": name, "batch": batch, "size": size, "smallest": smallest, "plain": figures, "plain_peak": plain,
        "runs": runs,
    }  # fmt: skip


def summary(families: list[dict[str, Any]]) -> dict[str, Any]:
    """The bars' figures over all families and budgets; the first step of a run stands apart, unlearnt."""
    runs = [r | {"family": f["family"]} for f in families for r in f["runs"]]
    done = [r for r in runs if "steps" in r]
    use = [s["measured"] / r["budget"] for r in done for s in r["steps"]]
    last = [r["steps"][-1]["measured"] / r["budget"] for r in done]
    errors = [abs(s["predicted"] / s["measured"] - 1) for r in done for s in r["steps"][1:]]
    errors += [abs(s["predicted"] / s["measured"] - 1) for f in families for s in f["plain"][1:]]
    return {
        "families": len(families),
        "runs": len(runs),
        "refused": len(runs) - len(done),
        "bitwise_equal": sum(r["bitwise"] for r in done),
        "measured_over_budget_worst": max(use),
        "measured_over_budget_median": statistics.median(last),
        "prediction_error_median": statistics.median(errors),
        "prediction_error_worst": max(errors),
    }


def write(out: Path, families: list[dict[str, Any]]) -> None:
    """All families so far; a later run of some replaces theirs."""
    families.sort(key=lambda f: list(FAMILIES).index(f["family"]))
    result = {
        "summary": summary(families),
        "machine": {
            "python": platform.python_version(),
            "cores": os.cpu_count(),
            "system": platform.platform(),
        },
        "families": families,
    }
    out.write_text(json.dumps(result, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--family", help="one family, its figures as JSON on stdout")
    parser.add_argument("--only", default=",".join(FAMILIES), help="families to run")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("result.json"))
    options = parser.parse_args()
    if options.family:
        print(json.dumps(family(options.family)))
        return
    kept = json.loads(options.out.read_text())["families"] if options.out.exists() else []
    families: list[dict[str, Any]] = []
    for name in options.only.split(","):
        command = [sys.executable, __file__, "--family", name]
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
        families.append(json.loads(done.stdout.splitlines()[-1]))
        print(name, json.dumps(summary(families[-1:])), file=sys.stderr, flush=True)
        renewed = {done["family"] for done in families}
        write(options.out, [*(f for f in kept if f["family"] not in renewed), *families])
    print(json.dumps(summary(families), indent=1))


if __name__ == "__main__":
    main()
