"""Does any model that trains in PyTorch train under a budget?

Architectures of transformers with small configurations and random weights are trained some steps in plain PyTorch, and
then under a budget in the middle of what is feasible. Each has a process of its own and a time limit. `result.json` is
written after each of them, and the same command goes on where it was stopped.

    python benchmarks/any-model/run.py [name ...] [--door auto|observed|captured] [--seconds 180] [--most 80] [--again]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import time
import traceback
import warnings
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import architectures
import torch
import transformers
from inputs import inputs_of, words

import outsize
from outsize.errors import BudgetError
from outsize.links import disk_link

RESULT = Path(__file__).with_name("result.json")
STEPS = 5
#: Budgets taken from errors before a model counts as refused.
MOST_NAMED = 5
FINISHED = ("equal", "different")
#: No comparison can be made.
LEFT_OUT = ("does not train plain here", "not repeatable plain")


def loss_of(output: Any) -> torch.Tensor:
    if getattr(output, "loss", None) is not None:
        loss: torch.Tensor = output.loss
        return loss
    values = output.values() if hasattr(output, "values") else output
    first = next(v for v in values if isinstance(v, torch.Tensor) and v.is_floating_point())
    return first.float().square().mean()


def seed() -> int:
    """In place of `torch.seed`, which takes one from the clock: Reformer does in each training step."""
    drawn = int(torch.randint(2**31, ()))
    torch.manual_seed(drawn)
    return drawn


def train(one: architectures.Architecture, budget: int | None, steps: int = STEPS, **options: Any) -> Any:
    """The module, what the steps left behind, and the seconds of the fastest."""
    torch.manual_seed(0)
    module = architectures.build(one)
    optimizer = torch.optim.SGD(module.parameters(), 1e-3)
    if budget is not None:
        outsize.compile(module, budget, optimizer=optimizer, **options)
    torch.manual_seed(1)
    given = inputs_of(one.inputs, module)
    left: list[Any] = []
    took = []
    for _ in range(steps):
        begin = time.perf_counter()
        loss = loss_of(module(**given))
        loss.backward()
        left.append(loss.detach())
        del loss
        optimizer.step()
        optimizer.zero_grad()
        took.append(time.perf_counter() - begin)
    left += [p.detach().clone() for p in module.state_dict().values()] + [torch.get_rng_state()]
    return module, left, min(took)


def equal(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return len(one) == len(other) and all(map(torch.equal, one, other))


def compare(one: architectures.Architecture, door: str) -> dict[str, Any]:
    """A row of the table."""
    try:
        module, plain, plain_seconds = train(one, None)
    except Exception as error:
        return {"outcome": "does not train plain here", "why": f"{type(error).__name__}: {str(error)[:160]}"}
    parameters = sum(p.numel() for p in module.parameters())
    del module
    free, *_ = train(one, 1 << 40, 2, door="observed")
    record = outsize.report(free, timelines=False)
    low, high = record.resident_bytes, record.plain_peak_bytes
    outsize.release(free)
    del free
    try:
        train(one, low, 3, door="observed")
    except BudgetError as error:
        low = error.smallest_feasible_bytes
    budget, named = (low + high) // 2, 0
    while True:
        try:
            module, left, seconds = train(one, budget, door=door)
            break
        except BudgetError as error:
            budget, named = error.smallest_feasible_bytes, named + 1
            if named == MOST_NAMED:
                return {"outcome": "refused", "why": str(error)[:200]}
    same = equal(plain, left)
    if not same and not equal(plain, train(one, None)[1]):
        return {"outcome": "not repeatable plain", "why": "two plain runs differ"}
    record = outsize.report(module, timelines=False)
    return {
        "outcome": "equal" if same else "different",
        "door": "observed" if any("door: observed" in note for note in record.notes) else "captured",
        "parameters": parameters,
        "plain_peak": high,
        "smallest": low,
        "budget": budget,
        "named": named,
        "decisions": len(record.decisions),
        "peak_over_budget": record.measured_peak_bytes / budget,
        "step_over_plain": seconds / plain_seconds,
        "planning_seconds": record.planning_seconds,
    }


def work(one: architectures.Architecture, door: str, pipe: Any) -> None:
    """In a process of its own."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    torch.seed = seed
    try:
        row = compare(one, door)
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        row = {
            "outcome": "failed",
            "why": f"{type(error).__name__}: {str(error)[:300]} ({Path(where.filename).name}:{where.lineno})",
        }
    pipe.send(row)


def in_a_process(one: architectures.Architecture, door: str, seconds: float) -> dict[str, Any]:
    context = get_context("fork")  # torch and transformers are imported once
    mine, theirs = context.Pipe(duplex=False)
    process = context.Process(target=work, args=(one, door, theirs))
    begin = time.perf_counter()
    process.start()
    theirs.close()
    row: dict[str, Any] = {"outcome": "out of time", "why": f"more than {seconds:g} s"}
    if mine.poll(seconds):
        try:
            row = mine.recv()
        except EOFError:
            row = {"outcome": "crashed", "why": ""}
    else:
        process.kill()
    process.join()
    if row["outcome"] == "crashed":
        row["why"] = f"exit code {process.exitcode}"
    return {"name": one.name, "class": one.auto, **row, "wall_seconds": time.perf_counter() - begin}


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    counted = [r for r in rows if r["outcome"] not in LEFT_OUT]
    ran = [r for r in counted if r["outcome"] in FINISHED]
    figures: dict[str, Any] = {
        "architectures_that_train_plain": len(counted),
        "trained_under_the_budget": len(ran),
        "not_built_or_not_repeatable_plain": len(rows) - len(counted),
        "equal_to_the_bit": sum(r["outcome"] == "equal" for r in ran),
        "not_run_here": "torchvision and timm: not installed",
    }
    for outcome in sorted({r["outcome"] for r in counted} - set(FINISHED)):
        figures[outcome] = [r["name"] for r in counted if r["outcome"] == outcome]
    if ran:
        peaks, steps = ([r[key] for r in ran] for key in ("peak_over_budget", "step_over_plain"))
        figures |= {
            "peak_over_budget_worst": max(peaks),
            "peak_over_budget_above_1": [r["name"] for r in ran if r["peak_over_budget"] > 1],
            "step_over_plain_median": statistics.median(steps),
            "planning_seconds_median": statistics.median(r["planning_seconds"] for r in ran),
            "budgets_named_anew": sum(r["named"] for r in ran),
        }
    return figures


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*")
    parser.add_argument("--door", default="auto")
    parser.add_argument("--seconds", type=float, default=180)
    parser.add_argument("--most", type=int, default=10**6, help="stop after so many models that train plain")
    parser.add_argument("--again", action="store_true", help="those that have a row as well")
    parser.add_argument("--result", type=Path, default=RESULT)
    asked = parser.parse_args()
    disk_link(None)  # measured once, for all processes
    architectures.build(architectures.Architecture("bert", "AutoModelForMaskedLM", {}, words))
    rows = json.loads(asked.result.read_text())["rows"] if asked.result.exists() else []
    for one in architectures.all_of(transformers):
        if asked.names and one.name not in asked.names:
            continue
        if any(r["name"] == one.name for r in rows) and not asked.again:
            continue
        if sum(r["outcome"] not in LEFT_OUT for r in rows) >= asked.most:
            break
        row = in_a_process(one, asked.door, asked.seconds)
        rows = [r for r in rows if r["name"] != one.name] + [row]
        print(json.dumps(row), flush=True)
        machine = {
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "cpu": platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
            "door_asked": asked.door,
        }
        told = {"machine": machine, "summary": summary(rows), "rows": rows}
        asked.result.write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
