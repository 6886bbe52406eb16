"""The paths of one module's eager steps: what was observed of each, its plan, and which one a call is likely to take.

What a call will do is not known before it runs. Its inputs tell most of it: a path is looked for by their kinds, the
training flag and which gradients are there already. Among several (a branch on data, an expert that nobody chose) the one
that was taken last is tried first.

A path is its operators and what they pass on, not its sizes. A plan for sizes serves smaller ones, so the largest that
were seen count. Where a step has larger ones all the same (rows that are routed to an expert), it follows its plan and
makes room for the rest, and the path is planned anew with those sizes and some headroom, after the 1st, 2nd, 4th, 8th
such step.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypeAlias, final

import torch
from torch.utils._pytree import tree_flatten

from ..observe import Observed
from ..prepared import PreparedReplay

__all__ = ["Path", "Paths", "Pattern", "pattern_of"]

#: Longest pause between two observed steps, in steps.
LONGEST_PAUSE = 64
#: Times that a path is observed before it is planned where its plan has anything to do: a process's first step takes
#: time and bytes once that later ones do not.
SIGHTINGS = 2
#: New paths in a row, none of which recurs, before observed steps pause as well.
NEW_IN_A_ROW = 8
#: Paths that are remembered: a module that drops layers at random has more than anybody can plan for.
MOST_KNOWN = 32
#: What a storage that has outgrown its plan is planned with beyond its new size: doubled each time, up to as much again.
HEADROOM = 0.125
GROWN = "a step had larger sizes than it was planned for"

Sizes: TypeAlias = tuple[tuple[int, ...], ...]
Pattern: TypeAlias = tuple[Any, Sizes]


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
        sizes: the largest inputs of the calls that showed it, by their kinds.
        step: as it was observed, with the largest sizes.
        sightings: how often.
        prepared: the plan in force.
        resident: the resident bytes that it was made for.
        bias: bytes that a step took beyond the prediction.
        outside: bytes taken outside the module, where a later step took more than the observed one.
        stale: why it is to be planned anew; empty where it is not.
        steps: steps that followed it to the end.
        peak: highest measured peak of those under the current plan.
        inputs: in words.
        growths: steps that had larger sizes than planned for.
        refused: sightings when no plan was found, and none was needed: its observed steps stay under the budget. A plan
            is looked for again when twice as many have taught what its operators cost.
        unplanned: peak and resident bytes of its latest observed step.
    """

    sizes: dict[Any, Sizes]
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
    growths: int = 0
    refused: int = 0
    unplanned: tuple[int, int] | None = None
    _grown: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        #: The most that an op takes beside what was saved and is not read by it.
        self.beside = most_beside(self.step)

    def sees(self, step: Observed) -> None:
        """It was observed once more."""
        larger = self.step.joined(step)
        if self.prepared is not None and larger.nbytes != self.step.nbytes and not self.stale:
            self.stale = GROWN
        self.step, self.sightings = larger, self.sightings + 1
        self.beside = max(self.beside, most_beside(larger))

    def grew(self, nbytes: dict[int, int]) -> None:
        """A step had so many bytes in these slots, more than planned."""
        self.growths += 1
        for slot, n in nbytes.items():
            self._grown[slot] = max(n, self._grown.get(slot, 0))
        if self.growths & (self.growths - 1):  # no power of two
            return
        room = 1 + min(1.0, HEADROOM * self.growths)
        self.step = self.step.with_sizes({s: int(room * n) for s, n in self._grown.items()})
        self.beside = max(self.beside, most_beside(self.step))
        self.stale = GROWN
        self._grown.clear()

    def keeps(self, budget: int, resident: int) -> bool:
        """Whether its observed steps, which give way as they go, stay under a budget that no plan keeps."""
        return self.unplanned is not None and self.unplanned[0] <= budget and resident <= self.unplanned[1]


@final
@dataclass
class Paths:
    """All that are known.

    Attributes:
        known: latest taken first.
        strays: calls that took a path that nobody had observed.
        observed: calls that were observed.
        over: the most bytes by which a step on a path without a plan went over the budget.
        peak: highest of all steps after the first.
    """

    known: list[Path] = field(default_factory=list)
    strays: int = 0
    observed: int = 0
    over: int = 0
    peak: int = 0
    _wanted: bool = False
    _pause: int = 0
    _skip: int = 0
    _new: int = 0

    def likely(self, pattern: Pattern) -> Path | None:
        """The path that a call is likely to take; None where it should be observed."""
        kind, given = pattern
        suited = [p for p in self.known if (most := p.sizes.get(kind)) is not None and covers(most, given)]
        if self._wanted and self._skip == 0:
            return None
        self._skip = max(0, self._skip - 1)
        return suited[0] if suited else None

    def took(self, path: Path) -> None:
        """A call followed it to the end."""
        path.steps += 1
        if path in self.known:
            self.known.remove(path)
            self.known.insert(0, path)
        if path.steps == 1:  # what was observed does recur
            self._new = self._pause = 0

    def strayed(self) -> None:
        """A call took another path than the likely one: one of the next is observed."""
        self.strays += 1
        self._wanted = True

    def saw(self, pattern: Pattern, step: Observed, inputs: str) -> Path:
        """A call was observed. The path that it took, known before or not."""
        self.observed += 1
        kind, given = pattern
        for path in self.known:
            if path.step.is_same(step):
                path.sees(step)
                path.sizes[kind] = larger_of(path.sizes.get(kind, given), given)
                if self._wanted:  # in vain
                    self._wait()
                return path
        self._wanted, self._new = False, self._new + 1
        if self._new > NEW_IN_A_ROW:
            self._wait()
        path = Path(sizes={kind: given}, step=step, inputs=inputs)
        self.known.insert(0, path)
        del self.known[MOST_KNOWN:]
        return path

    def _wait(self) -> None:
        self._pause = min(LONGEST_PAUSE, 2 * self._pause + 1)
        self._skip = self._pause


def covers(larger: Sizes, smaller: Sizes) -> bool:
    """Whether inputs are nowhere larger."""
    return all(len(a) == len(b) and all(m >= n for m, n in zip(a, b)) for a, b in zip(larger, smaller))


def larger_of(one: Sizes, other: Sizes) -> Sizes:
    """The larger size in each place, of inputs of one kind."""
    return tuple(tuple(map(max, a, b)) for a, b in zip(one, other))


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
