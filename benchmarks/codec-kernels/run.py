"""What the Triton programs became, and the bytes that they move, both without a GPU; see README.md."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any


def machine_code() -> dict[str, Any]:
    from outsize.codecs.kernels.ahead import CASES, TARGETS, compile_ahead

    rows = {}
    for target in TARGETS:
        for case in CASES:
            for size in (1, 2, 4, 8) if case not in ("scan", "digest") else (4,):
                made = compile_ahead(case, size, target)
                rows[f"{target}: {case}, {size}-byte elements"] = {
                    "registers": made.registers, "spilled": made.spilled, "shared_bytes": made.shared_bytes,
                    "widest_load": made.loads[0], "widest_store": made.stores[0] if made.stores else 0,
                }  # fmt: skip
    return rows


def traffic() -> dict[str, Any]:
    import torch

    import outsize.codecs as codecs
    from outsize.codecs.kernels.backend import Triton
    from outsize.codecs.kernels.traffic import count_traffic

    rows = {}
    for dtype in (torch.float32, torch.bfloat16):
        for density in (0.25, 0.5, 0.75):
            x = torch.randn(1 << 17).abs().add(1).to(dtype).masked_fill(torch.rand(1 << 17) >= density, 0)
            dense = x.numel() * dtype.itemsize
            buffer = torch.empty(2 * dense, dtype=torch.uint8)
            with count_traffic() as encoding:
                c = codecs.encode_into(x, buffer, backend=Triton())
            with count_traffic() as decoding:
                c.decompress()
            with count_traffic() as three_steps:
                codecs.compress(x, backend=Triton())
            rows[f"{dtype}, density {density}"] = {
                "minimum_bytes_per_element": (dense + c.nbytes) / x.numel(),
                "encode_over_minimum": sum(encoding) / (dense + c.nbytes),
                "decode_verified_over_minimum": sum(decoding) / (dense + c.nbytes),
                "claim_1_in_three_steps_over_minimum": sum(three_steps) / (dense + c.nbytes),
            }
    return rows


def main() -> None:
    if sys.argv[1:] == ["traffic"]:
        print(json.dumps(traffic()))
        return
    command = [sys.executable, __file__, "traffic"]
    done = subprocess.run(
        command, env={**os.environ, "TRITON_INTERPRET": "1"}, check=True, capture_output=True, text=True
    )
    result = {"traffic": json.loads(done.stdout), "machine_code": machine_code()}
    Path(__file__).with_name("result.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result["traffic"], indent=1))


if __name__ == "__main__":
    main()
