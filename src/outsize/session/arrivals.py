"""Which results of a step get a gradient: guessed before the first backward, then seen.

A result that no loss uses gets none, and room kept for its gradient, or for a loss made of it, is room lost. Before the
first backward, a scalar result is taken to be the loss, and the results that it was computed from are taken to be handed
out for reading only: a language model returns its logits beside its loss. Afterwards a result is expected to get a
gradient if it ever got one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch
from torch.fx import Node

from ..fx import CapturedStep, node_inputs


@final
class Arrivals:
    """The tangents of one captured step over time, by their place."""

    def __init__(self, step: CapturedStep) -> None:
        self._all = frozenset(range(len(step.tangents)))
        self._guess = _read_only(step)
        self._seen: frozenset[int] | None = None
        self._planned: frozenset[int] = self._guess

    @property
    def absent(self) -> frozenset[int]:
        """Those that are not expected."""
        return self._guess if self._seen is None else self._all - self._seen

    @property
    def changed(self) -> bool:
        """Whether others are expected than when the plan in force was made."""
        return self.absent != self._planned

    def planned(self) -> None:
        """A plan was made for those that are expected now."""
        self._planned = self.absent

    def saw(self, tangents: Sequence[object]) -> None:
        """A backward runs with these; those that did not come are None."""
        came = frozenset(i for i, tangent in enumerate(tangents) if tangent is not None)
        self._seen = (self._seen or frozenset()) | came


def _read_only(step: CapturedStep) -> frozenset[int]:
    """Tangents of results from which a scalar result was computed."""
    losses = [n for n in step.carrying if _is_number(n)]
    before, wanted = set[Node](), list(losses)
    while wanted:
        for source in node_inputs(wanted.pop()):
            if source not in before and source not in step.primals:
                before.add(source)
                wanted.append(source)
    read = {step.storage[n] for n in before if n in step.storage}
    return frozenset(
        i for i, n in enumerate(step.carrying) if not _is_number(n) and step.storage.get(n) in read
    )


def _is_number(node: Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, torch.Tensor) and value.numel() == 1
