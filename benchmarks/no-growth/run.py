"""What is left behind when modules are compiled, trained for a step and dropped, again and again; see README.md."""

from __future__ import annotations

import argparse
import gc
import json
import os
import threading
import time
import weakref
from pathlib import Path

import torch
from torch import nn
from torch._dynamo.utils import set_compilation_metrics_limit
from torch.optim import optimizer as hooks

import outsize
from outsize.device.memory import bytes_in_use

BATCH, WIDTH = 1024, 64
WAYS = ("drop", "release", "plan", "twice")


def network() -> nn.Module:
    return nn.Sequential(*[layer for _ in range(3) for layer in (nn.Linear(WIDTH, WIDTH), nn.GELU())])


def swap_bytes() -> int:
    """Bytes on disk behind the files without a name that this process has open."""
    total = 0
    for number in os.listdir("/proc/self/fd"):
        try:
            if "deleted" in os.readlink(f"/proc/self/fd/{number}"):
                total += os.fstat(int(number)).st_blocks * 512
        except OSError:  # the descriptor of the listing itself
            continue
    return total


def counts() -> dict[str, int]:
    """What the process has, when the threads that close a swap file have ended."""
    gc.collect()
    deadline = time.monotonic() + 30
    while any(t.name.startswith("outsize") for t in threading.enumerate()) and time.monotonic() < deadline:
        time.sleep(0.01)
    return {
        "bytes": bytes_in_use(),
        "threads": len(os.listdir("/proc/self/task")),  # Python also lists some that have ended
        "descriptors": len(os.listdir("/proc/self/fd")),
        "hooks": len(hooks._global_optimizer_pre_hooks) + len(hooks._global_optimizer_post_hooks),
        "disk": swap_bytes(),
        "objects": len(gc.get_objects()),
    }


def one(x: torch.Tensor, budget: int, way: str) -> weakref.ref[nn.Module]:
    """Compile, one step under a plan that swaps, drop. Returns a reference to what must be gone."""
    module = network()
    optimizer = torch.optim.AdamW(module.parameters())
    if way == "plan":
        outsize.plan(module, (x,), budget=budget, optimizer=optimizer, actions=("swap",))
    else:
        outsize.compile(module, budget, optimizer=optimizer, actions=("swap",))
        module(x).square().mean().backward()
        optimizer.step()
        assert outsize.report(module, timelines=False).swapped_in_bytes
    if way == "release":
        outsize.release(module)
    if way == "twice":
        outsize.compile(module, budget, optimizer=optimizer)
    return weakref.ref(module)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=1000)
    parser.add_argument("--way", choices=[*WAYS, "mixed"], default="drop")
    parser.add_argument("--every", type=int, default=50)
    parser.add_argument(
        "--out", type=Path, default=None, help="where the counts go; beside this file unless given"
    )
    asked = parser.parse_args()
    out = asked.out or Path(__file__).with_name(f"result-{asked.way}.json")
    # Torch keeps records of the latest compilations, some 30 KB each: 64 unless told, so that growth would end late.
    set_compilation_metrics_limit(4)
    torch.set_num_threads(1)
    x = torch.randn(BATCH, WIDTH)
    meter = outsize.meter(network())
    meter(x).square().mean().backward()
    budget = int(0.75 * outsize.report(meter).plain_peak_bytes)
    del meter
    start, series = time.perf_counter(), []
    for done in range(1, asked.rounds + 1):
        alive = one(x, budget, WAYS[done % len(WAYS)] if asked.way == "mixed" else asked.way)
        if done % asked.every == 0:
            assert alive() is None, "the module is alive after it was dropped"
            series.append({"rounds": done} | counts())
            print(f"{time.perf_counter() - start:.0f} s", series[-1], flush=True)
            result = {"way": asked.way, "budget_bytes": budget, "series": series, "torch": torch.__version__}
            out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
