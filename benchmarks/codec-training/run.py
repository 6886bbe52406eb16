"""Saved bytes of ResNet-50 and VGG-16 in training, with and without compression; see README.md."""

from __future__ import annotations

import argparse
import copy
import json
import math
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch import nn

import outsize.codecs as codecs
from outsize import api
from outsize.codecs.hooks import SavedTensors

sys.path.insert(0, str(Path(__file__).parents[1]))
from codec_nets import WITHOUT_NORM, workload


class Watch:
    """Every ReLU's output of one forward pass, in order: densities, and a sampled estimate of each."""

    def __init__(self, module: nn.Module) -> None:
        self.density: list[float] = []
        self.error: list[float] = []
        self.positives: list[int] = []
        for part in module.modules():
            if isinstance(part, nn.ReLU):
                part.register_forward_hook(self._see)

    def _see(self, module: nn.Module, inputs: Any, output: torch.Tensor) -> None:
        true = torch.count_nonzero(output.detach()).item() / output.numel()
        self.density.append(true)
        self.error.append(abs(codecs.sample_density(output) - true))
        self.positives.append(output.numel())

    def take(self) -> tuple[list[float], list[float]]:
        taken = self.density, self.error
        self.density, self.error = [], []
        return taken


class Lower:
    """What an ideal order-0 coder of bytes would leave of the storages that the hooks keep dense."""

    def __init__(self) -> None:
        self.bits = self.bytes = 0.0

    def add(self, tensor: torch.Tensor) -> None:
        data = tensor.detach().contiguous().view(torch.uint8).view(-1, tensor.element_size())
        data = data[: 1 << 20]
        entropy = 0.0
        for plane in data.t():
            share = torch.bincount(plane.int(), minlength=256).double() / len(plane)
            entropy -= float((share * share.clamp_min(1e-300).log2()).sum())
        self.bits += entropy * tensor.numel()
        self.bytes += tensor.numel() * tensor.element_size()


def step(module: nn.Module, loss_fn: Any, batch: Any, saved: SavedTensors | None) -> list[torch.Tensor]:
    for p in module.parameters():
        p.grad = None
    torch.manual_seed(0)
    if saved is None:
        loss = loss_fn(module(*batch.args), batch.target)
    else:
        with saved:
            loss = loss_fn(module(*batch.args), batch.target)
    loss.backward()
    return [loss.detach(), *(p.grad.clone() for p in module.parameters())]


def entropy_of_kept(module: nn.Module, loss_fn: Any, batch: Any) -> float:
    """Ideal order-0 bytes over dense bytes of the float storages that are too dense to encode."""
    lower, seen, own = Lower(), set(), {p.untyped_storage()._cdata for p in module.parameters()}
    keep = []

    def look(t: torch.Tensor) -> torch.Tensor:
        cdata = t.untyped_storage()._cdata
        if t.is_floating_point() and cdata not in seen | own and t.numel() > 1 << 14:
            seen.add(cdata)
            keep.append(t)
            if codecs.sample_density(t) > codecs.Policy().max_density:
                lower.add(t)
        return t

    with torch.autograd.graph.saved_tensors_hooks(look, lambda t: t):
        loss_fn(module(*batch.args), batch.target)
    return lower.bits / 8 / lower.bytes if lower.bytes else 0.0


def by_kind(name: str, batch_size: int) -> dict[str, Any]:
    """Bytes kept from the forward to the backward pass in the captured graph, by the operator that makes them."""
    module, work = workload(name, batch_size)
    graph = api.capture(module, work.example().args).graph
    kept: Counter[str] = Counter()
    for s in graph.storages:
        made_in = graph.ops[s.producer].phase if s.kind == "activation" and s.producer >= 0 else ""
        if made_in == "forward" and any(graph.ops[use].phase == "backward" for use in s.uses):
            kept[graph.ops[s.producer].target.split(".")[1]] += s.nbytes
    total = sum(kept.values())
    return {"bytes": total, **{kind: size / total for kind, size in kept.most_common(6)}}


def measure(name: str, batch_size: int, steps: int) -> dict[str, Any]:
    module, work = workload(name, batch_size)
    batches = work.batches()
    watch = Watch(module)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.005, momentum=0.9)
    rises, errors, ratios, before = [], [], [], None
    equal = True
    for number in range(steps):
        batch = next(batches)
        if number in (0, steps - 1):
            other = copy.deepcopy(module)
            plain = step(other, work.loss_fn, batch, None)
            del other
            watch.take()
        saved = codecs.saved_tensors_hooks(module)
        gradients = step(module, work.loss_fn, batch, saved)
        density, error = watch.take()
        if number in (0, steps - 1):
            equal &= all(torch.equal(a, b) for a, b in zip(plain, gradients, strict=True))
        errors += error
        rises += [] if before is None else [b - a for a, b in zip(before, density, strict=True)]
        before = density
        ratios.append(saved)
        optimizer.step()
    last = ratios[-1]
    encoded_dense = last.dense_bytes - last.kept_bytes
    return {
        "batch": batch_size, "steps": steps, "gradients_bitwise_equal": equal,
        "saved_bytes_dense": last.dense_bytes, "saved_bytes_with_codec": last.saved_bytes,
        "ratio_first_step": ratios[0].ratio, "ratio_last_step": last.ratio,
        "share_of_bytes_encoded": encoded_dense / last.dense_bytes,
        "ratio_of_encoded_storages": (last.saved_bytes - last.kept_bytes) / encoded_dense,
        "order0_byte_entropy_of_kept_storages": entropy_of_kept(module, work.loss_fn, batch),
        "relu_density_mean": sum(before) / len(before), "relu_density_min": min(before), "relu_density_max": max(before),
        "density_rise_largest": max(rises), "density_rise_p99": sorted(rises)[math.ceil(0.99 * len(rises)) - 1],
        "sample_error_largest": max(errors), "sample_error_mean": sum(errors) / len(errors),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("names", nargs="*", default=["resnet50", "vgg16", WITHOUT_NORM])
    args = parser.parse_args()
    file = Path(__file__).with_name("result.json")
    result = json.loads(file.read_text()) if file.exists() else {}
    for name in args.names:
        if args.steps:
            result[name] = measure(name, 4, args.steps)
        result[name]["kept_in_the_graph"] = by_kind(name, 4)
        print(name, json.dumps(result[name], indent=1), flush=True)
        file.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
