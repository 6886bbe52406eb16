"""Byte planes with an entropy coder on dense (GELU) activations; see README.md."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lz4.frame
import torch
import zstandard

import outsize.codecs as codecs
from outsize.zoo.recipes import load


def activations() -> torch.Tensor:
    """GELU outputs of the GPT of the zoo on its own text."""
    work = load("gpt", batch=2)
    parts: list[torch.Tensor] = []
    for part in work.module.modules():
        if isinstance(part, torch.nn.GELU):
            part.register_forward_hook(lambda m, i, y: parts.append(y.detach().flatten().clone()))
    with torch.no_grad():
        work.module(*next(work.batches()).args)
    if not parts:
        raise RuntimeError("the GPT has no GELU module to look at")
    return torch.cat(parts)[: 8 << 20]


def best(call: Callable[[], Any], repeats: int = 4) -> tuple[float, Any]:
    """Least processor seconds, and the last result."""
    least = float("inf")
    for _ in range(repeats):
        start = time.process_time()
        result = call()
        least = min(least, time.process_time() - start)
    return least, result


def measure(x: torch.Tensor) -> dict[str, Any]:
    size, y = x.numel() * x.element_size(), torch.empty_like(x)
    data = x.view(torch.uint8).numpy().data
    planes = x.view(torch.uint8).view(-1, x.element_size()).t().contiguous().numpy()
    encode, c = best(lambda: codecs.compress(x, "planes"))
    decode, _ = best(lambda: c.decompress(out=y))
    assert torch.equal(x.view(torch.uint8), y.view(torch.uint8))
    rows: dict[str, Any] = {
        "planes, zstd 1": {"ratio": c.ratio, "encode": size / encode, "decode": size / decode}
    }
    zstd = {level: zstandard.ZstdCompressor(level=level) for level in (1, 3)}
    coders: dict[str, Callable[[], int]] = {
        "planes, lz4": lambda: sum(len(lz4.frame.compress(p.data)) for p in planes),
        "planes, zstd 3": lambda: sum(len(zstd[3].compress(p.data)) for p in planes),
        "whole, lz4": lambda: len(lz4.frame.compress(data)),
        "whole, zstd 1": lambda: len(zstd[1].compress(data)),
    }
    for name, coder in coders.items():
        seconds, count = best(coder, 2)
        rows[name] = {"ratio": count / size, "encode": size / seconds}
    copy, _ = best(lambda: y.copy_(x))
    rows["copy"] = {"encode": size / copy}
    for tier in (0.2e9, 0.5e9, 1e9, 2e9):
        rows[f"planes pay at a tier of {tier / 1e9} GB/s"] = codecs.worthwhile(
            ratio=c.ratio, encode=size / encode, decode=size / decode, tier=tier, memory=size / copy
        )
    return rows


def main() -> None:
    full = activations()
    result: dict[str, Any] = {"rates": "dense bytes per second of processor time"}
    for dtype in (torch.float32, torch.bfloat16):
        result[str(dtype)] = measure(full.to(dtype))
    Path(__file__).with_name("result.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
