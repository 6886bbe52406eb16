"""The public calls. `_prepare` is the picture: capture → measure → slack → plan → rewrite → runtime."""

from __future__ import annotations

import functools
import time
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from .capture import Backend, check_version, compiled_call, dynamo_settings
from .device import memory
from .errors import BudgetError, CaptureError, OutsizeError
from .fx import CapturedStep
from .measure import (
    Hardware,
    MeasureSettings,
    default_cache,
    estimate,
    load_hardware,
    measure_ops,
    storage_rates,
)
from .plan import PlanSettings, check, lower, make_plan, simulate
from .rewrite import rewrite_step, verify_step
from .runtime.executor import StepProgram, plain_forward
from .runtime.ops import OPS
from .runtime.tiers import DiskTier, Tier
from .session import Learned, Prepared, Session, with_resident
from .slack import compute_slack
from .units import parse_bytes
from .values import LinkRate, Plan, Profile, RunRecord, Schedule, StepGraph

__all__ = ["capture", "compile", "meter", "plan", "report", "sweep"]

_SESSIONS: weakref.WeakKeyDictionary[torch.nn.Module, Session] = weakref.WeakKeyDictionary()
_ACTIONS = ("swap", "recompute", "encode")


@dataclass(frozen=True, kw_only=True)
class _Options:
    """What was asked of `compile` or `plan`."""

    budget_bytes: int
    actions: tuple[str, ...] = _ACTIONS
    planner: str = "slack"
    lossy: dict[str, float] | None = None
    host_budget: int | None = None
    disk_budget: int | None = None
    hardware: Hardware | None = None
    links: dict[str, LinkRate] | None = None


def compile(
    module: torch.nn.Module,
    budget: int | str | None = None,
    *,
    optimizer: torch.optim.Optimizer | None = None,
    disk: str | Path | None = None,
    actions: Sequence[str] = _ACTIONS,
    planner: str = "slack",
    lossy: dict[str, float] | None = None,
    host_budget: int | str | None = None,
    disk_budget: int | str | None = None,
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
        lossy: codecs that may lose bits and their bound on the relative error; none unless given.
        host_budget, disk_budget: most bytes that the plan may hold in that tier.

    Raises:
        UnitError: a budget cannot be read.
        VersionError: this torch is not supported.
        TierError: the disk directory is missing, read-only or too small.
        BudgetError: (at the first forward) no plan fits; it names the smallest budget that does.
        CaptureError: (at the first forward) the module is not one graph.
    """
    options = _Options(
        budget_bytes=_budget(budget),
        actions=tuple(actions),
        planner=planner,
        lossy=lossy,
        host_budget=None if host_budget is None else parse_bytes(host_budget, whole=memory.total_bytes()),
        disk_budget=None if disk_budget is None else parse_bytes(disk_budget),
    )
    tiers: dict[str, Tier] = {"disk": DiskTier(disk)} if {"swap", "encode"} & set(actions) else {}
    return _install(
        module, Session(module, optimizer, tiers, functools.partial(_prepare, options), options.budget_bytes)
    )


def meter(module: torch.nn.Module, *, optimizer: torch.optim.Optimizer | None = None) -> torch.nn.Module:
    """The plain step in the same executor and under the same meter: what a plan is compared with."""
    options = _Options(budget_bytes=2**62, actions=())
    return _install(
        module, Session(module, optimizer, {}, functools.partial(_prepare, options), options.budget_bytes)
    )


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
    hardware: str | Hardware | None = None,
    optimizer: torch.optim.Optimizer | None = None,
    actions: Sequence[str] = _ACTIONS,
    planner: str = "slack",
    lossy: dict[str, float] | None = None,
) -> Plan:
    """The plan that `compile` would make for `module(*args)`, without running the step.

    Args:
        budget: as for `compile`; a percentage is of the hardware's memory.
        hardware: a name that `outsize.measure.known_hardware()` lists, a TOML file, or None for this machine.
            With it the figures are estimates, and module and args may be fake tensors.

    Raises:
        BudgetError: no plan fits the budget.
        CaptureError: the module is not one graph.
    """
    options = replace(_plan_options(budget, hardware), actions=tuple(actions), planner=planner, lossy=lossy)
    step = capture(module, args)
    return _decide(step, _unlearned(module, args, step, optimizer), options).plan


def sweep(
    module: torch.nn.Module,
    args: tuple[Any, ...],
    techniques: Mapping[str, tuple[str, Sequence[str]]],
    *,
    points: int = 8,
    hardware: str | Hardware | None = None,
    optimizer: torch.optim.Optimizer | None = None,
) -> dict[str, tuple[Plan, ...]]:
    """Plans by technique at the same budgets, spread evenly from the smallest feasible to the plain peak.

    Nothing is run. Budgets that a technique cannot keep are missing from its plans.

    Args:
        techniques: by name a planner and its actions, as for `plan`.
        points: number of budgets.
        hardware, optimizer: as for `plan`.

    Raises:
        CaptureError: the module is not one graph.
    """
    options = _plan_options(2**62, hardware)
    step = capture(module, args)
    learned = _unlearned(module, args, step, optimizer)

    def attempt(planner: str, actions: Sequence[str], budget: int) -> Plan | int:
        asked = replace(options, planner=planner, actions=tuple(actions), budget_bytes=budget)
        try:
            return _decide(step, learned, asked).plan
        except BudgetError as error:
            return error.smallest_feasible_bytes

    lows = [low for chosen in techniques.values() if isinstance(low := attempt(*chosen, 1), int)]
    top = _decide(step, learned, options).plan.plain_peak_bytes
    low = min(lows, default=top)
    budgets = sorted({low + (top - low) * i // max(1, points - 1) for i in range(points)})
    return {
        name: tuple(p for b in budgets if isinstance(p := attempt(*chosen, b), Plan))
        for name, chosen in techniques.items()
    }


def _plan_options(budget: int | str | None, hardware: str | Hardware | None) -> _Options:
    device = load_hardware(hardware) if isinstance(hardware, str) else hardware
    whole = memory.total_bytes() if device is None else device.memory_bytes
    free = memory.free_bytes() if device is None else device.memory_bytes
    limit = free if budget is None else parse_bytes(budget, whole=whole)
    return _Options(budget_bytes=limit, hardware=device)


def _unlearned(
    module: torch.nn.Module,
    args: tuple[Any, ...],
    step: CapturedStep,
    optimizer: torch.optim.Optimizer | None,
) -> Learned:
    """What is known of a step that has not run: the resident bytes that its graph does not hold."""
    resident = Session(module, optimizer, {}, _unused, 0).resident_bytes(args)
    return Learned(resident=max(0, resident - step.graph.resident_bytes))


def _unused(*_: Any) -> Prepared:
    raise OutsizeError("a session that only counts was asked to plan")


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


@dataclass(frozen=True, kw_only=True)
class _Decided:
    """A plan and what it was made from."""

    graph: StepGraph
    profile: Profile
    plan: Plan
    schedule: Schedule
    peaks: dict[str, int]
    seconds: tuple[float, float]


def _decide(step: CapturedStep, learned: Learned, options: _Options) -> _Decided:
    """measure → slack → plan → check."""
    clock = [time.perf_counter()]
    graph = with_resident(step.graph, learned.resident + learned.bias)
    profile = _profile(step, graph, learned, options)
    clock.append(time.perf_counter())
    made = make_plan(
        graph,
        profile,
        compute_slack(graph, profile),
        budget_bytes=options.budget_bytes,
        planner=options.planner,
        actions=options.actions,
        tiers=tuple(t for t in ("host", "disk") if t in profile.links),
        lossy=options.lossy,
        host_budget=options.host_budget,
        disk_budget=options.disk_budget,
        settings=PlanSettings(),
    )
    schedule = lower(graph, made)
    timeline = simulate(graph, profile, schedule)
    check(graph, profile, schedule, options.budget_bytes)
    clock.append(time.perf_counter())
    peaks: dict[str, int] = {}
    for entry, nbytes in zip(schedule.entries, timeline.residency):
        if entry.op >= 0:
            phase = graph.ops[entry.op].phase
            peaks[phase] = max(nbytes, peaks.get(phase, 0))
    seconds = (clock[1] - clock[0], clock[2] - clock[1])
    return _Decided(graph=graph, profile=profile, plan=made, schedule=schedule, peaks=peaks, seconds=seconds)


def _profile(step: CapturedStep, graph: StepGraph, learned: Learned, options: _Options) -> Profile:
    """Costs of this machine, or estimates for the hardware asked for."""
    if options.hardware is not None:
        profile = estimate(graph, options.hardware)
    else:
        known = learned.costs or measure_ops(graph.ops, step.nodes, MeasureSettings(cache=default_cache()))
        codecs = (
            storage_rates(graph, learned.densities)
            if learned.densities and "encode" in options.actions
            else {}
        )
        profile = Profile(ops=known, links=options.links or _LINKS, codecs=codecs)
    costs = list(profile.ops)
    costs[step.boundary] = replace(costs[step.boundary], workspace_bytes=_outside_bytes(step, learned))
    return replace(profile, ops=tuple(costs))


_LINKS = {
    "disk": LinkRate(out_bytes_per_second=8e8, in_bytes_per_second=8e8, latency_seconds=1e-4, shared=True)
}


def _outside_bytes(step: CapturedStep, learned: Learned) -> int:
    """Bytes that the loss needs outside the module.

    Before a step was measured, twice the bytes of the results that carry gradients are kept free: a loss such as
    cross-entropy makes one tensor of that size and its backward another.
    """
    if learned.outside is not None:
        return learned.outside
    sizes = (step.graph.storages[s].nbytes for s in step.graph.ops[step.boundary].writes)
    return 2 * sum(size for size in sizes if size > 4096)


def _prepare(options: _Options, step: CapturedStep, learned: Learned) -> Prepared:
    """Decide, then rewrite and verify."""
    made = _decide(step, learned, options)
    start = time.perf_counter()
    observe = frozenset[int]()
    if "encode" in options.actions and made.plan.decisions and not learned.densities:
        observe = frozenset(
            s.index for s in made.graph.candidates() if s.zeros and s.nbytes >= PlanSettings().min_bytes
        )
    rewritten = rewrite_step(step, made.schedule, OPS, observe=observe)
    verify_step(step, rewritten, OPS)
    return Prepared(
        graph=made.graph,
        profile=made.profile,
        plan=made.plan,
        rewritten=rewritten,
        phase_peaks=made.peaks,
        observes=bool(observe),
        measure_seconds=made.seconds[0],
        planning_seconds=made.seconds[1],
        rewrite_seconds=time.perf_counter() - start,
    )
