"""From the network's probability to one that holds.

On the validation split, where one function in two has a bug, the most probable place is the bug's or it is
not. A logistic curve through these answers (two numbers) turns the network's probability into the observed
frequency. It holds at that share of bugs; for another share the odds are to be multiplied (`at_prior`).
"""

from __future__ import annotations

import dataclasses

import numpy as np

from .evaluate import Floats, Outcome, threshold_for
from .store import Calibration

_EDGE = 1e-6


def logit(probability: Floats) -> Floats:
    clipped = np.clip(probability, _EDGE, 1 - _EDGE)
    return np.asarray(np.log(clipped) - np.log1p(-clipped))


def apply(calibration: Calibration, probability: Floats) -> Floats:
    """Calibrated probabilities, in the order of the raw ones."""
    return np.asarray(1 / (1 + np.exp(-(calibration.slope * logit(probability) + calibration.shift))))


def at_prior(probability: Floats, fitted: float, wanted: float) -> Floats:
    """Probabilities for another share of functions with a bug than the one the calibration saw."""
    odds = (
        probability / np.maximum(1 - probability, _EDGE) * (wanted / (1 - wanted)) * ((1 - fitted) / fitted)
    )
    return np.asarray(odds / (1 + odds))


def fit(buggy: Outcome, sound: Outcome, left_alone: float = 0.85) -> Calibration:
    """Two parameters by Newton's method on the logistic loss, and the operating point.

    Args:
        buggy, sound: outcomes on the same functions with and without a bug.
        left_alone: share of sound functions that the threshold leaves alone.
    """
    x = logit(np.concatenate([buggy.top, sound.top]))
    y = np.concatenate([buggy.located, np.zeros(len(sound.top), np.bool_)]).astype(np.float64)
    design = np.stack([x, np.ones_like(x)], 1)
    weight = np.array([1.0, 0.0])
    for _ in range(50):
        p = 1 / (1 + np.exp(-design @ weight))
        hessian = design.T @ (design * (p * (1 - p))[:, None]) + 1e-9 * np.eye(2)
        step = np.linalg.solve(hessian, design.T @ (y - p))
        weight = weight + step
        if np.abs(step).max() < 1e-10:
            break
    prior = len(buggy.top) / (len(buggy.top) + len(sound.top))
    fitted = Calibration(slope=float(max(weight[0], 1e-3)), shift=float(weight[1]), prior=prior)
    limit = np.array([threshold_for(sound, left_alone)])
    return dataclasses.replace(fitted, threshold=float(apply(fitted, limit)[0]))


def expected_error(calibration: Calibration, buggy: Outcome, sound: Outcome, bins: int = 15) -> float:
    """Expected calibration error: mean distance of probability and frequency over bins of equal size."""
    p = apply(calibration, np.concatenate([buggy.top, sound.top]))
    y = np.concatenate([buggy.located, np.zeros(len(sound.top), np.bool_)])
    parts = np.array_split(np.argsort(p), bins)
    return float(sum(abs(p[i].mean() - y[i].mean()) * len(i) for i in parts if len(i)) / len(p))
