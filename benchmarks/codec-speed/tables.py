"""Writes the measured tables of docs/codecs.md from the committed results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
MARK = "<!-- measured -->"


def result(name: str) -> dict[str, Any]:
    return json.loads((ROOT / "benchmarks" / f"codec-{name}" / "result.json").read_text())


def table(header: str, rows: list[list[object]]) -> str:
    lines = [header, "|" + "---|" * (header.count("|") - 1)]
    lines += [
        "| " + " | ".join(f"{c:.3g}" if isinstance(c, float) else str(c) for c in row) + " |" for row in rows
    ]
    return "\n".join(lines)


def speed_section(r: dict[str, Any]) -> str:
    half = r["half_zeros"]
    rows = [
        [k, v["best"], v["median_of_pairs"], v["best_processor_time"]]
        for k, v in half["speed_over_copy"].items()
    ]
    rows += [["relu_encode over relu, then encode", *half["relu_encode_over_relu_then_encode"].values()]]
    others = [
        [
            f"{kind.removeprefix('against_others_')}: {k}",
            v["encode_times_faster"]["best"],
            v["decode_times_faster"]["best"],
            v["both_times_faster"],
            v["our_ratio_over_theirs"],
        ]
        for kind, found in r.items()
        if kind.startswith("against_others_")
        for k, v in found.items()
        if isinstance(v, dict)
    ]
    return (
        f"Two cores; speed over `copy_` of the same "
        f"{half['bytes'] >> 20} MiB of fp32, half zeros (benchmarks/codec-speed):\n\n"
        + table("| | best | median of pairs | processor time |", rows)
        + "\n\nReLU outputs: times faster (best of each), and our size over theirs:\n\n"
        + table("| against | encode | decode | both | size |", others)
    )


def training_section(r: dict[str, Any]) -> str:
    keys = ("ratio_last_step", "share_of_bytes_encoded", "ratio_of_encoded_storages")
    keys += ("order0_byte_entropy_of_kept_storages", "gradients_bitwise_equal")
    rows = [[name, *(v[k] for k in keys)] for name, v in r.items() if isinstance(v, dict)]
    return "Saved bytes of a training step over the plain ones (benchmarks/codec-training):\n\n" + table(
        "| network | all storages | share encoded | encoded ones | entropy of the others | bitwise equal |",
        rows,
    )


def step_section(r: dict[str, Any]) -> str:
    rows = [
        [f"{name}: {way}", v["budget_over_plain_peak"], v["step_over_plain"]["median_of_pairs"],
         v["step_over_plain"]["best"], v["kept_over_plain"], v["bitwise_equal"]]
        for name, ways in r.items()
        if isinstance(ways, dict)
        for way, v in ways.items()
        if isinstance(v, dict)
    ]  # fmt: skip
    return (
        "Training steps whose plan may only encode, or encode and recompute (benchmarks/codec-step):\n\n"
        + table(
            "| network and actions | budget ÷ peak | time, median | time, best | kept bytes | bitwise equal |",
            rows,
        )
    )


def kernels_section(r: dict[str, Any]) -> str:
    keys = ("encode_over_minimum", "decode_verified_over_minimum", "claim_1_in_three_steps_over_minimum")
    rows = [[name, *(v[k] for k in keys)] for name, v in r["traffic"].items()]
    return (
        "Triton, bytes moved over the minimum, counted in its interpreter (benchmarks/codec-kernels):\n\n"
        + table("| | encode | decode | in three steps |", rows)
    )


def lossy_section(r: dict[str, Any]) -> str:
    rows = [
        [k, *v["loss_minus_plain"], v["saved_bytes_ratio"]]
        for k, v in r.items()
        if isinstance(v, dict) and "loss_minus_plain" in v
    ]
    return (
        f"Lossy saved tensors, {r['steps']} steps: loss minus the plain one, per seed (benchmarks/codec-lossy):\n\n"
        + table("| codec | seed 0 | seed 1 | seed 2 | saved bytes |", rows)
    )


def entropy_section(r: dict[str, Any]) -> str:
    rows = [
        [k, v["ratio"], r["torch.bfloat16"][k]["ratio"]]
        for k, v in r["torch.float32"].items()
        if isinstance(v, dict) and "ratio" in v
    ]
    return "Dense (GELU) activations, compressed over dense bytes (benchmarks/codec-entropy):\n\n" + table(
        "| | fp32 | bf16 |", rows
    )


SECTIONS = {
    "speed": speed_section, "step": step_section, "training": training_section, "kernels": kernels_section,
    "lossy": lossy_section, "entropy": entropy_section,
}  # fmt: skip


def main() -> None:
    made = [
        section(result(name))
        for name, section in SECTIONS.items()
        if (ROOT / "benchmarks" / f"codec-{name}" / "result.json").exists()
    ]
    page = ROOT / "docs" / "codecs.md"
    head = page.read_text().split(MARK)[0]
    page.write_text(head + MARK + "\n\n## Measured\n\n" + "\n\n".join(made) + "\n")


if __name__ == "__main__":
    main()
