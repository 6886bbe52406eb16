"""Write the table of docs/parallel.md from the committed results; no number is typed.

python benchmarks/parallel-step/table.py
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "parallel.md"


def read(name: str) -> Any:
    return json.loads((HERE / name).read_text())


def rows() -> list[tuple[str, str, str]]:
    two, four, conv = read("result-mlp-2.json"), read("result-mlp-4.json"), read("result-conv-2.json")
    ddp, arena = two["ratios"]["ddp"], two["ratios"]["ddp-arena"]
    memory = {n: read(f"result-memory-{n}.json")["ratios"]["ddp"]["peak_pss"] for n in (2, 4)}
    kernel = read("../parallel-kernel/result.json")
    suite = read("../parallel-ddp-suite/result.json")["counts"]
    error = kernel["largest_error_against_fp64_after_20_steps"]
    spent = [ddp[f"synchronise_and_update_{kind}"] for kind in ("wall", "cpu")]
    default = read("result-default-2.json")["ratios"]["ddp-default"]
    chunks = read("../parallel-chunks/result.json")
    sweep = [f"{chunks[f'found_over_best_{kind}']:.2f}" for kind in ("median_of_pairs", "medians")]
    simulated = read("../parallel-simulate/result.json")["predicted_over_measured"]
    counts = [str(suite[kind]) for kind in ("passed", "expected_failures", "failed")]
    return [
        ("50.4 M MLP, batch 16, 2 workers: DDP step ÷ ours, minima", "≥ 1.8", f"{ddp['wall_min']:.2f}"),
        ("the same, DDP also with outsize's page allocator", "", f"{arena['wall_min']:.2f}"),
        ("the same against DDP with torch's default AdamW", "", f"{default['wall_min']:.2f}"),
        ("synchronise + update, 2 workers: wall, CPU seconds", "≥ 4", ", ".join(f"{s:.2f}" for s in spent)),
        ("found chunk size ÷ best of a sweep, median of pairs, ratio of medians", "≤ 1.05", ", ".join(sweep)),
        ("simulated ÷ measured step, 1 and 4 workers", "", f"{simulated['1']:.2f}, {simulated['4']:.2f}"),
        ("CPU seconds per step, 4 workers, batch 4", "≥ 2.0", f"{four['ratios']['ddp']['cpu_min']:.2f}"),
        ("step, 4 workers on 2 cores, minima", "", f"{four['ratios']['ddp']['wall_min']:.2f}"),
        ("peak memory of the node, 2 workers", "≥ 1.7", f"{memory[2]:.2f}"),
        ("peak memory of the node, 4 workers", "≥ 2.5", f"{memory[4]:.2f}"),
        ("convolutional net, 2 workers, minima", "≥ 0.98", f"{conv['ratios']['ddp']['wall_min']:.2f}"),
        ("fused sum + AdamW, share of the bandwidth floor", "≥ 0.80", f"{kernel['share_of_floor_min']:.2f}"),
        ("error against fp64, ours; torch fused", "≤", f"{error['ours']:.2g}; {error['torch_fused']:.2g}"),
        ("torch's DDP tests: passed, expected failures, failed", "", ", ".join(counts)),
    ]  # fmt: skip


def main() -> None:
    lines = ["| what | bar | measured |", "|---|---|---|", *(f"| {a} | {b} | {c} |" for a, b, c in rows())]
    block = "<!-- table -->\n" + "\n".join(lines) + "\n<!-- end -->\n"
    text = re.sub(r"<!-- table -->\n(?:.*?<!-- end -->\n)?", lambda _: block, PAGE.read_text(), flags=re.S)
    PAGE.write_text(text)


if __name__ == "__main__":
    main()
