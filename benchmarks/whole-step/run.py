"""Optimizer state under the budget: bits over optimizers, loops and networks, and what it costs a 24-block GPT.

python benchmarks/whole-step/run.py bits            every combination, against the plain loop
python benchmarks/whole-step/run.py step            a GPT of 64 million parameters, AdamW, at several budgets
python benchmarks/whole-step/run.py step --tiny     the same in seconds, on one of 2 million

Each way of running the GPT has a process of its own; a round runs all of them in turn, and ratios are taken within one.
`step` adds a round to `result-step.json`; `bits` writes `result-bits.json`.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import xxhash

HERE = Path(__file__).parent
STEPS, TIMED = 5, 3
#: Budgets taken from errors, one after the other, before a combination counts as refused: a first step does not know of
#: the gradients that a second backward meets.
MOST_NAMED = 3
#: What becomes of residents, and shares of the plain peak; 0 is the smallest budget that is named.
WAYS = (("move", 0.75), ("move", 0.0), ("fuse", 0.5), ("fuse", 0.0))
#: What a loop may do where updates run in the backward.
FUSED_LOOPS = ("plain", "schedule")


def networks() -> dict[str, Callable[[], tuple[Any, Any]]]:
    """By name: makes a network and an input."""
    import torch
    from torch import nn

    from outsize.zoo.models.transformer import GPT, TransformerSize

    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(nn.Linear(160, 160) for _ in range(6))
            self.layers[4].weight = self.layers[1].weight
            self.layers[2].requires_grad_(False)
            self.unused = nn.Linear(160, 160)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for layer in self.layers:
                x = nn.functional.gelu(layer(x))
            return x

    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gru = nn.GRU(96, 160, 2, dropout=0.2, batch_first=True)
            self.head = nn.Linear(160, 96)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.gru(x)[0])

    def convolutional() -> nn.Module:
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise((3, 64, 128, 128)):
            layers += [
                nn.Conv2d(before, after, 3, padding=1),
                nn.BatchNorm2d(after),
                nn.ReLU(),
                nn.Dropout(0.1),
            ]
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 10))

    size = TransformerSize(width=128, depth=2, heads=4, context=32)
    return {
        "perceptron": lambda: (
            nn.Sequential(*(m for _ in range(5) for m in (nn.Linear(160, 160), nn.ReLU()))), torch.randn(32, 160)),
        "tied, frozen, unused": lambda: (Tied(), torch.randn(32, 160)),
        "convolutional": lambda: (convolutional(), torch.randn(4, 3, 16, 16)),
        "GPT": lambda: (GPT(size, symbols=512), torch.randint(512, (4, 32))),
        "GPT tied": lambda: (GPT(size, symbols=512, tied=True), torch.randint(512, (4, 32))),
        "recurrent": lambda: (Recurrent(), torch.randn(4, 12, 96)),
    }  # fmt: skip


def optimizers() -> dict[str, Callable[[Any], Any]]:
    """By name: makes an optimizer of parameter groups."""
    from torch import optim

    return {
        "SGD momentum": lambda p: optim.SGD(p, lr=0.05, momentum=0.9),
        "SGD nesterov": lambda p: optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True),
        "Adam": lambda p: optim.Adam(p, lr=1e-3),
        "AdamW fused": lambda p: optim.AdamW(p, lr=1e-3, fused=True),
        "AdamW foreach": lambda p: optim.AdamW(p, lr=1e-3, foreach=True),
        "Adamax": lambda p: optim.Adamax(p, lr=1e-3),
        "NAdam": lambda p: optim.NAdam(p, lr=1e-3),
        "RAdam": lambda p: optim.RAdam(p, lr=1e-3),
        "RMSprop": lambda p: optim.RMSprop(p, lr=1e-3, momentum=0.5),
        "Adagrad": lambda p: optim.Adagrad(p, lr=1e-3),
        "Adafactor": lambda p: optim.Adafactor(p, lr=1e-3),
    }


LOOPS = ("plain", "clip", "accumulate", "scaler", "schedule")


def train(
    net: str, kind: str, loop: str, budget: int | None, residents: str = "move"
) -> tuple[dict[str, Any], int, int, int]:
    """Everything that a training ends with, its highest peak, the plain step's predicted one, bytes of state away."""
    import torch

    import outsize

    torch.manual_seed(0)
    module, given = networks()[net]()
    weights = [p for p in module.parameters() if p.dim() > 1]
    others = [p for p in module.parameters() if p.dim() <= 1]
    groups = [{"params": weights, "weight_decay": 0.01}, {"params": others, "weight_decay": 0.0}]
    optimizer = optimizers()[kind](groups)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.5)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16, enabled=loop == "scaler")
    if budget is None:
        outsize.meter(module, optimizer=optimizer)
    else:
        outsize.compile(module, budget, optimizer=optimizer, door="captured", residents=residents)
    seen: dict[str, Any] = {}
    for step in range(STEPS):
        optimizer.zero_grad()
        for number, part in enumerate(given.chunk(2) if loop == "accumulate" else (given,)):
            loss = module(part).float().square().mean()
            scaler.scale(loss).backward()
            seen[f"loss {step} {number}"] = digest(loss)
            del loss
        if loop == "scaler" and step == 2:  # it skips this one
            weights[0].grad[0] = torch.inf
        if loop == "clip":
            seen[f"norm {step}"] = digest(torch.nn.utils.clip_grad_norm_(module.parameters(), 0.05))
        for name, p in module.named_parameters():
            if not hasattr(p.grad, "is_away"):
                seen[f"gradient {step} {name}"] = digest(p.grad)
        scaler.step(optimizer)
        scaler.update()
        if loop == "schedule":
            schedule.step()
    record = outsize.report(module)
    resting = [v for s in optimizer.state.values() for v in s.values() if getattr(v, "is_away", False)]
    away = sum(v.numel() * v.element_size() for v in resting)
    seen |= {f"module {k}": digest(v) for k, v in module.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        seen |= {f"state {index} {k}": digest(v) for k, v in state.items()}
    seen["random"] = digest(torch.get_rng_state())
    outsize.release(module)
    return seen, record.highest_peak_bytes, record.plain_peak_bytes, away


def digest(value: Any) -> Any:
    """Of a tensor's shape, dtype and bits; kept whole, tensors would count as the loop's own."""
    import torch

    if not isinstance(value, torch.Tensor):
        return value
    flat = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    return f"{tuple(value.shape)} {value.dtype} {xxhash.xxh3_128_hexdigest(memoryview(flat.numpy()))}"


def differing(a: dict[str, Any], b: dict[str, Any]) -> list[str]:
    """What is not the same in both; a gradient that its update has used is in one of them only."""
    names = {k for k in (*a, *b) if not k.startswith("gradient") or (k in a and k in b)}
    return [k for k in sorted(names) if k not in a or k not in b or a[k] != b[k]]


def bits(only: str) -> None:
    import warnings

    import torch

    import outsize

    warnings.simplefilter("ignore")
    rows: list[dict[str, Any]] = []
    for net, kind, loop, residents in itertools.product(networks(), optimizers(), LOOPS, ("move", "fuse")):
        fused = residents == "fuse"
        if (only and only not in f"{net} {kind} {loop} {residents}") or (fused and loop not in FUSED_LOOPS):
            continue
        case: dict[str, Any] = {"net": net, "optimizer": kind, "loop": loop, "residents": residents}
        reference, _, plain, _ = train(net, kind, loop, None)
        torch._dynamo.reset()
        smallest = 0
        try:
            train(net, kind, loop, 1, residents)
        except outsize.BudgetError as error:
            smallest = error.smallest_feasible_bytes
        for share in (0.0, 0.4, 0.8):
            budget = smallest + int(share * max(0, plain - smallest))
            named, outcome = [], None
            while outcome is None and len(named) < MOST_NAMED:
                try:
                    outcome = train(net, kind, loop, budget, residents)
                except outsize.BudgetError as error:
                    named.append(budget := error.smallest_feasible_bytes)
            if outcome is None:
                rows.append(
                    {
                        "net": net,
                        "optimizer": kind,
                        "loop": loop,
                        "residents": residents,
                        "share": share,
                        "refused": named,
                    }
                )
                continue
            found, reached, _, away = outcome
            told = {"share": share, "budget": budget, "peak": reached, "state_away": away, "named": named}
            rows.append(case | told | {"differing": differing(reference, found)[:3]})
            torch._dynamo.reset()
        print(json.dumps(rows[-1]), flush=True)
    ran = [r for r in rows if "peak" in r]
    summary = {
        "torch": torch.__version__,
        "trainings": len(rows),
        "refused": len(rows) - len(ran),
        "equal": sum(not r["differing"] for r in ran),
        "budget_named_anew": sum(bool(r["named"]) for r in ran),
        "with_state_away": sum(bool(r["state_away"]) for r in ran),
        "peak_over_budget_worst": max(r["peak"] / r["budget"] for r in ran),
        "peak_over_budget_median": statistics.median(r["peak"] / r["budget"] for r in ran),
        "over_budget": sum(r["peak"] > r["budget"] for r in ran),
        "failures": [r for r in rows if "refused" in r or r["differing"] or r["peak"] > r["budget"]],
    }
    if not only:
        (HERE / "result-bits.json").write_text(json.dumps(summary, indent=1) + "\n")
    print(json.dumps(summary, indent=1))


def worker(budget: int | None, residents: str, tiny: bool) -> None:
    """One process: steps of the GPT under a budget, or plain; a line of JSON."""
    import torch

    import outsize
    from outsize.zoo.models.transformer import GPT, TransformerSize

    torch.manual_seed(0)
    size = TransformerSize(
        width=192 if tiny else 464, depth=4 if tiny else 24, heads=8, context=256, dropout=0.0
    )
    module = GPT(size, symbols=2048)
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-4, fused=True)
    ids = torch.randint(2048, (2, 256))
    if budget is None:
        outsize.meter(module, optimizer=optimizer)
    else:
        outsize.compile(module, budget, optimizer=optimizer, residents=residents)
    losses, seconds, moved = [], [], 0
    for step in range(2 + TIMED):
        start = time.perf_counter()
        optimizer.zero_grad()
        try:
            logits = module(ids)
        except outsize.BudgetError as error:
            print(json.dumps({"smallest": error.smallest_feasible_bytes}))
            return
        loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
        del logits
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        del loss
        if step >= 2:
            seconds.append(time.perf_counter() - start)
    record = outsize.report(module)
    resting = [v for s in optimizer.state.values() for v in s.values() if getattr(v, "is_away", False)]
    moved = sum(v.numel() * v.element_size() for v in resting)
    print(json.dumps({
        "parameters": sum(p.numel() for p in module.parameters()), "losses": losses, "seconds": min(seconds),
        "peak": record.highest_peak_bytes, "plain_peak": record.plain_peak_bytes, "state_away": moved,
        "actions": sorted({d.action for d in record.decisions}), "predicted_seconds": record.predicted_step_seconds,
    }))  # fmt: skip


def link() -> dict[str, float]:
    """Bytes per second of the disk that the tier picks, each way, measured now."""
    from outsize.links import disk_link

    rate = disk_link(None)
    return {"out": rate.out_bytes_per_second, "in": rate.in_bytes_per_second}


def ran(budget: int | None, tiny: bool, residents: str = "move") -> dict[str, Any]:
    command = [sys.executable, __file__, "--worker", str(budget or 0), "--residents", residents]
    command += ["--tiny"] if tiny else []
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def rounds(tiny: bool) -> Iterator[dict[str, Any]]:
    plain = ran(None, tiny)
    for residents, share in WAYS:
        budget = int(share * plain["plain_peak"]) or ran(1, tiny, residents)["smallest"]
        rate, found = link(), ran(budget, tiny, residents)
        way = f"{residents} {share or 'smallest'}"
        if "smallest" in found:
            yield {"way": way, "budget": budget, "refused": found["smallest"]}
            continue
        transfers = found["state_away"] * (1 / rate["out"] + 1 / rate["in"])
        yield {
            "way": way,
            "budget": budget,
            "budget_over_plain_peak": budget / plain["plain_peak"],
            "plain": plain,
            "planned": found,
            "link": rate,
            "equal": plain["losses"] == found["losses"],
            "peak_over_budget": found["peak"] / budget,
            "step_over_plain": found["seconds"] / plain["seconds"],
            "step_over_bound": found["seconds"] / max(plain["seconds"], transfers),
        }


def step(tiny: bool) -> None:
    file = HERE / "result-step.json"
    told = json.loads(file.read_text()) if file.exists() and not tiny else {"rounds": []}
    told["machine"] = {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count()}
    told["rounds"].append(list(rounds(tiny)))
    rows = [row for one in told["rounds"] for row in one if "planned" in row]
    told["summary"] = {
        way: {
            name: statistics.median(row[name] for row in rows if row["way"] == way)
            for name in ("budget_over_plain_peak", "peak_over_budget", "step_over_plain", "step_over_bound")
        }
        for way in dict.fromkeys(row["way"] for row in rows)
    }
    told["equal"] = all(row["equal"] for row in rows)
    print(json.dumps({"summary": told["summary"], "equal": told["equal"]}, indent=1))
    if not tiny:
        file.write_text(json.dumps(told, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", nargs="?", choices=("bits", "step"), default="step")
    parser.add_argument(
        "--tiny", action="store_true", help="a network of 2 million parameters; nothing is written"
    )
    parser.add_argument("--only", default="", help="combinations whose name has this; nothing is written")
    parser.add_argument("--residents", default="move", help=argparse.SUPPRESS)
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.worker is not None:
        worker(asked.worker or None, asked.residents, asked.tiny)
    elif asked.what == "bits":
        bits(asked.only)
    else:
        step(asked.tiny)


if __name__ == "__main__":
    main()
