"""The public calls. `_prepare` is the picture: capture → measure → slack → plan → rewrite → runtime."""

from __future__ import annotations

import functools
import itertools
import time
import weakref
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from .capture import Backend, check_version, compiled_call, dynamo_settings
from .device import memory
from .errors import CaptureError, OutsizeError
from .fx import CapturedStep
from .measure import MeasureSettings, default_cache, measure_ops
from .plan import PlanSettings, check, lower, make_plan, simulate
from .rewrite import rewrite_step, verify_step
from .runtime.executor import StepProgram, plain_forward
from .runtime.ops import OPS
from .runtime.tiers import DiskTier, Tier
from .session import Prepared, Session, with_resident
from .slack import compute_slack
from .units import parse_bytes
from .values import LinkRate, OpCost, Plan, Profile, RunRecord

__all__ = ["compile", "meter", "plan", "report"]

_SESSIONS: weakref.WeakKeyDictionary[torch.nn.Module, Session] = weakref.WeakKeyDictionary()


def compile(
    module: torch.nn.Module,
    budget: int | str | None = None,
    *,
    optimizer: torch.optim.Optimizer | None = None,
    disk: str | Path | None = None,
    actions: Sequence[str] = ("swap", "recompute", "encode"),
    planner: str = "slack",
) -> torch.nn.Module:
    """Keep the module's training step under a budget; the training loop stays as it is.

    The module is compiled in place and returned: same `state_dict` keys, same results to the bit.

    Args:
        module: the network; its forward must be traceable as one graph.
        budget: peak bytes of the step: an int, `"1.5 GiB"`, `"60%"` of the device's memory, or None for the bytes
            that are free now. It counts parameters, buffers, gradients, inputs, activations, operator workspace
            and, given `optimizer`, its state.
        optimizer: the optimizer that will update the module.
        disk: directory of the disk tier; None picks a real disk.
        actions: what a plan may do: `swap`, `recompute`, `encode`.
        planner: `search`, `slack`, `distance`, `units` or `exact`.

    Raises:
        UnitError: the budget cannot be read.
        VersionError: this torch is not supported.
        TierError: the disk directory is missing, read-only or too small.
        BudgetError: (at the first forward) no plan fits; it names the smallest budget that does.
        CaptureError: (at the first forward) the module is not one graph.
    """
    budget_bytes = _budget(budget)
    settings = functools.partial(_prepare, budget_bytes=budget_bytes, planner=planner, actions=tuple(actions))
    tiers: dict[str, Tier] = {"disk": DiskTier(disk)} if "swap" in actions else {}
    return _install(module, Session(module, optimizer, tiers, settings, budget_bytes))


def meter(module: torch.nn.Module, *, optimizer: torch.optim.Optimizer | None = None) -> torch.nn.Module:
    """The plain step in the same executor and under the same meter: what a plan is compared with."""
    unbounded = 2**62
    prepare = functools.partial(_prepare, budget_bytes=unbounded, planner="slack", actions=())
    return _install(module, Session(module, optimizer, {}, prepare, unbounded))


def report(module: torch.nn.Module, *, timelines: bool = True) -> RunRecord:
    """What was planned for the module and what its steps measured.

    Args:
        module: compiled here, and run for a step.
        timelines: simulate the step without and with the plan as well, for the curves of the report page.

    Raises:
        OutsizeError: the module is not compiled here, or has not run a step yet.
    """
    session = _SESSIONS.get(module)
    record = session.record() if session is not None else None
    if session is None or record is None:
        raise OutsizeError("there is nothing to report: call outsize.compile(module) and run a step first")
    made = session.prepared
    if not timelines or made is None:
        return record
    plain, planned = (
        simulate(made.graph, made.profile, lower(made.graph, chosen))
        for chosen in (replace(made.plan, decisions=()), made.plan)
    )
    return replace(record, plain_timeline=plain, timeline=planned)


def plan(
    module: torch.nn.Module,
    args: tuple[Any, ...],
    *,
    budget: int | str | None = None,
    optimizer: torch.optim.Optimizer | None = None,
    actions: Sequence[str] = ("swap", "recompute", "encode"),
    planner: str = "slack",
) -> Plan:
    """The plan that `compile` would make for `module(*args)`, without running the step.

    Raises:
        BudgetError: no plan fits the budget.
        CaptureError: the module is not one graph.
    """
    step = capture(module, args)
    prepare = functools.partial(
        _prepare, budget_bytes=_budget(budget), planner=planner, actions=tuple(actions)
    )
    session = Session(module, optimizer, {}, prepare, _budget(budget))
    extra = max(0, session._resident(args) - step.graph.resident_bytes)
    return prepare(step, extra, 0, 0).plan


class _Captured(OutsizeError):
    """Carries the step out of the compiler, before anything runs."""

    def __init__(self, step: CapturedStep) -> None:
        super().__init__("captured")
        self.step = step


def capture(module: torch.nn.Module, args: tuple[Any, ...]) -> CapturedStep:
    """The training step of `module(*args)` as a graph; nothing is run.

    Raises:
        CaptureError: no graph with a backward came out.
    """
    check_version()

    def stop(step: CapturedStep) -> Any:
        raise _Captured(step)

    def no_step(_: Any) -> Any:
        raise CaptureError("the module's result needs no gradient here, so there is no training step to plan")

    try:
        with dynamo_settings():
            compiled_call(module, Backend(stop, no_step))(*args)
    except _Captured as captured:
        return captured.step
    raise CaptureError("torch.compile found nothing to capture in this module's forward")


def _install(module: torch.nn.Module, session: Session) -> torch.nn.Module:
    check_version()
    backend = Backend(lambda step: StepProgram(step, session), plain_forward)
    compiled = compiled_call(module, backend)

    def call(*args: Any, **kwargs: Any) -> Any:
        start, graphs = time.perf_counter(), backend.graphs
        with dynamo_settings():
            result = compiled(*args, **kwargs)
        if backend.graphs == 0:
            raise CaptureError("torch.compile captured no graph of this module, so no budget can be kept")
        if backend.graphs > graphs:
            session.capture_seconds = time.perf_counter() - start
        return result

    module._compiled_call_impl = call
    _SESSIONS[module] = session
    return module


def _budget(budget: int | str | None) -> int:
    return memory.free_bytes() if budget is None else parse_bytes(budget, whole=memory.total_bytes())


def _prepare(
    step: CapturedStep,
    extra: int,
    outside: int,
    bias: int,
    *,
    budget_bytes: int,
    planner: str,
    actions: tuple[str, ...],
    measure: MeasureSettings | None = None,
    settings: PlanSettings | None = None,
) -> Prepared:
    clock = [time.perf_counter()]
    graph = with_resident(step.graph, extra + bias)
    costs = measure_ops(graph.ops, step.nodes, measure or MeasureSettings(cache=default_cache()))
    profile = Profile(
        ops=_with_outside(step, costs, outside),
        links={"disk": LinkRate(out_bytes_per_second=8e8, in_bytes_per_second=8e8, shared=True)},
    )
    clock.append(time.perf_counter())
    slack = compute_slack(graph, profile)
    made = make_plan(
        graph,
        profile,
        slack,
        budget_bytes=budget_bytes,
        planner=planner,
        actions=actions,
        settings=settings or PlanSettings(),
    )
    schedule = lower(graph, made)
    timeline = simulate(graph, profile, schedule)
    check(graph, profile, schedule, budget_bytes)
    clock.append(time.perf_counter())
    rewritten = rewrite_step(step, schedule, OPS)
    verify_step(step, rewritten, OPS)
    clock.append(time.perf_counter())
    times = [end - start for start, end in itertools.pairwise(clock)]
    peaks: dict[str, int] = {}
    for entry, nbytes in zip(schedule.entries, timeline.residency):
        if entry.op >= 0:
            phase = graph.ops[entry.op].phase
            peaks[phase] = max(nbytes, peaks.get(phase, 0))
    return Prepared(
        graph=graph, profile=profile, plan=made, rewritten=rewritten, phase_peaks=peaks,
        measure_seconds=times[0], planning_seconds=times[1], rewrite_seconds=times[2],
    )  # fmt: skip


def _with_outside(step: CapturedStep, costs: Sequence[OpCost], outside: int) -> tuple[OpCost, ...]:
    """The costs with the bytes that the loss needs outside the module.

    Before a step was measured, twice the bytes of the results that carry gradients are kept free: a loss such as
    cross-entropy makes one tensor of that size and its backward another.
    """
    guess = outside
    op = step.graph.ops[step.boundary]
    if not outside:
        guess = 2 * sum(
            step.graph.storages[s].nbytes for s in op.writes if step.graph.storages[s].nbytes > 4096
        )
    made = list(costs)
    made[step.boundary] = replace(made[step.boundary], workspace_bytes=guess)
    return tuple(made)
