"""Byte planes with an entropy coder on dense (GELU) activations; see README.md."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from unittest import mock

import lz4.frame
import torch
import zstandard

import outsize.codecs as codecs
from outsize.zoo.recipes import load


def activations() -> torch.Tensor:
    """GELU outputs of the GPT of the zoo on its own text."""
    work = load("gpt", batch=2)
    parts: list[torch.Tensor] = []
    plain = torch.nn.functional.gelu

    def seen(*args: Any, **options: Any) -> torch.Tensor:
        y: torch.Tensor = plain(*args, **options)
        parts.append(y.flatten().clone())
        return y

    with torch.no_grad(), mock.patch("torch.nn.functional.gelu", seen):
        work.module(*next(work.batches()).args)
    return torch.cat(parts)[: 8 << 20]


def measure(x: torch.Tensor) -> dict[str, Any]:
    size = x.numel() * x.element_size()
    data = x.view(torch.uint8).numpy().data
    planes = x.view(torch.uint8).view(-1, x.element_size()).t().contiguous().numpy()
    c = codecs.compress(x, "planes")
    assert torch.equal(x.view(torch.uint8), c.decompress().view(torch.uint8))
    zstd = {level: zstandard.ZstdCompressor(level=level) for level in (1, 3)}
    sizes = {
        "planes, zstd 1 (the codec)": c.nbytes,
        "planes, zstd 3": sum(len(zstd[3].compress(p.data)) for p in planes),
        "planes, lz4": sum(len(lz4.frame.compress(p.data)) for p in planes),
        "whole, zstd 1": len(zstd[1].compress(data)),
        "whole, lz4": len(lz4.frame.compress(data)),
    }
    return {name: {"ratio": count / size} for name, count in sizes.items()}


def main() -> None:
    full = activations()
    result: dict[str, Any] = {"elements": full.numel()}
    for dtype in (torch.float32, torch.bfloat16):
        result[str(dtype)] = measure(full.to(dtype))
    Path(__file__).with_name("result.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
