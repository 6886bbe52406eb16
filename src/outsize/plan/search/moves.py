"""Local moves of the search: one price changed at a time, then seeded kicks out of a local optimum."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import numpy as np

from ..evict.policy import DecisionKey, Policy
from ..model import Ints, Model

#: A neighbour of a policy, None where the move does not apply.
Move = Callable[[Policy], Policy | None]


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
    """Moves in the order in which they are tried: prices of the pass, then prices of one class each."""
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


def bar(key: DecisionKey) -> Move:
    """One decision is not made again."""
    return lambda policy: replace(policy, barred=policy.barred | {key}, forced=policy.forced - {key})


def force(key: DecisionKey) -> Move:
    """A decision is made, needed or not."""
    return lambda policy: replace(policy, forced=policy.forced | {key}, barred=policy.barred - {key})


def retain(storages: Iterable[int]) -> Move:
    """Some storages may stay beyond their last use."""
    return lambda policy: replace(policy, retain=policy.retain | frozenset(storages))


def release(storages: Iterable[int]) -> Move:
    """Some storages go with their last use."""
    return lambda policy: replace(policy, retain=policy.retain - frozenset(storages))


def forget(key: DecisionKey) -> Move:
    """A decision is neither barred nor forced."""
    return lambda policy: replace(policy, forced=policy.forced - {key}, barred=policy.barred - {key})


def _fit(policy: Policy) -> Policy:
    return replace(policy, fit=not policy.fit)


def _scaled(factors: np.ndarray) -> Move:
    return lambda policy: replace(policy, weight=policy.weight * factors)


def _lane_price(factor: float) -> Move:
    def move(policy: Policy) -> Policy | None:
        if not np.isfinite(policy.lane_price):
            return None
        return replace(policy, lane_price=policy.lane_price * factor)

    return move


def _crowded(policy: Policy) -> Policy | None:
    return replace(policy, crowded=not policy.crowded) if np.isfinite(policy.lane_price) else None


def _share(policy: Policy) -> Policy | None:
    return replace(policy, share=1.0 - policy.share) if policy.recompute else None


def _patience(step: float) -> Move:
    def move(policy: Policy) -> Policy | None:
        patience = policy.patience + step
        return replace(policy, patience=patience) if 0 <= patience <= 1.5 else None

    return move


def weigh(members: Ints | list[int], factor: float) -> Move:
    """The price of some storages is multiplied."""

    def move(policy: Policy) -> Policy:
        weight = policy.weight.copy()
        weight[members] *= factor
        return replace(policy, weight=weight)

    return move


def _ban(members: Ints) -> Move:
    def move(policy: Policy) -> Policy | None:
        if not policy.recompute or not np.isfinite(policy.lane_price):
            return None
        return replace(policy, banned=policy.banned.symmetric_difference(members.tolist()))

    return move
