"""What a pass's plan costs, asked thousands of times: no object is made for a decision that nobody keeps.

A pass gives rows (`evictor`), swaps get their edges (`swaps`), and the rows are timed as they are (`score`). The figures
are those of the decisions that `Evicted.decisions` would give, bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import final

import numpy as np

from ...values import LinkRate
from ...values.actions import ACTIONS, BY_PASS_NUMBER
from ..chains import Chains
from ..evict.passes import Evicted, Evictor
from ..evict.policy import DecisionKey
from ..model import Floats, Ints, Spans
from ..schedule import score
from ..swaps.placement import Ground, place

#: What the scorer calls the evictor's actions.
_SCORED_AS = np.array([ACTIONS[action].score_number for action in BY_PASS_NUMBER])
_MOVED = [does.score_number for does in ACTIONS.values() if does.travels]


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A plan that fits.

    Attributes:
        seconds: of the step.
        keys: its decisions as storage, touch before the span, action.
    """

    seconds: float
    keys: tuple[DecisionKey, ...]


@final
class Trials:
    """Plans of one step.

    Args:
        ground: of a curve and the seconds of each position, what swaps are placed on.
        fits: peak bytes, peak bytes of the tier → whether the plan may be used.
    """

    def __init__(
        self, chains: Chains, evictor: Evictor, scorer: score.Scorer, link: LinkRate | None,
        *, ground: Callable[[Ints, Floats], Ground], fits: Callable[[int, int], bool],
    ) -> None:  # fmt: skip
        self._evictor, self._scorer, self._link = evictor, scorer, link
        self._ground, self._fits = ground, fits
        self._size = np.array(chains.size, dtype=np.int64)
        self._coded: Ints | None = None

    def of(self, evicted: Evicted, *, below: float = inf) -> Trial | None:
        """The plan of a pass, None where it does not fit or takes no less than `below` seconds."""
        if evicted.rows is None or evicted.regions is None or not self._scorer.packed:
            raise ValueError("only passes of the C module have rows")
        rows = self._placed(self._table(evicted.rows), evicted.regions)
        found = self._scorer.score_rows(rows, evicted.regions)
        if found is None:
            return None
        seconds, peak, held = found
        if seconds >= below or not self._fits(peak, held):
            return None
        return Trial(seconds=seconds, keys=self._keys(evicted.rows))

    @staticmethod
    def _keys(rows: Ints) -> tuple[DecisionKey, ...]:
        return tuple((s, after, BY_PASS_NUMBER[action]) for s, action, after in rows[:, :3].tolist())

    def _table(self, found: Ints) -> Ints:
        """Rows of the scorer: every span away for its whole length."""
        storage, action, after, before, restored, option, start, length = found.T
        encoded, coding = self._encoded()[option].T  # -1: the last row, zeros
        acts = np.where(coding < 0, -1, _SCORED_AS[action])  # no rates: no plan
        columns = (storage, acts, after, after + 1, restored, before, encoded, coding, start, length)
        return np.ascontiguousarray(np.stack(columns, axis=1), dtype=np.int64)

    def _encoded(self) -> Ints:
        """Bytes and the scorer's row of rates of each option that encodes."""
        if self._coded is None or len(self._coded) != len(self._evictor.listed) + 1:
            options = self._evictor.listed
            self._coded = np.zeros((len(options) + 1, 2), dtype=np.int64)
            for k, option in enumerate(options):
                if option.codec:
                    nbytes = option.staged or option.kept
                    storage = self._evictor.owner[k]
                    self._coded[k] = nbytes, self._scorer.coding(option.codec, storage, nbytes)
        return self._coded

    def _placed(self, rows: Ints, regions: Ints) -> Ints:
        """Rows that are not moved over the link, then those that are, with their edges."""
        moved = np.isin(rows[:, score.ACTION], _MOVED)
        if self._link is None or not moved.any():
            return rows
        found = self._scorer.ground_rows(rows, regions)
        if found is None:
            return rows
        _, curve, seconds = found
        gone = rows[moved]
        storage, encoded = gone[:, score.STORAGE], gone[:, score.ENCODED]
        spans = Spans(
            storage=storage, after=gone[:, score.AFTER], before=gone[:, score.BEFORE],
            nbytes=np.where(encoded > 0, encoded, self._size[storage]), slack=np.zeros(len(gone)),
        )  # fmt: skip
        timing = place(self._ground(curve, seconds), spans, self._link)
        gone[:, score.FREE], gone[:, score.FETCH] = timing.free, timing.fetch
        leaves = (timing.free < timing.fetch) | (encoded > 0)
        return np.concatenate((rows[~moved], gone[leaves]))
