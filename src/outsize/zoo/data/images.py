"""Images to classify or rebuild: scikit-learn's handwritten digits, enlarged, or arrays of the user's.

The 1,797 digits (8×8, UCI "optical recognition of handwritten digits") come with scikit-learn. Enlarged to the side
that a network was designed for, they cost what photographs cost and are learned in a few steps.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ...errors import WorkloadError
from ..workload import Batch
from .npz import read_npz

_VALIDATION_SHARE = 0.2
#: A class more makes a network's last layer wider, so a number taken for a class would ask for all memory; the largest
#: sets of labelled images have 22 thousand.
_MOST_CLASSES = 2**17


@dataclass(frozen=True, kw_only=True)
class Samples:
    """Inputs (N, C, …) float32 and targets (N, …) int64, already divided into two disjoint parts."""

    train: tuple[Tensor, Tensor]
    validation: tuple[Tensor, Tensor]
    origin: str
    classes: int


def digits(*, seed: int) -> Samples:
    """The digits as (N, 1, 8, 8) of mean 0 and variance 1, with their classes 0 to 9.

    Raises:
        WorkloadError: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise WorkloadError('the digits come with scikit-learn: pip install "outsize[zoo]"') from error
    found = load_digits()
    images = torch.from_numpy(np.ascontiguousarray(found.images, dtype=np.float32))[:, None]
    images = (images - images.mean()) / images.std()
    return divide(
        images, torch.from_numpy(found.target).long(), seed=seed, origin="scikit-learn's digits", classes=10
    )


def arrays(path: Path, *, seed: int, dimensions: int) -> Samples:
    """Arrays of the user's: a `.npz` file with `x` (N, C, …) and integer `y` (N,) or (N, …).

    Args:
        path: the file. It is read without unpickling anything.
        seed: of the division into two parts.
        dimensions: of `x`, as the model wants them.

    Raises:
        WorkloadError: not such a file, or of another shape.
    """
    x, y = read_npz(path, ("x", "y"))
    if x.ndim != dimensions or y.ndim < 1 or len(x) != len(y) or len(x) < 2 or 0 in (x.size, y.size):
        raise WorkloadError(
            f"{path}: x has shape {x.shape} and y {y.shape}; {dimensions} dimensions, none of them empty, and equal "
            "lengths of at least 2 are needed"
        )
    whole = y.dtype.kind != "f" or bool((y == np.floor(y)).all())
    if not whole or not ((y >= 0) & (y < _MOST_CLASSES)).all():
        raise WorkloadError(f"{path}: y holds {y.min()} to {y.max()}; number the classes from 0 without gaps")
    with np.errstate(over="ignore"):
        x = x.astype(np.float32)
    if not np.isfinite(x).all():
        raise WorkloadError(f"{path}: x holds values that are no numbers, which no network learns from")
    return divide(
        torch.from_numpy(x),
        torch.from_numpy(y.astype(np.int64)),
        seed=seed,
        origin=str(path),
        classes=int(y.max()) + 1,
    )


def divide(x: Tensor, y: Tensor, *, seed: int, origin: str, classes: int) -> Samples:
    """Shuffles by the seed and sets a fifth aside."""
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    cut = max(1, int(len(x) * _VALIDATION_SHARE))
    aside, kept = order[:cut], order[cut:]
    return Samples(train=(x[kept], y[kept]), validation=(x[aside], y[aside]), origin=origin, classes=classes)


def enlarge(x: Tensor, *, side: int, channels: int) -> Tensor:
    """(N, C, h, w) to (N, channels, side, side), bilinear; one channel is repeated."""
    if x.shape[-2:] != (side, side):
        x = F.interpolate(x, size=(side, side), mode="bilinear", align_corners=False)
    return x if x.shape[1] == channels else x.expand(-1, channels, -1, -1).contiguous()


def shuffled(part: tuple[Tensor, Tensor], *, batch: int, seed: int) -> Iterator[Batch]:
    """Endless batches, epoch after epoch in a new order; each has `batch` samples."""
    generator, (x, y) = torch.Generator().manual_seed(seed), part
    left = torch.empty(0, dtype=torch.long)
    while True:
        while len(left) < batch:
            left = torch.cat([left, torch.randperm(len(x), generator=generator)])
        chosen, left = left[:batch], left[batch:]
        yield Batch((x[chosen],), y[chosen])


def in_order(part: tuple[Tensor, Tensor], *, batch: int, count: int) -> Iterator[Batch]:
    """At most `count` batches of exactly `batch` samples from the front (all samples where there are fewer)."""
    x, y = part
    for chosen in torch.arange(min(len(x), batch * count)).split(batch):
        if len(chosen) == batch or len(x) < batch:
            yield Batch((x[chosen],), y[chosen])
