"""Differences between positions, as far as they follow from the actions of a call.

A zone is a conjunction of constraints `x - y <= c` over variables that stand for positions (Miné, 2001). It is enough to
see that a scan stays left of its end, that a partition's border lies between both, or that a pointer moved right.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import final

import numpy as np

__all__ = ["Zone"]


@final
class Zone:
    """Constraints over named variables; `bound[i, j]` is the least known c with x_i - x_j <= c. The first is zero."""

    def __init__(self, names: Iterable[str] = (), bound: np.ndarray | None = None) -> None:
        self.names = ["0", *names]
        n = len(self.names)
        self.bound = np.full((n, n), np.inf) if bound is None else bound
        np.fill_diagonal(self.bound, np.minimum(np.diag(self.bound), 0))

    def copy(self) -> Zone:
        return Zone(self.names[1:], self.bound.copy())

    def add(self, name: str) -> None:
        """A new variable about which nothing is known."""
        n = len(self.names)
        grown = np.full((n + 1, n + 1), np.inf)
        grown[:n, :n] = self.bound
        grown[n, n] = 0
        self.names.append(name)
        self.bound = grown

    def difference(self, x: str, y: str) -> float:
        """The least known upper bound of x - y."""
        return float(self.bound[self.names.index(x), self.names.index(y)])

    def at_most(self, x: str, y: str, c: float) -> None:
        """Learn x - y <= c."""
        i, j = self.names.index(x), self.names.index(y)
        if c < self.bound[i, j]:
            through = self.bound[:, i, None] + c + self.bound[None, j, :]
            np.minimum(self.bound, through, out=self.bound)

    def equal(self, x: str, y: str, c: float = 0) -> None:
        """Learn x = y + c."""
        self.at_most(x, y, c)
        self.at_most(y, x, -c)

    def forget(self, x: str) -> None:
        i = self.names.index(x)
        self.bound[i, :], self.bound[:, i], self.bound[i, i] = np.inf, np.inf, 0

    def shift(self, x: str, c: float) -> None:
        """x := x + c."""
        i = self.names.index(x)
        self.bound[i, :] += c
        self.bound[:, i] -= c

    def assign(self, x: str, y: str) -> None:
        """x := y."""
        if x != y:
            self.forget(x)
            self.equal(x, y)

    @property
    def empty(self) -> bool:
        """Whether no positions satisfy the constraints: the path cannot happen."""
        return bool((np.diag(self.bound) < 0).any())

    def project(self, names: Iterable[str], rename: Iterable[str]) -> Zone:
        """The constraints among `names`, under new names."""
        index = [0, *(self.names.index(n) for n in names)]
        return Zone(rename, self.bound[np.ix_(index, index)].copy())

    def meet(self, other: Zone, rename: Iterable[str]) -> None:
        """Learn another zone's constraints; `rename` says which of one's own variables its variables are."""
        index = [0, *(self.names.index(n) for n in rename)]
        at = np.ix_(index, index)
        self.bound[at] = np.minimum(self.bound[at], other.bound)
        for k in range(len(self.bound)):
            np.minimum(self.bound, self.bound[:, k, None] + self.bound[None, k, :], out=self.bound)

    def join(self, other: Zone, widen: bool) -> bool:
        """Weaken until it covers `other`; whether anything changed. Widening drops what still grows."""
        grown = other.bound > self.bound
        if not grown.any():
            return False
        self.bound = np.where(grown, np.inf if widen else other.bound, self.bound)
        return True
