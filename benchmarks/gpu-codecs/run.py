"""The codecs on a GPU beside a copy in its memory: how near to the bytes that must move; see README.md."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import outsize.codecs as codecs
from outsize.codecs.layout import Layout
from outsize.device.facts import facts

DENSE_BYTES, TURNS = 512 << 20, 15


def seconds(work: Callable[[], object]) -> float:
    """Median of the device's own times."""
    for _ in range(3):
        work()
    times = []
    for _ in range(TURNS):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        work()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) / 1e3)
    return statistics.median(times)


def row(dtype: torch.dtype, density: float) -> dict[str, float]:
    numel = DENSE_BYTES // dtype.itemsize
    x = torch.randn(numel, device="cuda").abs().add(1).to(dtype)
    x.masked_fill_(torch.rand(numel, device="cuda") >= density, 0)
    y, buffer = (
        torch.empty_like(x),
        torch.empty(
            Layout(numel=numel, itemsize=dtype.itemsize).nbytes(numel), dtype=torch.uint8, device="cuda"
        ),
    )
    c = codecs.encode_into(x, buffer)
    mask = codecs.compress(x, "mask")
    rate = 2 * DENSE_BYTES / seconds(lambda: y.copy_(x))
    must = {
        "encode": DENSE_BYTES + c.nbytes,
        "decode": DENSE_BYTES + c.nbytes,
        "relu and encode, fused": 2 * DENSE_BYTES + c.nbytes,
        "mask": DENSE_BYTES + mask.nbytes,
        "mask, decoded": DENSE_BYTES + mask.nbytes,
    }
    took = {
        "encode": seconds(lambda: codecs.encode_into(x, buffer, overflow="flag")),
        "decode": seconds(lambda: c.decompress(out=y, verify=False)),
        "relu and encode, fused": seconds(
            lambda: codecs.relu_encode(x, out=y, buffer=buffer, overflow="flag")
        ),
        "mask": seconds(lambda: codecs.compress(x, "mask")),
        "mask, decoded": seconds(lambda: mask.decompress(out=y)),
    }
    torch.testing.assert_close(c.decompress(), x, rtol=0, atol=0)
    return {"copy_bytes_per_second": rate} | {
        f"{name}: share of the copy's rate": must[name] / took[name] / rate for name in must
    }


def main() -> None:
    rows: dict[str, Any] = {
        f"{str(dtype)[6:]}, density {density}": row(dtype, density)
        for dtype in (torch.float32, torch.bfloat16)
        for density in (0.25, 0.5, 0.75)
    }
    found = {k: v for k, v in facts("cuda").items() if k in ("device", "torch", "python")}
    result = {"machine": found, "dense_bytes": DENSE_BYTES, "rows": rows}
    print(json.dumps(result, indent=1))
    Path(__file__).with_name("result.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
