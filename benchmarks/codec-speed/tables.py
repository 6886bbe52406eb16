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


def main() -> None:
    speed, training, kernels = result("speed"), result("training"), result("kernels")
    lossy, entropy = result("lossy"), result("entropy")
    half = speed["half_zeros"]
    parts = [
        f"## Measured\n\nTwo cores, load average {speed['load_average_before'][0]:.0f} (others were working); "
        f"speed over `copy_` of the same {half['bytes'] >> 20} MiB, half zeros, fp32 (benchmarks/codec-speed):",
        table(
            "| | best | median of pairs | processor time |",
            [[k, v["best"], v["median_of_pairs"], v["best_processor_time"]] for k, v in half["speed_over_copy"].items()]
            + [["relu_encode over relu, then encode", *half["relu_encode_over_relu_then_encode"].values()]],
        ),
        "ReLU outputs for photographs: times faster (best), and our size over theirs:",
        table(
            "| against | encode | decode | size |",
            [
                [k, v["encode_times_faster"]["best"], v["decode_times_faster"]["best"], v["our_ratio_over_theirs"]]
                for k, v in speed["against_others_photographs"].items()
                if isinstance(v, dict)
            ],
        ),
        "Saved bytes of a training step over the plain ones (benchmarks/codec-training), gradients bitwise equal:",
        table(
            "| network | all storages | share encoded | encoded ones | equal |",
            [
                [k, v["ratio_last_step"], v["share_of_bytes_encoded"], v["ratio_of_encoded_storages"],
                 v["gradients_bitwise_equal"]]
                for k, v in training.items()
                if isinstance(v, dict)
            ],
        ),
        "Triton, bytes moved over the minimum (benchmarks/codec-kernels):",
        table(
            "| | encode | decode | in three steps |",
            [
                [k, v["encode_over_minimum"], v["decode_verified_over_minimum"], v["claim_1_in_three_steps_over_minimum"]]
                for k, v in kernels["traffic"].items()
            ],
        ),
        "Lossy saved tensors, loss minus plain per seed (benchmarks/codec-lossy):",
        table(
            "| codec | seed 0 | seed 1 | seed 2 | saved bytes |",
            [
                [k, *map(float, v["loss_minus_plain"]), v["saved_bytes_ratio"]]
                for k, v in lossy.items()
                if isinstance(v, dict) and "loss_minus_plain" in v
            ],
        ),
        "Dense activations, compressed over dense bytes (benchmarks/codec-entropy):",
        table(
            "| | fp32 | bf16 |",
            [
                [k, v["ratio"], entropy["torch.bfloat16"][k]["ratio"]]
                for k, v in entropy["torch.float32"].items()
                if isinstance(v, dict) and "ratio" in v
            ],
        ),
    ]  # fmt: skip
    page = ROOT / "docs" / "codecs.md"
    page.write_text(page.read_text().split(MARK)[0] + MARK + "\n\n" + "\n\n".join(parts) + "\n")


if __name__ == "__main__":
    main()
