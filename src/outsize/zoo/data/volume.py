"""Volumes to segment: overlapping spheres seen through a fluorescence microscope, simulated.

The physics, in order: spheres (cells) with random places, radii and dye concentrations; light lost with depth
(Beer–Lambert); an anisotropic Gaussian point-spread function, three times wider along the optical axis; photon
counting (Poisson) and read-out noise (Gaussian). To segment: 0 outside, 1 inside one sphere, 2 where spheres overlap,
which brightness alone cannot tell, since dye concentrations differ. In two dimensions the same with discs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from ..workload import Batch

CLASSES = 3


@dataclass(frozen=True, kw_only=True)
class Microscope:
    """The instrument. Lengths are shares of the volume's side.

    Attributes:
        cells: spheres per volume, on average.
        radius: smallest and largest.
        photons: expected count at dye concentration 1 at the surface.
        background: expected count outside.
        absorption: exponent of the light lost over the whole depth.
        spread: standard deviation of the point-spread function across the optical axis; three times that along it.
        read_noise: standard deviation of the read-out, in counts.
    """

    cells: float = 14.0
    radius: tuple[float, float] = (0.08, 0.2)
    photons: float = 40.0
    background: float = 4.0
    absorption: float = 0.5
    spread: float = 0.01
    read_noise: float = 1.5


def simulate(
    side: int, dimensions: int, rng: np.random.Generator, scope: Microscope
) -> tuple[np.ndarray, np.ndarray]:
    """One volume: counts, standardised, (side, …) float32, and its classes (side, …) int64."""
    from scipy.ndimage import gaussian_filter

    axes = np.meshgrid(*[np.linspace(0, 1, side)] * dimensions, indexing="ij", sparse=True)
    dye, layers = np.zeros((side,) * dimensions), np.zeros((side,) * dimensions, dtype=np.int64)
    for _ in range(max(2, rng.poisson(scope.cells))):
        centre, radius = rng.random(dimensions), rng.uniform(*scope.radius)
        inside = sum((axis - c) ** 2 for axis, c in zip(axes, centre, strict=True)) < radius**2
        dye += inside * rng.uniform(0.5, 1.5)
        layers += inside
    light = np.exp(-scope.absorption * axes[0])
    width = scope.spread * side
    seen = gaussian_filter(dye * light, [3 * width] + [width] * (dimensions - 1), mode="nearest")
    counts = rng.poisson(scope.photons * seen + scope.background) + rng.normal(
        0, scope.read_noise, seen.shape
    )
    standard = (counts - counts.mean()) / (counts.std() + 1e-6)
    return standard.astype(np.float32), np.minimum(layers, CLASSES - 1)


def volumes(
    *, side: int, dimensions: int, batch: int, seed: int, part: int, scope: Microscope | None = None
) -> Iterator[Batch]:
    """Endless fresh volumes: args ((batch, 1, side, …) float32,), target (batch, side, …) int64.

    Args:
        side: of the volume, in voxels.
        dimensions: 2 or 3.
        batch: volumes per batch.
        seed: of everything random.
        part: 0 for training, 1 for validation: streams of different parts are independent.
        scope: the instrument.
    """
    rng = np.random.default_rng([seed, part])
    while True:
        pairs = [simulate(side, dimensions, rng, scope or Microscope()) for _ in range(batch)]
        x = torch.from_numpy(np.stack([pair[0] for pair in pairs]))[:, None]
        yield Batch((x,), torch.from_numpy(np.stack([pair[1] for pair in pairs])))
