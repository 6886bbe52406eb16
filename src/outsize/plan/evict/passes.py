"""Eviction passes in C where the module was built, else in Python: the same decisions, found a hundred times sooner.

Problem: the search makes hundreds of passes over one step and keeps few. Mechanism: the step, with the options of each
storage, is packed once into arrays that `native/evict.h` reads; a pass gives rows, and decisions are made of them
only when somebody asks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, final

import numpy as np

from ... import native
from ...values import Decision
from ...values.actions import ACTIONS, BY_PASS_NUMBER
from ..chains import Chains
from ..model import Ints
from .decided import decided
from .options import Option
from .policy import DecisionKey, Policy, Stuck
from .reference import ReferencePass

_ROW = 8
_BANNED, _REMAKE, _RETAIN = 1, 2, 4


@dataclass(frozen=True, kw_only=True)
class Evicted:
    """What a pass found: its decisions, and the seconds of what runs again.

    Attributes:
        rows, regions: the decisions as the C module gives them, see `native/evict.h`; None without it.
    """

    decisions: Callable[[], tuple[Decision, ...]]
    again_seconds: float
    rows: Ints | None = None
    regions: Ints | None = None


@final
class Evictor:
    """Eviction passes over one step.

    Args:
        chains: the step's static facts.
        options: ways to take a storage away other than recomputing it; `True`: its bytes are in the tier already.
        tier: where swaps go.
        min_bytes: smaller storages go last.
    """

    def __init__(
        self, chains: Chains, options: Callable[[int, bool], list[Option]], tier: str, min_bytes: int
    ) -> None:
        self._chains, self._options, self._tier, self._min_bytes = chains, options, tier, min_bytes
        self._step: Ints | None = None
        self._held: list[np.ndarray[Any, Any]] = []
        self._seconds = _doubles(chains.seconds)
        #: Options in the order in which rows name them.
        self.listed: list[Option] = []
        self.owner: list[int] = []
        self._rows = np.empty((256, _ROW), dtype=np.int64)
        self._regions = np.empty(4096, dtype=np.int64)

    def run(self, policy: Policy, budget: int) -> Evicted | None:
        """Decisions that keep every position of the step under the budget; None where these prices find no way."""
        found = self.attempt(policy, budget)
        return found if isinstance(found, Evicted) else None

    def repaired(self, policy: Policy, budget: int, *, tries: int) -> tuple[Policy, Evicted] | None:
        """A pass that gets through, and its policy: where one ends, what stood in the way is barred in the next.

        A storage that was to be made again may not fit where it is needed, though nothing said so where it left.
        """
        for _ in range(tries):
            found = self.attempt(policy, budget)
            if isinstance(found, Evicted):
                return policy, found
            if not (more := found.remade - policy.barred or found.kept - policy.barred):
                return None
            policy = replace(policy, barred=policy.barred | more)
        return None

    def attempt(self, policy: Policy, budget: int) -> Evicted | Stuck:
        """As `run`, with what stood in the way where there is no way."""
        if native.kernels is None:
            return self._reference(policy, budget)
        if self._step is None:
            self._step = self._pack()
        table, kept = self._policy(policy, budget)
        while True:
            count = native.kernels.plan_evict(
                self._step.ctypes.data, table.ctypes.data, self._rows.ctypes.data, len(self._rows),
                self._regions.ctypes.data, len(self._regions),
            )  # fmt: skip
            if count != -2:
                break
            self._rows = np.empty((2 * len(self._rows), _ROW), dtype=np.int64)
            self._regions = np.empty(2 * len(self._regions), dtype=np.int64)
        del kept
        if count < 0:
            return self._stuck()
        rows = self._rows[:count].copy()
        used = int((rows[:, 6] + rows[:, 7]).max(initial=0))
        return self._found(rows, self._regions[:used].copy())

    def _stuck(self) -> Stuck:
        """What the regions say after a pass without a way."""
        remade = int(self._regions[0])
        kept = int(self._regions[1 + remade])
        found = self._barred(self._regions[1 : 1 + remade]), self._barred(self._regions[2 + remade :][:kept])
        return Stuck(remade=found[0], kept=found[1])

    def _barred(self, keys: Ints) -> frozenset[DecisionKey]:
        ops, kinds = len(self._chains.seconds), len(BY_PASS_NUMBER)
        return frozenset(
            (k // kinds // ops, k // kinds % ops, BY_PASS_NUMBER[k % kinds]) for k in keys.tolist()
        )

    def _reference(self, policy: Policy, budget: int) -> Evicted | Stuck:
        made = ReferencePass(
            chains=self._chains, budget=budget, options=self._options, policy=policy, tier=self._tier,
            min_bytes=self._min_bytes,
        )  # fmt: skip
        found = made.run()
        if found is None:
            return made.stuck
        groups: dict[int, set[int]] = {}
        for d in found:
            if d.region:
                groups.setdefault(d.fetch_before, set()).update(d.region)
        again = sum(self._chains.seconds[op] for region in groups.values() for op in region)
        return Evicted(decisions=lambda: tuple(found), again_seconds=again)

    def _found(self, rows: Ints, regions: Ints) -> Evicted:
        ops, lengths = len(self._chains.seconds), rows[:, 7]
        places = np.repeat(rows[:, 6] - np.cumsum(lengths) + lengths, lengths) + np.arange(lengths.sum())
        again = np.unique(np.repeat(rows[:, 4], lengths) * ops + regions[places]) % ops
        return Evicted(
            decisions=lambda: self._decisions(rows, regions), again_seconds=float(self._seconds[again].sum()),
            rows=rows, regions=regions,
        )  # fmt: skip

    def _decisions(self, rows: Ints, regions: Ints) -> tuple[Decision, ...]:
        return tuple(
            decided(
                self._chains, self._tier, storage=storage, option=self.listed[index] if index >= 0 else None,
                after=after, before=before, restored=restored,
                region=tuple(regions[start : start + length].tolist()),
            )
            for storage, _, after, before, restored, index, start, length in rows.tolist()
        )  # fmt: skip

    # What the C side reads: the structs `Step` and `Policy` of native/evict.h, field by field.

    def _pack(self) -> Ints:
        chains, count = self._chains, len(self._chains.size)
        option_at = [0]
        for storage in range(count):
            for written in (False, True):
                if chains.acted_from[storage] < len(chains.seconds):
                    self.listed += self._options(storage, written)
                    self.owner += [storage] * (len(self.listed) - len(self.owner))
                option_at.append(len(self.listed))
        option = [(ACTIONS[o.action].pass_number, o.kept, o.staged) for o in self.listed]
        price = [(o.out_seconds, o.in_seconds, o.compute_seconds) for o in self.listed]
        fields: list[int | np.ndarray[Any, Any]] = [
            len(chains.seconds),
            count,
            _doubles(chains.seconds),
            _ints(chains.workspace),
            np.array(chains.repeats, dtype=np.uint8),
            *_rows_of(chains.inputs),
            *_rows_of(chains.outputs),
            _ints(chains.second_copies),
            _places(chains.producer),
            _places(chains.last),
            _places(chains.reach),
            *_rows_of(self._expiring()),
            _ints(chains.size),
            *_rows_of(chains.uses),
            _places(chains.acted_from),
            _ints(chains.fixed),
            _doubles(chains.starts),
            _places(option_at),
            np.array(option or [(0, 0, 0)], dtype=np.int64),
            np.array(price or [(0.0, 0.0, 0.0)], dtype=np.float64),
            self._min_bytes,
        ]
        self._held = [f for f in fields if not isinstance(f, int)]
        return _table(fields)

    def _expiring(self) -> list[list[int]]:
        """Storages by the position at which they go if they are retained."""
        rows: list[list[int]] = [[] for _ in self._chains.seconds]
        for s, (last, reach) in enumerate(zip(self._chains.last, self._chains.reach)):
            if reach > last >= 0:
                rows[reach].append(s)
        return rows

    def _policy(self, policy: Policy, budget: int) -> tuple[Ints, list[np.ndarray[Any, Any]]]:
        flags = np.zeros(len(self._chains.size), dtype=np.uint8)
        flags[list(policy.banned)] |= _BANNED
        flags[list(policy.remake or ())] |= _REMAKE
        flags[list(policy.retain)] |= _RETAIN
        barred, forced = self._keys(policy.barred), self._keys(policy.forced)
        weight = np.ascontiguousarray(policy.weight, dtype=np.float64)
        fields: list[int | np.ndarray[Any, Any]] = [
            budget, policy.crowded, policy.recompute, policy.remake is not None, policy.fit, round(4 * policy.patience),
            flags, weight, barred, len(barred), forced, len(forced),
        ]  # fmt: skip
        prices = np.array([policy.lane_price, policy.share]).view(np.int64)
        return np.concatenate([_table(fields), prices]), [flags, weight, barred, forced]

    def _keys(self, barred: Iterable[tuple[int, int, str]]) -> Ints:
        ops, kinds = len(self._chains.seconds), len(BY_PASS_NUMBER)
        return _ints(
            sorted((s * ops + touch) * kinds + ACTIONS[action].pass_number for s, touch, action in barred)
        )


def _table(fields: Sequence[int | np.ndarray[Any, Any]]) -> Ints:
    return _ints([int(f) if isinstance(f, int) else f.ctypes.data for f in fields])


def _ints(values: Sequence[int]) -> Ints:
    return np.array(values, dtype=np.int64)


def _doubles(values: Sequence[float]) -> np.ndarray[Any, Any]:
    return np.array(values, dtype=np.float64)


def _places(values: Sequence[int]) -> np.ndarray[Any, Any]:
    return np.array(values, dtype=np.int32)


def _rows_of(lists: Sequence[Sequence[int]]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Lists of different lengths, one after the other, and where each begins."""
    starts = np.concatenate(([0], np.cumsum([len(row) for row in lists]))) if lists else np.zeros(1)
    return starts.astype(np.int32), _places([item for row in lists for item in row] or [0])
