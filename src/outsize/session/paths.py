"""The paths of one module's eager steps: what was observed of each, its plan, and which one a call is likely to take.

What a call will do is not known before it runs. Its inputs tell most of it: a path is looked for by their shapes, the
training flag and which gradients are there already. A plan for sizes serves smaller ones, so a call whose inputs are
nowhere larger may follow it. Among several paths of equal inputs (a branch on data, an expert that nobody chose) the one
that was taken last is tried first.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias, final

import torch
from torch.utils._pytree import tree_flatten

from ..observe import Observed
from ..prepared import PreparedReplay

__all__ = ["Path", "Paths", "Pattern", "pattern_of"]

#: Observed steps in a row that may find nothing new before the next one waits twice as long.
FRUITLESS = 1
#: Longest pause between two observed steps, in steps.
LONGEST_PAUSE = 64
#: Times that a path is observed before it is planned where its plan has anything to do: a process's first step takes
#: time and bytes once that later ones do not.
SIGHTINGS = 2

Pattern: TypeAlias = tuple[Any, tuple[tuple[int, ...], ...]]


def pattern_of(
    module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Pattern, list[torch.Tensor]]:
    """What tells calls apart before they run (kinds, then sizes), and the tensors among the arguments."""
    leaves, spec = tree_flatten((args, kwargs))
    tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
    kinds = tuple((t.dtype, t.dim(), t.requires_grad) for t in tensors)
    grads = hash(tuple(p.grad is None for p in module.parameters()))
    where = (module.training, torch.is_autocast_enabled("cpu"), grads, str(spec), kinds)
    return (where, tuple(tuple(t.shape) for t in tensors)), tensors


@dataclass(kw_only=True, eq=False)
class Path:
    """One way through the module.

    Attributes:
        pattern: of the call that showed it.
        step: as it was observed.
        sightings: how often.
        prepared: the plan in force.
        resident: the resident bytes that it was made for.
        bias: bytes that a step took beyond the prediction.
        outside: bytes taken outside the module, where a later step took more than the observed one.
        stale: why it is to be planned anew; empty where it is not.
        steps: steps that followed it to the end.
        peak: highest measured peak of those under the current plan.
        inputs: in words.
        refused: a plan beyond the current one was looked for in vain.
    """

    pattern: Pattern
    step: Observed
    inputs: str = ""
    sightings: int = 1
    prepared: PreparedReplay | None = None
    resident: int = 0
    bias: int = 0
    outside: int | None = None
    stale: str = ""
    steps: int = 0
    peak: int = 0
    corrections: int = 0
    warned: bool = False
    place: int = 0

    @functools.cached_property
    def beside(self) -> int:
        """The most that an op takes beside what was saved and is not read by it; of the first sighting, which is the
        highest."""
        return most_beside(self.step)


@final
@dataclass
class Paths:
    """All that are known.

    Attributes:
        known: latest taken first.
        strays: calls that took a path that nobody had observed.
        observed: calls that were observed.
        over: the most bytes by which a step on a path without a plan went over the budget.
    """

    known: list[Path] = field(default_factory=list)
    strays: int = 0
    observed: int = 0
    over: int = 0
    _wanted: bool = False
    _pause: int = 0
    _skip: int = 0

    def likely(self, pattern: Pattern) -> Path | None:
        """The path that a call is likely to take; None where it should be observed."""
        if self._wanted and self._skip == 0:
            return None
        self._skip = max(0, self._skip - 1)
        same = [p for p in self.known if p.pattern == pattern]
        if same:
            return same[0]
        larger = [p for p in self.known if covers(p.pattern, pattern)]
        return min(larger, key=lambda p: sum(p.step.nbytes), default=None)

    def took(self, path: Path) -> None:
        """A call followed it to the end."""
        self.known.remove(path)
        self.known.insert(0, path)
        path.steps += 1

    def strayed(self) -> None:
        """A call took another path than the likely one: one of the next is observed."""
        self.strays += 1
        self._wanted = True

    def saw(self, pattern: Pattern, step: Observed, inputs: str) -> Path:
        """A call was observed. The path that it took, known before or not."""
        self.observed += 1
        for path in self.known:
            if path.step.is_same(step):
                path.step, path.sightings = path.step.with_costs_of(step), path.sightings + 1
                if self._wanted:  # in vain
                    self._pause = min(LONGEST_PAUSE, 2 * self._pause + 1)
                    self._skip = self._pause
                return path
        self._wanted, self._pause, self._skip = False, 0, 0
        path = Path(pattern=pattern, step=step, inputs=inputs)
        self.known.insert(0, path)
        return path


def covers(larger: Pattern, smaller: Pattern) -> bool:
    """Whether inputs are of the same kinds and nowhere larger."""
    return larger[0] == smaller[0] and all(
        len(a) == len(b) and all(m >= n for m, n in zip(a, b)) for a, b in zip(larger[1], smaller[1])
    )


def sizes(pattern: Pattern) -> Sequence[tuple[int, ...]]:
    """Of the inputs."""
    return pattern[1]


def most_beside(step: Observed) -> int:
    """The most that an op of a step takes beside what was saved and is not read by it."""
    graph = step.graph
    most = 0
    for op, cost in zip(graph.ops, step.costs):
        touched = sum(
            graph.storages[s].nbytes for s in {*op.reads, *op.writes} if graph.storages[s].kind != "resident"
        )
        most = max(most, cost.workspace_bytes + touched)
    return most
