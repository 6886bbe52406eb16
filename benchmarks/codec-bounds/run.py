"""What encoding can reach at most, computed from captured steps and committed measurements; see README.md."""

from __future__ import annotations

import json
import sys
from math import log2
from pathlib import Path
from typing import Any

from outsize.api import capture
from outsize.values import StepGraph, Storage

sys.path.insert(0, str(Path(__file__).parents[1]))
from codec_nets import WITHOUT_NORM, workload

HERE = Path(__file__).parent
#: Name → batch, as in ../codec-step.
NETWORKS = {"resnet50": 8, "vgg16": 8, WITHOUT_NORM: 16}
#: Encoded over dense bytes of a half-dense fp32 storage, and of its mask.
NONZEROS, MASK = 0.5 + 1 / 32 + 1 / 1024, 1 / 32
DENSITIES = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)


def committed(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((HERE.parent / name / "result.json").read_text())
    return found


def waiting_bytes(storage: Storage, position: int, *, encode: bool) -> float:
    """The fewest bytes that a storage takes while it waits for its next use behind `position`."""
    later = [use for use in storage.uses if use > position]
    if not encode or not later or not storage.zeros:
        return storage.nbytes if later else 0
    return storage.nbytes * (MASK if 0 <= storage.mask_from <= later[0] else NONZEROS)


def floor(graph: StepGraph, *, encode: bool) -> int:
    """The bytes that no plan goes below: at each position what is resident, what the operator reads and writes,
    what was handed out before, and, where encoding is the only action, the encodings of all that waits."""
    most = 0.0
    for op in graph.ops:
        touched = {*op.reads, *op.writes}
        held = float(graph.resident_bytes)
        for s in graph.storages:
            if s.kind == "resident" or s.producer > op.index:
                continue
            if s.index in touched or (s.kind != "activation" and s.producer <= op.index):
                held += s.nbytes
            elif encode:
                held += waiting_bytes(s, op.index, encode=True)
        most = max(most, held)
    return int(most)


def steps() -> dict[str, Any]:
    result = {}
    for name, batch in NETWORKS.items():
        module, work = workload(name, batch)
        graph = capture(module, work.example().args).graph
        peak = max(graph.plain_residency())
        result[name] = {
            "batch": batch, "plain_peak_bytes": peak,
            "resident_over_plain_peak": graph.resident_bytes / peak,
            "any_plan_over_plain_peak": floor(graph, encode=False) / peak,
            "encode_alone_over_plain_peak": floor(graph, encode=True) / peak,
        }  # fmt: skip
        print(name, json.dumps(result[name], indent=1), flush=True)
    return result


def saved_bytes() -> dict[str, float]:
    """Saved bytes if every storage that is not encoded went through an ideal coder of its byte planes."""
    found = {}
    for name, v in committed("codec-training").items():
        if isinstance(v, dict):
            share = v["share_of_bytes_encoded"]
            others = (1 - share) * v["order0_byte_entropy_of_kept_storages"]
            found[name] = share * v["ratio_of_encoded_storages"] + others
    return found


def size_over_bound(bits: int) -> dict[str, float]:
    """`d · bits + 1 + 32/1024` bits per element over the entropy of the positions and the nonzeros."""
    entropy = {d: -d * log2(d) - (1 - d) * log2(1 - d) for d in DENSITIES}
    return {str(d): (d * bits + 1 + 32 / 1024) / (d * bits + entropy[d]) for d in DENSITIES}


def decoding() -> dict[str, dict[str, float]]:
    """How many times faster than others a decoder would be that runs at the rate of a memory copy."""
    speed = committed("codec-speed")
    ours = speed["half_zeros"]["speed_over_copy"]["avx2: decode"]["best"]
    return {
        kind.removeprefix("against_others_"): {
            name: v["decode_times_faster"]["best"] / ours for name, v in found.items() if isinstance(v, dict)
        }
        for kind, found in speed.items()
        if kind.startswith("against_others_")
    }


def main() -> None:
    result = {
        "steps": steps(),
        "saved_bytes_with_an_ideal_coder_for_the_rest": saved_bytes(),
        "size_over_entropy_bound": {"float32": size_over_bound(32), "bfloat16": size_over_bound(16)},
        "decoding_at_the_rate_of_a_copy_times_faster": decoding(),
    }
    (HERE / "result.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
