"""Plans that follow the densities of a training run, against plans made for its first step; see README.md."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import nn
from torch.nn import functional as F

import outsize
from outsize import api
from outsize.session.density import DensityWatch
from outsize.values import Plan
from outsize.zoo import load

SHARE = 0.85
FOLLOW = DensityWatch.reason


class Plain(nn.Module):
    """Convolutions and ReLUs: all that is kept is ReLU outputs, whose values are read again."""

    def __init__(self) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(nn.Conv2d(32 if i else 3, 32, 3, padding=1) for i in range(8))
        for convolution in self.convolutions:
            nn.init.kaiming_normal_(convolution.weight)
        self.head = nn.Linear(32, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for convolution in self.convolutions:
            x = F.relu(convolution(x))
        return self.head(x.mean((2, 3)))


def first_only(watch: DensityWatch, plan: Plan, worth: int) -> str:
    return "" if watch._planned else FOLLOW(watch, plan, worth)


def train(steps: int, way: Any, budget: int | None) -> tuple[nn.Module, dict[str, Any]]:
    torch.manual_seed(0)
    batches = load("vgg16", tiny=True, seed=0, batch=64).batches()
    module = Plain()
    optimizer = torch.optim.AdamW(module.parameters(), lr=3e-3)
    if budget is None:
        outsize.meter(module, optimizer=optimizer)
    else:
        outsize.compile(module, budget, optimizer=optimizer, actions=("encode",))
    session, peaks, plans, kept = api._SESSIONS[module], [], [], []
    with mock.patch.object(DensityWatch, "reason", way):
        for step in range(steps):
            batch = next(batches)
            before = session.prepared
            F.cross_entropy(module(batch.args[0]), batch.target).backward()
            plans += [step] if session.prepared is not before else []
            optimizer.step()
            optimizer.zero_grad()
            record = outsize.report(module, timelines=False)
            peaks.append(record.measured_peak_bytes)
            reserved = sum(d.encoded_bytes for d in record.decisions)
            kept += [record.encoded_bytes / reserved] if reserved else []
    watch = session._latest.densities  # type: ignore[union-attr]
    found = {
        "steps": steps, "planned_before_steps": plans, "largest_measured_peak_over_budget": max(peaks) / (budget or 1),
        "overflows": watch._overflows, "steps_with_overflows": watch._overflowed_steps,
        "encoded_over_reserved_bytes_mean": sum(kept) / len(kept) if kept else None,
        "plain_peak_bytes": record.plain_peak_bytes, "notes": record.notes,
    }  # fmt: skip
    return module, found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=300)
    steps = parser.parse_args().steps
    plain, found = train(steps, FOLLOW, None)
    budget = int(SHARE * found["plain_peak_bytes"])
    result: dict[str, Any] = {"torch": torch.__version__, "budget_over_plain_peak": SHARE}
    for name, way in {"followed": FOLLOW, "first step only": first_only}.items():
        module, result[name] = train(steps, way, budget)
        pairs = zip(plain.parameters(), module.parameters(), strict=True)
        result[name]["parameters_bitwise_equal"] = all(torch.equal(a, b) for a, b in pairs)
        print(name, json.dumps(result[name], indent=1), flush=True)
    Path(__file__).with_name("result.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
