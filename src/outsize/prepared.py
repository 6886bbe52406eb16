"""What passes between a session and what decides for it: what is known of a step, and what was decided."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from .errors import OutsizeError
from .fx import CapturedStep, RewrittenStep
from .observe import Observed
from .replay import ReplayProgram
from .values import CodecRate, Entry, LinkRate, OpCost, ParameterUnit, Plan, Profile, StateUnit, StepGraph


@dataclass(frozen=True, kw_only=True, eq=False)
class Prepared:
    """A captured step with everything that was decided for it; `object_bytes` are kept free for the step's objects, and
    `updates` are the entries from the first update after the backward on, which run with the optimizer's step; `fused`
    the state storages whose updates run in the backward."""

    graph: StepGraph
    profile: Profile
    plan: Plan
    rewritten: RewrittenStep
    phase_peaks: dict[str, int]
    object_bytes: int
    measure_seconds: float
    planning_seconds: float
    rewrite_seconds: float
    updates: tuple[Entry, ...] = ()
    fused: frozenset[int] = frozenset()

    @property
    def seconds(self) -> tuple[float, float, float]:
        """Of measuring, planning and rewriting."""
        return self.measure_seconds, self.planning_seconds, self.rewrite_seconds


@dataclass(frozen=True, kw_only=True, eq=False)
class PreparedReplay:
    """An observed step with everything that was decided for it."""

    graph: StepGraph
    profile: Profile
    plan: Plan
    program: ReplayProgram
    phase_peaks: dict[str, int]
    object_bytes: int
    measure_seconds: float
    planning_seconds: float
    rewrite_seconds: float

    @property
    def seconds(self) -> tuple[float, float, float]:
        """Of measuring, planning and rewriting."""
        return self.measure_seconds, self.planning_seconds, self.rewrite_seconds


@dataclass(frozen=True, kw_only=True)
class Learned:
    """What is known when a plan is made, beyond the graph.

    Attributes:
        resident: resident bytes that no op touches.
        outside: bytes that the loss took outside the module, None before the first step.
        later: bytes alive in the backward that were not there at the forward: gradients and saved values of other calls.
        update: bytes that the optimizer's step needs for a moment.
        bias: bytes that the first step took beyond the prediction.
        densities: storage → share of nonzero elements to plan for.
        costs: of the ops, where they were measured before.
        units: optimizer state that may rest on a tier; `resident` does not have it.
        parameters: that nobody trains and that may rest on a tier; the graph has their bytes.
        absent: places of tangents that are not expected: results that the loss does not use.
        links, codecs: rates by name, where another process has measured them.
    """

    resident: int
    outside: int | None = None
    later: int = 0
    update: int = 0
    bias: int = 0
    densities: dict[int, float] = field(default_factory=dict)
    costs: tuple[OpCost, ...] = ()
    absent: frozenset[int] = frozenset()
    units: tuple[StateUnit, ...] = ()
    parameters: tuple[ParameterUnit, ...] = ()
    links: dict[str, LinkRate] = field(default_factory=dict)
    codecs: dict[str, CodecRate] = field(default_factory=dict)


def guessed_outside(step: CapturedStep, absent: frozenset[int]) -> int:
    """Bytes that a loss outside the module may need, before one was seen.

    Three times the bytes of the results that carry gradients are kept free, beside the gradient itself: a
    cross-entropy and its backward make two tensors of that size, a mean square four. Results in `absent` carry none.
    """
    carrying = {step.storage[t] for i, t in enumerate(step.tangents) if i not in absent}
    sizes = (step.graph.storages[s].nbytes for s in step.graph.ops[step.boundary].writes if s in carrying)
    return 3 * sum(size for size in sizes if size > 4096)


def released(*_: object) -> Prepared:
    """Prepares nothing: of a session that has ended, or that only counts.

    Raises:
        OutsizeError: always.
    """
    raise OutsizeError("a session that was released, or that only counts, was asked to plan")


Prepare = Callable[[CapturedStep, Learned], Prepared]
PrepareObserved = Callable[[Observed, Learned], PreparedReplay]
