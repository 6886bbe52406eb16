"""A thin layer over `scipy.optimize.milp` (HiGHS): variables by name, sparse rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array

#: Name of a variable: a letter and indices.
Key = tuple[str | int, ...]
Terms = dict[Key, float]
#: Bytes are counted in these parts of a budget, because HiGHS holds rows to 1e-6: in shares of 2 GB, 23 KB of statistics
#: were below that, and a plan that fitted by 256 bytes was proved not to.
BUDGET_PARTS = 10_000.0


@dataclass(frozen=True, kw_only=True)
class Answer:
    """Best values found (None where none was), the proved bound on the objective, and whether they meet.

    Attributes:
        late: the time limit ended it, so that another run may find other values.
    """

    bound: float
    proved: bool
    values: Terms | None
    late: bool = False


class Program:
    """Minimise a linear objective under linear rows."""

    def __init__(self) -> None:
        self._index: dict[Key, int] = {}
        self._low: list[float] = []
        self._high: list[float] = []
        self._cost: list[float] = []
        self._whole: list[int] = []
        self._rows: list[int] = []
        self._columns: list[int] = []
        self._entries: list[float] = []
        self._least: list[float] = []

    def __contains__(self, key: Key) -> bool:
        return key in self._index

    def add(
        self, key: Key, *, low: float = 0.0, high: float = np.inf, cost: float = 0.0, whole: bool = False
    ) -> None:
        """A variable; adding it again changes nothing."""
        if key in self._index:
            return
        self._index[key] = len(self._low)
        self._low.append(low)
        self._high.append(high)
        self._cost.append(cost)
        self._whole.append(int(whole))

    def at_least(self, terms: Terms, constant: float) -> None:
        """Row: the terms sum to at least the constant."""
        row = len(self._least)
        for key, factor in terms.items():
            self._rows.append(row)
            self._columns.append(self._index[key])
            self._entries.append(factor)
        self._least.append(constant)

    def at_most(self, terms: Terms, constant: float) -> None:
        """Row: the terms sum to at most the constant."""
        self.at_least({key: -factor for key, factor in terms.items()}, -constant)

    def solve(self, time_limit: float, *, gap: float = 1e-4, nodes: int | None = None) -> Answer | None:
        """The optimum to a relative gap, or what is known of it at a limit; None where the rows contradict each other."""
        if not self._low:  # nothing to decide, which the solver does not take
            return (
                None
                if any(least > 0 for least in self._least)
                else Answer(bound=0.0, proved=True, values={}, late=False)
            )
        options = {"time_limit": time_limit, "mip_rel_gap": gap}
        shape = (len(self._least), len(self._low))
        matrix = csr_array((self._entries, (self._rows, self._columns)), shape=shape)
        result = milp(
            np.array(self._cost),
            integrality=np.array(self._whole),
            bounds=Bounds(np.array(self._low), np.array(self._high)),
            constraints=LinearConstraint(matrix, lb=np.array(self._least)),
            options=options if nodes is None else {**options, "node_limit": nodes},
        )
        if result.status == 2:
            return None
        values = None
        if result.x is not None:
            values = {key: float(result.x[place]) for key, place in self._index.items()}
        bound = result.mip_dual_bound if result.mip_dual_bound is not None else 0.0
        return Answer(bound=float(bound), proved=result.status == 0, values=values, late=result.status == 1)
