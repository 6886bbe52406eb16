"""Whole training steps with encoding as the only action, and with recomputation beside it; see README.md."""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

import outsize
from outsize.device.memory import bytes_in_use

sys.path.insert(0, str(Path(__file__).parents[1]))
from codec_nets import WITHOUT_NORM, workload

SHARE = 0.75
#: Way → actions of the plan.
WAYS = {"encode": ("encode",), "encode, recompute": ("encode", "recompute")}


class Step:
    """One way of running the step: seconds, and bytes kept from the forward to the backward pass."""

    def __init__(self, module: nn.Module, loss_fn: Any) -> None:
        self.module, self.loss_fn = module, loss_fn
        self.seconds: list[float] = []
        self.kept = 0

    def __call__(self, batch: Any) -> list[torch.Tensor]:
        torch.manual_seed(0)
        self.module.zero_grad()
        before, start = bytes_in_use(), time.perf_counter()
        loss = self.loss_fn(self.module(*batch.args), batch.target)
        self.kept = bytes_in_use() - before
        loss.backward()
        self.seconds.append(time.perf_counter() - start)
        return [loss.detach(), *(p.grad for p in self.module.parameters() if p.grad is not None)]


def planned(
    module: nn.Module, loss_fn: Any, batch: Any, plain_peak: int, way: str
) -> tuple[Step, dict[str, Any]]:
    """A step under SHARE of the plain peak, or under the smallest feasible budget where that is more."""
    budget, found = int(SHARE * plain_peak), {"budget_asked_over_plain_peak": SHARE}
    while True:
        step = Step(outsize.compile(copy.deepcopy(module), budget, actions=WAYS[way]), loss_fn)
        try:
            for _ in range(3):  # learn the densities, plan with them, settle
                step(batch)
        except outsize.BudgetError as error:
            torch.set_grad_enabled(True)  # the error left the forward pass before it could
            budget = max(budget + 1, int(1.01 * error.smallest_feasible_bytes))
        else:
            return step, found | {"budget_over_plain_peak": budget / plain_peak}


def measure(name: str, batch_size: int, repeats: int, wanted: list[str]) -> dict[str, Any]:
    module, work = workload(name, batch_size)
    batch = work.example()
    plain = Step(outsize.meter(copy.deepcopy(module)), work.loss_fn)
    for _ in range(2):
        plain(batch)
    peak = outsize.report(plain.module, timelines=False).measured_peak_bytes
    ways = {way: planned(module, work.loss_fn, batch, peak, way) for way in wanted}
    equal = dict.fromkeys(wanted, True)
    for step in (plain, *(s for s, _ in ways.values())):
        step.seconds.clear()
    for _ in range(repeats):
        expected = plain(batch)
        for way, (step, _) in ways.items():
            equal[way] &= all(torch.equal(a, b) for a, b in zip(expected, step(batch), strict=True))
    result: dict[str, Any] = {
        "batch": batch_size, "repeats": repeats, "plain_seconds": plain.seconds,
        "plain_peak_bytes": peak, "plain_kept_bytes": plain.kept,
    }  # fmt: skip
    for way, (step, found) in ways.items():
        record = outsize.report(step.module, timelines=False)
        pairs = [a / b for a, b in zip(step.seconds, plain.seconds, strict=True)]
        best = min(step.seconds) / min(plain.seconds)
        result[way] = found | {
            "bitwise_equal": equal[way], "seconds": step.seconds,
            "step_over_plain": {"median_of_pairs": statistics.median(pairs), "best": best},
            "measured_peak_over_budget": record.measured_peak_bytes / record.budget_bytes,
            "kept_over_plain": step.kept / plain.kept,
            "encoded_storages": sum(d.action == "encode" for d in record.decisions),
            "recomputed_flops_over_plain": record.recomputed_flops / max(1, record.plain_flops),
            "notes": list(record.notes),
        }  # fmt: skip
    return result


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS))
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("result.json"))
    parser.add_argument("--names", nargs="+", default=["resnet50", "vgg16", WITHOUT_NORM])
    args = parser.parse_args()
    result = json.loads(args.out.read_text()) if args.out.exists() else {}
    result |= {"torch": torch.__version__, "threads": torch.get_num_threads()}
    for name in args.names:
        result[name] = measure(name, args.batch, args.repeats, args.ways)
        print(name, json.dumps(result[name], indent=1), flush=True)
        args.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
