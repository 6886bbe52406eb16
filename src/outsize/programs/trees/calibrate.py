"""From the network's probability to one that holds.

Training draws the kinds of bugs as often as suits learning; how likely each is against the others, and against no bug,
is set afterwards: one number per kind, added to the logits of its rewrites (`balanced`), fitted on the validation
split so that the kinds weigh the same.

On the validation split, where one function in two has a bug, the most probable place is the bug's or it is
not. A logistic curve through these answers (two numbers) turns the network's probability into the observed
frequency. It holds at that share of bugs; for another share the odds are to be multiplied (`at_prior`).
"""

from __future__ import annotations

import dataclasses
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from .batch import collate
from .evaluate import Floats, Outcome, Scorer, batches, threshold_by_package
from .functions import Functions
from .grammar import PLACES
from .inject import KINDS, inject
from .model import Detector
from .store import Calibration
from .words import WordTable

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
        left_alone: share of sound functions that the threshold leaves alone, in other packages too.
    """
    x = logit(np.concatenate([buggy.top, sound.top]))
    y = np.concatenate([buggy.located, np.zeros(len(sound.top), np.bool_)]).astype(np.float64)
    design = np.stack([x, np.ones_like(x)], 1)
    # Held to "as it is" with the weight of one observation: answers that can be told apart without error have no
    # finite slope.
    raw = np.array([1.0, 0.0])
    weight = raw.copy()
    for _ in range(50):
        p = np.exp(-np.logaddexp(0, -design @ weight))
        hessian = design.T @ (design * (p * (1 - p))[:, None]) + np.eye(2)
        step = np.linalg.solve(hessian, design.T @ (y - p) + raw - weight)
        weight = weight + step
        if np.abs(step).max() < 1e-10:
            break
    prior = len(buggy.top) / (len(buggy.top) + len(sound.top))
    fitted = Calibration(slope=float(max(weight[0], 1e-3)), shift=float(weight[1]), prior=prior)
    limit = np.array([threshold_by_package(sound, left_alone)])
    return dataclasses.replace(fitted, threshold=float(apply(fitted, limit)[0]))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Logits:
    """Rewrites of many functions, half of which have a bug.

    Attributes:
        value: `[rewrites]` the network's logit.
        kind: `[rewrites]` the place's kind.
        function: `[rewrites]` which function.
        answer: `[functions]` index of the repairing rewrite, -1 without a bug.
    """

    value: Tensor
    kind: Tensor
    function: Tensor
    answer: Tensor


@torch.no_grad()
def logits_of(model: Scorer, functions: Functions, words: WordTable, *, seed: int, size: int = 128) -> Logits:
    """Score every function once, half of them with a bug drawn evenly over the four kinds."""
    rng = np.random.default_rng(seed)
    parts: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
    rewrites = seen = 0
    for chosen in batches(functions.count, size):
        drawn = functions.select(chosen)
        batch = collate(drawn, words, inject(drawn, rng, share=0.5, kinds=KINDS), KINDS)
        if not batch.table.count:
            continue
        _, logits = model(batch)
        changed = torch.nonzero(~batch.candidate_current)[:, 0]
        place = batch.candidate_place[changed]
        rank = torch.cumsum(~batch.candidate_current, 0) - 1
        answer = torch.where(batch.repair >= 0, rank[batch.repair.clamp(min=0)] + rewrites, -1)
        parts.append((logits[changed], batch.place_kind[place], batch.place_function[place] + seen, answer))
        rewrites += len(changed)
        seen += batch.functions
    value, kind, function, answer = (torch.cat(column) for column in zip(*parts))
    return Logits(value=value.double(), kind=kind, function=function, answer=answer)


def kind_shifts(found: Logits) -> Tensor:
    """`[places]` what to add to the logits of each kind: the most probable, each kind and no bug at all weighing the
    same. A kind without a bug in `found` stays as it is.
    """
    buggy = found.answer >= 0
    kind_of_bug = torch.where(buggy, found.kind[found.answer.clamp(min=0)], len(PLACES))
    count = torch.bincount(kind_of_bug, minlength=len(PLACES) + 1).double()
    kinds = int((count[:-1] > 0).sum())
    weight = torch.where(count > 0, 1 / (count.clamp(min=1) * max(kinds, 1)), 0.0)
    weight[-1] = 1 / count[-1].clamp(min=1)
    shift = torch.zeros(len(PLACES), dtype=torch.float64, requires_grad=True)
    free = (count[:-1] > 0).double()
    functions = len(found.answer)
    optimizer = torch.optim.LBFGS([shift], max_iter=60, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = found.value + (shift * free)[found.kind]
        top = torch.zeros(functions, dtype=torch.float64).scatter_reduce(
            0, found.function, value.detach(), "amax"
        )
        raised = torch.exp(value - top[found.function])
        total = top + torch.log(torch.exp(-top).index_add(0, found.function, raised))
        answer = torch.where(buggy, value[found.answer.clamp(min=0)], 0.0)
        result = (weight[kind_of_bug] * (total - answer)).sum()
        result.backward()
        return result

    optimizer.step(loss)
    return (shift * free).detach()


def balanced(model: Detector, functions: Functions, words: WordTable, *, seed: int) -> list[float]:
    """Fold the shifts of the kinds into the network's own bias by kind, in place; returns them."""
    shift = kind_shifts(logits_of(model, functions, words, seed=seed))
    with torch.no_grad():
        cast(nn.Linear, model.telling[-1]).bias.add_(shift.float())
    return [round(float(value), 4) for value in shift]


def expected_error(calibration: Calibration, buggy: Outcome, sound: Outcome, bins: int = 15) -> float:
    """Expected calibration error: mean distance of probability and frequency over bins of equal size."""
    p = apply(calibration, np.concatenate([buggy.top, sound.top]))
    y = np.concatenate([buggy.located, np.zeros(len(sound.top), np.bool_)])
    parts = np.array_split(np.argsort(p), bins)
    return float(sum(abs(p[i].mean() - y[i].mean()) * len(i) for i in parts if len(i)) / len(p))
