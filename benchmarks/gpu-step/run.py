"""What a budget costs on a GPU, and whether torch itself sees it kept; see README.md."""

from __future__ import annotations

import argparse
import contextlib
import copy
import gc
import json
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import outsize
from outsize.device.facts import facts
from outsize.device.place import device_of
from outsize.links import host_link
from outsize.zoo.models.convolutional import ResNet, ResNetSize
from outsize.zoo.models.transformer import GPT, TransformerSize

STEPS = 6
ALL, RECOMPUTE, SWAP = ("swap", "recompute", "encode"), ("recompute",), ("swap",)


@dataclass(frozen=True)
class Work:
    module: nn.Module
    x: Tensor
    loss: Callable[[Any], Tensor]


def gpt() -> Work:
    x = torch.randint(0, 256, (16, 1024), device="cuda")
    module = GPT(TransformerSize(width=1024, depth=12, heads=16, context=1024)).cuda()
    return Work(module, x, lambda logits: F.cross_entropy(logits.float().flatten(0, 1), x.flatten()))


def resnet50() -> Work:
    x, y = torch.randn(128, 3, 224, 224, device="cuda"), torch.randint(0, 10, (128,), device="cuda")
    module = ResNet(ResNetSize(stages=(3, 4, 6, 3)), classes=10).cuda()
    return Work(module, x, lambda logits: F.cross_entropy(logits.float(), y))


def measured(
    work: Work, module: nn.Module, around: Callable[[], Any] = contextlib.nullcontext
) -> dict[str, Any]:
    """Peak above the idle device that torch counted, median seconds of a step, the losses.

    Our meter resets torch's peak, so what it counted replaces it for our steps.
    """
    torch.manual_seed(1)
    optimizer = torch.optim.SGD(module.parameters(), lr=1e-3)
    peaks, seconds, losses = [], [], []
    own = sum(p.nbytes for p in module.parameters()) + work.x.nbytes
    for _ in range(2 + STEPS):
        optimizer.zero_grad()
        gc.collect()
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        start = time.perf_counter()
        with torch.autocast("cuda", torch.bfloat16), around():
            loss = work.loss(module(work.x))
        loss.backward()
        optimizer.step()
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
        peaks.append(torch.cuda.max_memory_allocated() - before + own)
        losses.append(loss.item())
        del loss
    return {
        "peak_bytes": max(peaks[2:]),
        "step_seconds": statistics.median(seconds[2:]),
        "losses": losses,
    }


def on_host() -> Any:
    return torch.autograd.graph.save_on_cpu(pin_memory=True)


def planned(work: Work, budget: int, actions: tuple[str, ...], effort: int = 1) -> dict[str, Any]:
    module = outsize.compile(copy.deepcopy(work.module), budget, actions=actions, effort=effort)
    try:
        found = measured(work, module)
    except outsize.BudgetError as error:
        return {"budget_bytes": budget, "smallest_feasible_bytes": error.smallest_feasible_bytes}
    report = outsize.report(module, timelines=False)
    kinds = [d.action for d in report.decisions]
    return found | {
        "peak_bytes": report.measured_peak_bytes,
        "budget_bytes": budget,
        "actions": {kind: kinds.count(kind) for kind in sorted(set(kinds))},
        "predicted_peak_bytes": report.predicted_peak_bytes,
        "predicted_step_seconds": report.predicted_step_seconds,
        "report_step_seconds": report.measured_step_seconds,
        "swapped_out_bytes": report.swapped_out_bytes,
        "planning_seconds": report.planning_seconds,
        "capture_seconds": report.capture_seconds,
        "measure_seconds": report.measure_seconds,
        "notes": report.notes,
    }


def ways(work: Work) -> Iterator[tuple[str, dict[str, Any]]]:
    yield "eager", measured(work, copy.deepcopy(work.module))
    module = outsize.meter(copy.deepcopy(work.module))
    plain = measured(work, module)
    plain["peak_bytes"] = outsize.report(module, timelines=False).measured_peak_bytes
    yield "plain, our executor", plain
    yield "saved tensors on the host (torch)", measured(work, copy.deepcopy(work.module), on_host)
    for share in (0.8, 0.6, 0.4):
        for name, actions in (("", ALL), (", recompute", RECOMPUTE), (", swap", SWAP)):
            if share == 0.8 and name:
                continue
            found = planned(work, int(share * plain["peak_bytes"]), actions)
            found["equal_losses"] = found.pop("losses", None) == plain["losses"]
            yield f"{share:.0%}{name}", found


def clean() -> None:
    torch._dynamo.reset()
    gc.collect()
    torch.cuda.empty_cache()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="resnet50,gpt")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("result.json"))
    options = parser.parse_args()
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cuda.matmul.allow_tf32 = True
    result: dict[str, Any] = {
        "machine": {
            k: v
            for k, v in facts("cuda").items()
            if k in ("device", "torch", "python", "device_memory_bytes")
        },
        "link": vars(host_link(device_of([torch.empty(1, device="cuda")]))),
        "rows": {},
    }
    for name in options.only.split(","):
        torch.manual_seed(0)
        work, rows = {"gpt": gpt, "resnet50": resnet50}[name](), result["rows"].setdefault(name, {})
        for way, found in ways(work):
            rows[way] = found
            brief = {k: v for k, v in found.items() if k not in ("losses", "notes")}
            print(name, way, json.dumps(brief), flush=True)
            options.out.write_text(json.dumps(result, indent=1) + "\n")
            clean()


if __name__ == "__main__":
    main()
