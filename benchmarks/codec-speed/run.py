"""Encode and decode against a memory copy and against lossless compressors, paired; see README.md."""

from __future__ import annotations

import argparse
import functools
import json
import math
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import blosc2
import lz4.frame
import numpy as np
import torch
import zstandard
from sklearn.datasets import load_sample_images

import outsize.codecs as codecs
from outsize.codecs.native import Native
from outsize.zoo.recipes import load

#: Seconds of sleep before each call: on a machine that others use, a call then starts with a whole time slice.
REST = 0.03


class Timer:
    """Seconds of each named call, all taken in turn within one repetition, so that they can be paired."""

    def __init__(self) -> None:
        self.wall: dict[str, list[float]] = {}
        self.cpu: dict[str, list[float]] = {}

    def __call__(self, name: str, call: Callable[[], Any]) -> Any:
        time.sleep(REST)
        wall, cpu = time.perf_counter(), time.process_time()
        result = call()
        self.cpu.setdefault(name, []).append(time.process_time() - cpu)
        self.wall.setdefault(name, []).append(time.perf_counter() - wall)
        return result

    def best(self, *names: str) -> float:
        """The sum of the least times of some calls."""
        return sum(min(self.wall[name]) for name in names)

    def against(self, name: str, base: str) -> dict[str, float]:
        """How many times faster `name` is than `base`: best against best, and the median of the pairs."""
        pairs = list(zip(self.wall[base], self.wall[name], strict=True))
        return {
            "best": min(self.wall[base]) / min(self.wall[name]),
            "median_of_pairs": statistics.median(b / n for b, n in pairs),
            "best_processor_time": min(self.cpu[base]) / min(self.cpu[name]),
        }


def random_relu(mebibytes: int) -> torch.Tensor:
    return torch.randn(mebibytes << 18).relu_()


def photographs(count: int) -> torch.Tensor:
    """Crops of 224 x 224 from the two photographs that scikit-learn brings, normalised by channel."""
    images = [torch.from_numpy(i).float().permute(2, 0, 1) for i in load_sample_images().images]
    crops = torch.stack([images[i % 2][:, 40 + 7 * i : 264 + 7 * i, 100:324] for i in range(count)])
    return (crops - crops.mean((0, 2, 3), keepdim=True)) / crops.std((0, 2, 3), keepdim=True)


#: Kind of input → networks whose ReLU outputs are taken, end to end.
KINDS = {"photographs": ("resnet50", "vgg16"), "digits": ("resnet50", "vgg16"), "volumes": ("unet3d",)}


def activations(mebibytes: int, kind: str) -> torch.Tensor:
    """ReLU outputs of the kind's networks, in equal parts."""
    parts: list[torch.Tensor] = []
    for name in KINDS[kind]:
        work = load(name, batch=2)
        for part in work.module.modules():
            if isinstance(part, torch.nn.ReLU):
                part.register_forward_hook(lambda m, i, y: parts.append(y.detach().flatten().clone()))
        with torch.no_grad():
            work.module(photographs(2) if kind == "photographs" else next(work.batches()).args[0])
    step = max(1, sum(p.numel() for p in parts) // (mebibytes << 18))
    return torch.cat([p[: p.numel() // step // 1024 * 1024] for p in parts])


def against_copy(x: torch.Tensor, repeats: int) -> dict[str, Any]:
    timer, y = Timer(), torch.empty_like(x).fill_(1)
    pre = torch.randn_like(x)
    size = x.numel() * x.element_size()
    buffer = torch.zeros(
        codecs.Layout(numel=x.numel(), itemsize=x.element_size()).nbytes(x.numel()), dtype=torch.uint8
    )
    for level, name in enumerate(Native.levels()):
        codecs.encode_into(x, buffer, backend=Native(level)).decompress(out=y)
        if name == "portable":
            continue
        encode = functools.partial(codecs.encode_into, x, buffer, backend=Native(level))
        for _ in range(repeats):
            timer(f"{name}: copy", lambda: y.copy_(x))
            c = timer(f"{name}: encode", encode)
            timer(f"{name}: decode", lambda c=c: c.decompress(out=y))
            timer(f"{name}: one bit each", functools.partial(codecs.compress, x, "mask", Native(level)))
            assert c.encoded.nnz
    for _ in range(repeats):
        timer("relu", lambda: torch.clamp_min(pre, 0, out=y))
        timer("then encode", lambda: codecs.encode_into(y, buffer))
        timer("relu_encode", lambda: codecs.relu_encode(pre, out=y, buffer=buffer))
    timer.wall["relu, then encode"] = [
        a + b for a, b in zip(timer.wall["relu"], timer.wall["then encode"], strict=True)
    ]
    timer.cpu["relu, then encode"] = [
        a + b for a, b in zip(timer.cpu["relu"], timer.cpu["then encode"], strict=True)
    ]
    ratios = {
        key: timer.against(key, f"{key.split(':')[0]}: copy")
        for key in timer.wall
        if ":" in key and not key.endswith("copy")
    }
    return {
        "bytes": size, "density": c.density, "ratio": c.ratio,
        "copy_gb_per_s": size / min(timer.wall[f"{Native.levels()[0]}: copy"]) / 1e9,
        "speed_over_copy": ratios,
        "relu_encode_over_relu_then_encode": timer.against("relu_encode", "relu, then encode"),
    }  # fmt: skip


BLOSC = {
    "blosc2 (shuffle, lz4)": {"codec": blosc2.Codec.LZ4},
    "blosc2 (shuffle, blosclz)": {"codec": blosc2.Codec.BLOSCLZ},
    "blosc2 (bit shuffle, lz4)": {"codec": blosc2.Codec.LZ4, "filters": [blosc2.Filter.BITSHUFFLE]},
}


def others(
    x: torch.Tensor,
) -> dict[str, tuple[Callable[[], Any], Callable[[Any], Any], Callable[[Any], int]]]:
    """Encode, decode and size of each competitor, with outputs reused wherever its interface can."""
    a, out = x.numpy(), torch.empty_like(x)
    mask, values = torch.empty(x.shape, dtype=torch.bool), torch.empty_like(x)
    threads = torch.get_num_threads()
    zstd = zstandard.ZstdCompressor(level=1, threads=threads)
    unzstd = zstandard.ZstdDecompressor()

    def select() -> torch.Tensor:
        torch.ne(x, 0, out=mask)
        return torch.masked_select(x, mask, out=values.resize_(0))

    def unselect(kept: torch.Tensor) -> torch.Tensor:
        return out.zero_().masked_scatter_(mask, kept)

    def unindex(pair: tuple[np.ndarray, np.ndarray]) -> None:
        out.numpy()[:] = 0
        out.numpy()[pair[0]] = pair[1]

    return {
        "torch.masked_select + mask": (select, unselect, lambda v: v.numel() * 4 + x.numel()),
        "numpy boolean index": (lambda: ((m := a != 0), a[m]), unindex, lambda p: p[0].nbytes + p[1].nbytes),
        **{name: (
            lambda s=settings: blosc2.compress2(a, nthreads=threads, typesize=x.element_size(), clevel=1, **s),
            lambda d: blosc2.decompress2(d, dst=out.numpy(), nthreads=threads),
            len,
        ) for name, settings in BLOSC.items()},
        "lz4": (lambda: lz4.frame.compress(a.data), lambda d: lz4.frame.decompress(d), len),
        "zstd -1": (lambda: zstd.compress(a.data), lambda d: unzstd.decompress(d), len),
    }  # fmt: skip


def against_others(x: torch.Tensor, repeats: int) -> dict[str, Any]:
    timer, y = Timer(), torch.empty_like(x)
    buffer = torch.zeros(codecs.Layout(numel=x.numel(), itemsize=4).nbytes(x.numel()), dtype=torch.uint8)
    found, size = {}, x.numel() * 4
    for _ in range(repeats):
        c = timer("encode", lambda: codecs.encode_into(x, buffer))
        timer("decode", lambda c=c: c.decompress(out=y))
        for name, (encode, decode, count) in others(x).items():
            data = timer(f"{name}: encode", encode)
            timer(f"{name}: decode", lambda data=data, decode=decode: decode(data))
            found[name] = count(data) / size
            del data
    return {
        name: {
            "ratio": ratio, "our_ratio_over_theirs": c.ratio / ratio,
            "encode_times_faster": timer.against("encode", f"{name}: encode"),
            "decode_times_faster": timer.against("decode", f"{name}: decode"),
            "both_times_faster": timer.best(f"{name}: encode", f"{name}: decode") / timer.best("encode", "decode"),
        }
        for name, ratio in found.items()
    }  # fmt: skip


def sizes() -> dict[str, Any]:
    """Exact size against the formula and against the entropy of the positions plus the nonzeros."""
    result = {}
    for dtype in (torch.float32, torch.bfloat16):
        for density in (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8):
            numel = 1 << 22
            x = torch.randn(numel).abs().add(1).to(dtype).masked_fill(torch.rand(numel) >= density, 0)
            c, d = codecs.compress(x), codecs.compress(x).density
            bits = -d * math.log2(d) - (1 - d) * math.log2(1 - d)
            formula = 4 * numel // 1024 + numel // 8 + dtype.itemsize * int(torch.count_nonzero(x))
            assert c.nbytes == formula == c.buffer.untyped_storage().nbytes()
            result[f"{dtype}, density {density}"] = c.nbytes / (numel * bits / 8 + dtype.itemsize * c.nnz)
    return result


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=40)
    parser.add_argument("--mebibytes", type=int, default=208)
    args = parser.parse_args()
    x = random_relu(args.mebibytes)
    result = {
        "threads": torch.get_num_threads(), "levels": Native.levels(), "load_average_before": os.getloadavg(),
        "half_zeros": against_copy(x, args.repeats),
    }  # fmt: skip
    for kind in KINDS:
        real = activations(48, kind)
        c = codecs.compress(real)
        result[f"against_others_{kind}"] = {
            "bytes": c.dense_bytes, "density": c.density, "ratio": c.ratio,
            "nonzeros_seen_before": 1 - c.values.unique().numel() / c.nnz,
            **against_others(real, max(3, args.repeats // 10)),
        }  # fmt: skip
    result["size_over_entropy_bound"] = sizes()
    result["load_average_after"] = os.getloadavg()
    text = json.dumps(result, indent=1)
    Path(__file__).with_name("result.json").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
