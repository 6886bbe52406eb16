"""Which ops may run a second time, and what they may see then.

An op that draws random numbers or that changes something besides its outputs runs once. Everything else may run
again when it reads the same bytes. One exception is needed: batch normalisation in training mode reads the running
statistics only to compute their next value (its fourth and fifth result); normalised values, mean and deviation do
not depend on them, so a rerun after the update gives the same bits for the results that are kept, and the
statistics themselves are updated once, by the first run.
"""

from __future__ import annotations

from ..values import Op


def may_repeat(op: Op) -> bool:
    """The op is a pure function of its reads."""
    return not (op.random or op.effect or op.mutates or op.target in ("outside", "update"))


def stale_reads_allowed(op: Op, storage: int) -> bool:
    """A rerun of the op may see another version of this storage: running statistics in training."""
    return storage in op.any_version
