"""How often the bug is found, and how often sound code is left alone.

Every function of a split is used twice: once with one bug injected (drawn with a fixed seed) and once as it
is. Reported
are, given a bug: whether the most probable place is the right one (`located`), whether its repair is too
(`repaired`),
and at the operating point, a threshold on the probability of the most probable place: how many bugs are both
announced and located, and how many sound functions are left alone. Confidence intervals resample packages,
not
functions: functions of one package are alike.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from .batch import Batch, collate
from .forest import Ints
from .functions import Functions
from .grammar import PLACES
from .inject import KINDS, inject
from .words import WordTable

Floats = npt.NDArray[Any]


class Scorer(Protocol):
    """A network that gives each candidate of a batch a logit, current ones -inf (see `Detector.forward`)."""

    def __call__(self, batch: Batch) -> tuple[Tensor, Tensor]: ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """One row per function.

    Attributes:
        kind: of the injected bug, -1 for none.
        wrong: probability that anything is wrong.
        top: probability of the most probable place.
        located: whether the most probable place is the bug's.
        rank: place of the bug in the order of probability, from 1; 0 without a bug.
        repaired: whether the most probable rewrite is the repair.
        places: number of places that could be suspected.
        package: the distribution.
    """

    kind: Ints
    wrong: Floats
    top: Floats
    located: npt.NDArray[np.bool_]
    rank: Ints
    repaired: npt.NDArray[np.bool_]
    places: Ints
    package: Ints


def batches(count: int, size: int) -> Iterator[Ints]:
    for start in range(0, count, size):
        yield np.arange(start, min(start + size, count))


def rewrite_probabilities(batch: Batch, logits: Tensor) -> tuple[Floats, Floats]:
    """`[candidates]` probability of each rewrite (0 for current ones), `[functions]` that anything is
    wrong.
    """
    function = batch.place_function.index_select(0, batch.candidate_place)
    values = logits.double()
    top = torch.zeros(batch.functions, dtype=torch.float64).scatter_reduce(0, function, values, "amax")
    raised = torch.exp(values - top.index_select(0, function))
    total = torch.exp(-top).index_add(0, function, raised)
    share = raised / total.index_select(0, function)
    wrong = torch.zeros(batch.functions, dtype=torch.float64).index_add(0, function, share)
    return share.numpy(), wrong.numpy()


@torch.no_grad()
def run(
    scorer: Scorer, functions: Functions, *, seed: int, share: float,
    kinds: tuple[int, ...] = KINDS, size: int = 128,
    words: WordTable | None = None, rows: int = 16384, said: Callable[[int], None] = lambda done: None,
) -> Outcome:  # fmt: skip
    """Inject with probability `share`, score, and compare; functions without a place to suspect are passed
    over.
    """
    table = words or WordTable(functions.forest.tokens, rows)
    rng = np.random.default_rng(seed)
    parts = []
    for chosen in batches(functions.count, size):
        drawn = functions.select(chosen)
        bugs = inject(drawn, rng, share=share, kinds=kinds)
        batch = collate(drawn, table, bugs, kinds)
        if not batch.table.count:
            continue
        _, logits = scorer(batch)
        outcome = outcomes(batch, logits, bugs.kind)
        package = (
            np.asarray(functions["distribution"])[chosen] if "distribution" in functions.columns else chosen
        )
        keep = (outcome.places > 0) & ((bugs.kind >= 0) | (share < 1))
        parts.append(_masked(dataclasses.replace(outcome, package=package), keep))
        said(len(chosen))
    names = [field.name for field in dataclasses.fields(Outcome)]
    return Outcome(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})


def _masked(outcome: Outcome, keep: npt.NDArray[np.bool_]) -> Outcome:
    return Outcome(**{f.name: getattr(outcome, f.name)[keep] for f in dataclasses.fields(Outcome)})


def outcomes(batch: Batch, logits: Tensor, kind: Ints) -> Outcome:
    """Compare one batch's probabilities with the bugs that were injected."""
    share, wrong = rewrite_probabilities(batch, logits)
    place = batch.candidate_place.numpy()
    node = batch.place_node.numpy()
    function = batch.place_function.numpy()
    # Several rows may stand for one place (pairs of arguments of one call): a place is its node.
    spots, spot = np.unique(node, return_inverse=True)
    weight = np.bincount(spot[place], share, minlength=len(spots))
    owner = np.zeros(len(spots), np.int64)
    owner[spot] = function
    best = _best(weight, owner, batch.functions)
    repair = batch.repair.numpy()
    buggy = repair >= 0
    top = np.where(best >= 0, weight[np.maximum(best, 0)], 0.0)
    target = np.where(buggy, spot[place[np.maximum(repair, 0)]], -1)
    above = weight > weight[np.maximum(target, 0)][owner]
    rank = np.where(buggy, 1 + np.bincount(owner[above], minlength=batch.functions), 0)
    first = _best(share, function[place], batch.functions)
    return Outcome(
        kind=np.where(buggy, kind, -1), wrong=wrong, top=top, located=buggy & (best == target), rank=rank,
        repaired=buggy & (first == repair), places=np.bincount(owner, minlength=batch.functions),
        package=np.zeros(batch.functions, np.int64),
    )  # fmt: skip


def _best(weight: Floats, group: Ints, groups: int) -> Ints:
    """Index of the largest weight of each group, -1 for an empty one."""
    order = np.lexsort((weight, group))
    last = np.searchsorted(group[order], np.arange(groups), side="right") - 1
    filled = np.bincount(group, minlength=groups) > 0
    return np.where(filled, order[np.maximum(last, 0)], -1)


def threshold_for(sound: Outcome, left_alone: float) -> float:
    """The smallest threshold at which that share of sound functions is left alone."""
    return float(np.quantile(sound.top, left_alone))


def threshold_by_package(
    sound: Outcome, left_alone: float, *, sure: float = 0.975, resamples: int = 400
) -> float:
    """The threshold that leaves that share alone in packages that were not looked at either.

    Functions of one package are alike, and packages differ: the plain quantile of one set of packages left 81.4 % of
    another's alone instead of 85 %. So the quantile is taken over sets of packages drawn with replacement, and the
    threshold is the one that suffices for the share `sure` of them.
    """
    rng = np.random.default_rng(0)
    members = [np.sort(sound.top[sound.package == p]) for p in np.unique(sound.package)]
    if len(members) < 2 or len(members) > 200:
        return threshold_for(sound, left_alone)
    drawn = [
        np.quantile(
            np.concatenate([members[i] for i in rng.integers(len(members), size=len(members))]), left_alone
        )
        for _ in range(resamples)
    ]
    return float(max(np.quantile(drawn, sure), threshold_for(sound, left_alone)))


def summary(buggy: Outcome, sound: Outcome, threshold: float, *, resamples: int = 1000) -> dict[str, Any]:
    """Rates over all kinds (their mean, so that each kind weighs the same), by kind, with 95 % intervals."""
    announced = buggy.located & (buggy.top > threshold)
    rates: dict[str, Callable[[Ints], float]] = {
        "located_at_1": lambda i: by_kind_mean(buggy, buggy.located, i),
        "located_at_5": lambda i: by_kind_mean(buggy, buggy.rank <= 5, i),
        "repaired_at_1": lambda i: by_kind_mean(buggy, buggy.repaired, i),
        "announced_and_located": lambda i: by_kind_mean(buggy, announced, i),
        "announced_and_repaired": lambda i: by_kind_mean(buggy, buggy.repaired & (buggy.top > threshold), i),
    }
    report: dict[str, Any] = {"functions": len(buggy.kind), "threshold": round(threshold, 4)}
    everything = np.arange(len(buggy.kind))
    for name, rate in rates.items():
        report[name] = round(rate(everything), 4)
        report[f"{name}_95"] = interval(buggy.package, rate, resamples)
    report["left_alone"] = round(float((sound.top <= threshold).mean()), 4)
    report["left_alone_95"] = interval(
        sound.package, lambda i: float((sound.top[i] <= threshold).mean()), resamples
    )
    report["random_place"] = round(by_kind_mean(buggy, 1 / np.maximum(buggy.places, 1), everything), 4)
    report["by_kind"] = {
        PLACES[kind]: {
            "bugs": int((buggy.kind == kind).sum()),
            "located_at_1": round(float(buggy.located[buggy.kind == kind].mean()), 4),
            "repaired_at_1": round(float(buggy.repaired[buggy.kind == kind].mean()), 4),
            "announced_and_located": round(float(announced[buggy.kind == kind].mean()), 4),
        }
        for kind in np.unique(buggy.kind).tolist()
        if kind >= 0
    }
    return report


def by_kind_mean(outcome: Outcome, values: npt.NDArray[Any], index: Ints) -> float:
    """Mean over the kinds of the mean within each."""
    kind, picked = outcome.kind[index], np.asarray(values, np.float64)[index]
    count = np.bincount(kind[kind >= 0], minlength=len(PLACES))
    total = np.bincount(kind[kind >= 0], picked[kind >= 0], minlength=len(PLACES))
    return float((total[count > 0] / count[count > 0]).mean()) if count.any() else 0.0


def interval(package: Ints, rate: Callable[[Ints], float], resamples: int) -> list[float]:
    """95 % bootstrap interval, resampling packages."""
    rng = np.random.default_rng(0)
    members = [np.flatnonzero(package == p) for p in np.unique(package)]
    if len(members) > 200 or resamples < 1:
        return []
    values = [
        rate(np.concatenate([members[i] for i in rng.integers(len(members), size=len(members))]))
        for _ in range(resamples)
    ]
    return [round(float(np.quantile(values, q)), 4) for q in (0.025, 0.975)]
