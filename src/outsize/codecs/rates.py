"""What a planner must know of a codec: how many bytes it leaves, and how fast.

Sizes follow from the density, which changes slowly from step to step: `sample_density` looks at a few
thousand elements, `DensityMeter` remembers what each storage had and says what to plan for. Rates are
measured once per machine, codec and dtype, in warm memory.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass
from typing import final

import torch

from .choose import choose
from .contract import Backend
from .dense import flatten
from .layout import BLOCK, Layout
from .mask import compress_mask
from .relu import encode_into

__all__ = ["DensityMeter", "Rates", "measure_rates", "sample_density", "worthwhile"]


def sample_density(tensor: torch.Tensor, *, blocks: int = 64) -> float:
    """The share of nonzero elements, from `blocks` runs of 1024 elements spread evenly over the memory.

    Whole runs, because zeros cluster by channel and row and a run costs one pass over a few cache lines: 64
    are 256 KiB of fp32 whatever the tensor's size. On the activations of ResNet-50 and VGG-16 in training the
    estimate was 0.005 to 0.011 off on average and 0.045 at worst (benchmarks/codec-training). Exact up to
    65,536 elements. Waits for a GPU.

    Args:
        tensor: dense, of any shape and dtype, on the CPU or a GPU.
        blocks: how many runs are read.

    Returns:
        0 to 1.
    """
    flat, _ = flatten(tensor, "sample_density")
    numel = flat.numel()
    if numel > blocks * BLOCK:
        step = (numel - BLOCK) // (blocks - 1) // 16 * 16 if blocks > 1 else 1
        flat = flat.as_strided((blocks, BLOCK), (step, 1))
    return float((flat != 0).double().mean()) if numel else 0.0


@final
@dataclass(frozen=True, kw_only=True)
class DensityMeter:
    """Densities seen per storage, and the one to plan the next buffer for.

    Attributes:
        margin: added to the densest of the last `window` steps. From one step to the next the density of a
            storage of ResNet-50 and VGG-16 in training rose by at most 0.038 (benchmarks/codec-training).
        window: steps remembered.
    """

    margin: float = 0.04
    window: int = 4

    def __post_init__(self) -> None:
        object.__setattr__(self, "_seen", {})

    def observe(self, key: str, density: float) -> None:
        """Notes the density that storage `key` had in this step.

        Args:
            key: names the storage.
            density: share of nonzeros, 0 to 1.
        """
        self._history.setdefault(key, deque(maxlen=self.window)).append(density)

    def planned(self, key: str) -> float | None:
        """The density to plan for, or None if the storage was never seen.

        Args:
            key: names the storage.

        Returns:
            a share of nonzeros, 0 to 1, or None.
        """
        seen = self._history.get(key)
        return min(1.0, max(seen) + self.margin) if seen else None

    @property
    def _history(self) -> dict[str, deque[float]]:
        history: dict[str, deque[float]] = self.__dict__["_seen"]
        return history


@final
@dataclass(frozen=True, kw_only=True)
class Rates:
    """Dense bytes per second of a codec on one device, and the density they were measured at.

    Attributes:
        codec: key of `CODECS`.
        backend: what ran it.
        density: share of nonzero elements, 0 to 1.
        encode, decode: dense bytes per second.
    """

    codec: str
    backend: str
    density: float
    encode: float
    decode: float


def measure_rates(
    codec: str = "relu",
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    nbytes: int = 64 << 20,
    density: float = 0.5,
    repeats: int = 5,
    backend: str | Backend | None = None,
) -> Rates:
    """Times a codec ("relu" or "mask") in warm buffers; the best of `repeats`.

    Args:
        nbytes: dense size; the default is twice a large last-level cache, since activations do not fit one.
        codec: a key of `CODECS`.
        device: where.
        dtype: of the elements.
        density: share of nonzero elements, 0 to 1.
        repeats: how often each is timed.
        backend: as for `compress`.

    Returns:
        dense bytes per second, either way.
    """
    device = torch.device(device)
    chosen = choose(backend, device)
    numel = max(1, nbytes // dtype.itemsize)
    x = (torch.rand(numel, device=device) < density).to(dtype)
    out = torch.empty_like(x)
    layout = Layout(numel=numel, itemsize=dtype.itemsize)
    buffer = torch.zeros(layout.nbytes(numel), dtype=torch.uint8, device=device)
    encode = decode = float("inf")
    for _ in range(repeats + 1):  # the first touches the memory
        start = _now(device)
        c = encode_into(x, buffer, backend=chosen) if codec == "relu" else compress_mask(x, chosen)
        middle = _now(device)
        c.decompress(out=out)
        end = _now(device)
        encode, decode = min(encode, middle - start), min(decode, end - middle)
    size = x.numel() * x.element_size()
    return Rates(
        codec=codec, backend=chosen.name, density=density, encode=size / encode, decode=size / decode
    )


def worthwhile(*, ratio: float, encode: float, decode: float, tier: float, memory: float) -> bool:
    """Whether encoding before a tier beats moving the dense bytes, when both passes are on the lanes' time.

    Args:
        ratio: compressed over dense bytes.
        encode, decode: dense bytes per second of the codec.
        tier: bytes per second of the tier's link, one way.
        memory: bytes per second of a copy in memory, which a plain swap pays once each way.

    Returns:
        True where it takes less time.
    """
    plain = 2 / tier + 2 / memory
    return 1 / encode + 1 / decode + 2 * ratio / tier < plain


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
