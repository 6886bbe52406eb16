"""Local moves of the search: one price changed at a time, then seeded kicks out of a local optimum."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from .model import Ints, Model
from .prices import Taste

#: A neighbour of a taste, None where the move does not apply.
Move = Callable[[Taste], Taste | None]
#: Storage, the touch before its span, action.
Barred = tuple[int, int, str]


@dataclass(frozen=True, kw_only=True)
class Stuck:
    """Where a walk found no way through, as decisions that another may bar.

    Attributes:
        remade: storages that were to be made again for the position, and did not fit.
        kept: encoded forms that took room there.
    """

    remade: frozenset[Barred]
    kept: frozenset[Barred]


def storage_classes(model: Model) -> list[Ints]:
    """Storages that equal ops make (same signature, same bytes), those with the most bytes first."""
    groups: dict[tuple[str, int], list[int]] = {}
    for storage in model.graph.candidates():
        op = model.graph.ops[storage.producer]
        if storage.nbytes >= model.settings.min_bytes:
            groups.setdefault((op.signature or op.target, storage.nbytes), []).append(storage.index)
    ordered = sorted(groups.items(), key=lambda item: -item[0][1] * len(item[1]))
    return [np.array(members, dtype=np.int64) for _, members in ordered]


def all_moves(classes: list[Ints], *, swaps: bool) -> list[Move]:
    """Moves in the order in which they are tried: prices of the walk, then prices of one class each."""
    moves: list[Move] = [
        _lane_price(1.7),
        _lane_price(1 / 1.7),
        _crowded,
        _fit,
        _share,
        _patience(0.25),
        _patience(-0.25),
    ]
    for members in classes:
        moves += [weigh(members, 6.0), weigh(members, 1 / 6.0)]
        if swaps:
            moves.append(_ban(members))
    return moves


def kicks(classes: list[Ints], count: int, seed: int = 0) -> Iterator[Move]:
    """Endless random changes of several classes' and single storages' prices, the same in every run."""
    random = np.random.default_rng(seed)
    while True:
        factors = np.ones(count)
        for members in classes:
            if random.random() < 0.25:
                factors[members] *= np.exp(random.normal(0.0, 1.5))
        single = random.random(count) < 0.08
        factors[single] *= np.exp(random.normal(0.0, 1.5, int(single.sum())))
        yield _scaled(factors)


def bar(key: Barred) -> Move:
    """One decision is not made again."""
    return lambda taste: replace(taste, barred=taste.barred | {key}, forced=taste.forced - {key})


def force(key: Barred) -> Move:
    """A decision is made, needed or not."""
    return lambda taste: replace(taste, forced=taste.forced | {key}, barred=taste.barred - {key})


def forget(key: Barred) -> Move:
    """A decision is neither barred nor forced."""
    return lambda taste: replace(taste, forced=taste.forced - {key}, barred=taste.barred - {key})


def _fit(taste: Taste) -> Taste:
    return replace(taste, fit=not taste.fit)


def _scaled(factors: np.ndarray) -> Move:
    return lambda taste: replace(taste, weight=taste.weight * factors)


def _lane_price(factor: float) -> Move:
    def move(taste: Taste) -> Taste | None:
        if not np.isfinite(taste.lane_price):
            return None
        return replace(taste, lane_price=taste.lane_price * factor)

    return move


def _crowded(taste: Taste) -> Taste | None:
    return replace(taste, crowded=not taste.crowded) if np.isfinite(taste.lane_price) else None


def _share(taste: Taste) -> Taste | None:
    return replace(taste, share=1.0 - taste.share) if taste.recompute else None


def _patience(step: float) -> Move:
    def move(taste: Taste) -> Taste | None:
        patience = taste.patience + step
        return replace(taste, patience=patience) if 0 <= patience <= 1.5 else None

    return move


def weigh(members: Ints | list[int], factor: float) -> Move:
    """The price of some storages is multiplied."""

    def move(taste: Taste) -> Taste:
        weight = taste.weight.copy()
        weight[members] *= factor
        return replace(taste, weight=weight)

    return move


def _ban(members: Ints) -> Move:
    def move(taste: Taste) -> Taste | None:
        if not taste.recompute or not np.isfinite(taste.lane_price):
            return None
        return replace(taste, banned=taste.banned.symmetric_difference(members.tolist()))

    return move
