"""The public calls. `decide.py` is the picture: capture → measure → slack → plan → rewrite → runtime."""

from __future__ import annotations

import functools
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.fx import GraphModule

from .capture import Backend, check_version, compiled_call, refuse_foreign
from .decide import ACTIONS, Options, decide, prepare
from .device import allocator, memory
from .device.place import CPU, device_of
from .errors import BudgetError, CaptureError, OutsizeError
from .fx import CapturedStep
from .measure import (
    Hardware,
    load_hardware,
)
from .plan import lower, simulate
from .plan.settings import MOST_EFFORT
from .prepared import Learned, Prepared
from .runtime.executor import StepProgram, plain_forward
from .runtime.tiers import DiskTier, HostSettings, HostTier, Tier
from .session import Session
from .units import parse_bytes
from .values import Plan, RunRecord

__all__ = ["capture", "compile", "meter", "plan", "report", "sweep"]

#: Lossy codecs that a step may use, and their largest relative error.
LOSSY_IN_STEPS = {"bf16": 2.0**-8}
_SESSIONS: weakref.WeakKeyDictionary[torch.nn.Module, Session] = weakref.WeakKeyDictionary()


def compile(
    module: torch.nn.Module,
    budget: int | str | None = None,
    *,
    optimizer: torch.optim.Optimizer | None = None,
    disk: str | Path | None = None,
    actions: Sequence[str] = ACTIONS,
    planner: str = "search",
    lossy: dict[str, float] | None = None,
    host_budget: int | str | None = None,
    disk_budget: int | str | None = None,
    inner: str = "aten",
    effort: int = 1,
) -> torch.nn.Module:
    """Keep the module's training step under a budget; the training loop stays as it is.

    The module is compiled in place and returned: same `state_dict` keys, same results to the bit.

    Args:
        module: the network; its forward must be traceable as one graph.
        budget: peak bytes of the step on the module's device: an int, `"1.5 GiB"`, `"60%"` of the device's memory, or
            None for the bytes that are free now. It counts parameters, buffers, gradients, inputs, activations, operator
            workspace and, given `optimizer`, its state.
        optimizer: the optimizer that will update the module.
        disk: directory of the disk tier, which serves a module on the processor; None picks a real disk. A module on a
            GPU swaps to page-locked host memory.
        actions: what a plan may do: `swap`, `recompute`, `encode`.
        planner: `search`, `slack`, `distance`, `units` or `exact`.
        lossy: codecs that may lose bits, and the relative error that each element may have: `{"bf16": 2**-8}`,
            the only one that needs no memory beside its result; none unless given.
        host_budget, disk_budget: most bytes that the plan may hold in that tier.
        inner: `aten` runs the step operator by operator, to the bit; `inductor` fuses what lies between our calls.
        effort: how long the planner may look: 1 takes about a second on 400 operators; with 2 to 8 it anneals as well,
            some seconds for each more, which makes plans by several actions a few per cent faster.

    Raises:
        OutsizeError: `lossy` names a codec that a step cannot use, or allows less than its error; `inner` or `effort` is
            none of those above; the module lies on several devices; it is on a GPU and `disk`, `disk_budget` or
            `inner="inductor"` is given.
        UnitError: a budget cannot be read.
        VersionError: this torch is not supported.
        TierError: the disk directory is missing, read-only or too small.
        BudgetError: (at the first forward) no plan fits; it names the smallest budget that does.
        CaptureError: (at the first forward) the module is not one graph.
    """
    device = device_of((*module.parameters(), *module.buffers()))
    _suits(device, disk, disk_budget, inner)
    options = Options(
        budget_bytes=_budget(budget, device),
        actions=tuple(actions),
        planner=planner,
        lossy=_allowed(lossy),
        host_budget=None if host_budget is None else parse_bytes(host_budget, whole=memory.total_bytes()),
        disk_budget=None if disk_budget is None else parse_bytes(disk_budget),
        disk=None if disk is None else str(disk),
        inner=inner,
        effort=_effort(effort),
    )
    if inner not in ("aten", "inductor"):
        raise OutsizeError(f"inner={inner!r} is not known: give 'aten' or 'inductor'")
    allocator.install()
    tiers = _tiers(device, options) if {"swap", "encode"} & set(actions) else {}
    planned = functools.partial(prepare, options)
    return _install(module, Session(module, optimizer, tiers, planned, options.budget_bytes, device))


def _suits(device: torch.device, disk: object, disk_budget: object, inner: str) -> None:
    """What a module on a GPU cannot have is refused, not ignored."""
    if device.type == "cpu":
        return
    if disk is not None or disk_budget is not None:
        raise OutsizeError(
            f"a module on {device} swaps to page-locked host memory, not to disk: leave disk= and disk_budget= out, and "
            "give host_budget= to limit it"
        )
    if inner == "inductor":
        raise OutsizeError(
            f"inner='inductor' takes modules on the processor, and this one is on {device}: leave it out"
        )


def _tiers(device: torch.device, options: Options) -> dict[str, Tier]:
    """Where a device's bytes go: an accelerator's to the host's memory, the processor's to disk."""
    if device.type == "cpu":
        return {"disk": DiskTier(options.disk)}
    return {"host": HostTier(device, settings=HostSettings(limit_bytes=options.host_budget))}


def meter(module: torch.nn.Module, *, optimizer: torch.optim.Optimizer | None = None) -> torch.nn.Module:
    """The plain step in the same executor and under the same meter: what a plan is compared with."""
    allocator.install()
    device = device_of((*module.parameters(), *module.buffers()))
    options = Options(budget_bytes=2**62, actions=())
    planned = functools.partial(prepare, options)
    return _install(module, Session(module, optimizer, {}, planned, options.budget_bytes, device))


def report(module: torch.nn.Module, *, timelines: bool = True) -> RunRecord:
    """What was planned for the module and what its steps measured.

    Args:
        module: compiled here, and run for a step.
        timelines: simulate the step without and with the plan as well, for the curves of the report page.

    Raises:
        OutsizeError: the module is not compiled here, or has not run a step yet.
    """
    session = _session(module)
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


def record(module: torch.nn.Module) -> None:
    """Record the module's next step operator by operator: `report(module).measured_timeline` has it then.

    It computes the same values in the same memory; reading clock and meter takes some 0.1 ms an operator.

    Raises:
        OutsizeError: the module is not compiled here.
    """
    if (session := _session(module)) is None:
        raise OutsizeError(
            "there is no step to record: call outsize.compile(module) or outsize.meter(module) first"
        )
    session.recording = True


def _session(module: torch.nn.Module) -> Session | None:
    inner = getattr(module, "module", module)  # what `outsize.parallel.distribute` wraps
    return _SESSIONS.get(module) or _SESSIONS.get(inner)


def plan(
    module: torch.nn.Module,
    args: tuple[Any, ...],
    *,
    budget: int | str | None = None,
    hardware: str | Hardware | None = None,
    optimizer: torch.optim.Optimizer | None = None,
    actions: Sequence[str] = ACTIONS,
    planner: str = "search",
    lossy: dict[str, float] | None = None,
    effort: int = 1,
) -> Plan:
    """The plan that `compile` would make for `module(*args)`, without running the step.

    Args:
        budget: as for `compile`; a percentage is of the hardware's memory.
        hardware: a name that `outsize.measure.known_hardware()` lists, a TOML file, or None for this machine.
            With it the figures are estimates, and module and args may be fake tensors.
        effort: as for `compile`.

    Raises:
        OutsizeError: `lossy` or `effort`, as for `compile`.
        BudgetError: no plan fits the budget.
        CaptureError: the module is not one graph.
    """
    allocator.install()
    here = device_of((*module.parameters(), *module.buffers()))
    options = replace(
        _plan_options(budget, hardware, here), actions=tuple(actions), planner=planner, lossy=_allowed(lossy),
        effort=_effort(effort),
    )  # fmt: skip
    step = capture(module, args)
    return decide(step, _unlearned(module, args, step, optimizer), options).plan


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
    allocator.install()
    here = device_of((*module.parameters(), *module.buffers()))
    options = _plan_options(2**62, hardware, here)
    step = capture(module, args)
    learned = _unlearned(module, args, step, optimizer)

    def attempt(planner: str, actions: Sequence[str], budget: int) -> Plan | int:
        asked = replace(options, planner=planner, actions=tuple(actions), budget_bytes=budget)
        try:
            return decide(step, learned, asked).plan
        except BudgetError as error:
            return error.smallest_feasible_bytes

    lows = [low for chosen in techniques.values() if isinstance(low := attempt(*chosen, 1), int)]
    top = decide(step, learned, options).plan.plain_peak_bytes
    low = min(lows, default=top)
    budgets = sorted({low + (top - low) * i // max(1, points - 1) for i in range(points)})
    return {
        name: tuple(p for b in budgets if isinstance(p := attempt(*chosen, b), Plan))
        for name, chosen in techniques.items()
    }


def _effort(effort: int) -> int:
    if effort not in range(1, MOST_EFFORT + 1):
        raise OutsizeError(
            f"effort={effort!r} is not known: give a whole number from 1 (quick) to {MOST_EFFORT}"
        )
    return effort


def _plan_options(budget: int | str | None, hardware: str | Hardware | None, here: torch.device) -> Options:
    there = load_hardware(hardware) if isinstance(hardware, str) else hardware
    if there is None:
        return Options(budget_bytes=_budget(budget, here))
    whole = there.memory_bytes
    limit = whole if budget is None else parse_bytes(budget, whole=whole)
    return Options(budget_bytes=limit, hardware=there)


def _unlearned(
    module: torch.nn.Module,
    args: tuple[Any, ...],
    step: CapturedStep,
    optimizer: torch.optim.Optimizer | None,
) -> Learned:
    """What is known of a step that has not run: the resident bytes that its graph does not hold."""
    counts = Session(module, optimizer, {}, _unused, 0, step.device)
    resident = max(0, counts.resident_bytes(args) - step.graph.resident_bytes)
    return Learned(resident=resident, update=counts.update_workspace)


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
        compiled_call(module, Backend(stop, no_step))(*args)
    except _Captured as captured:
        return captured.step
    raise CaptureError("torch.compile found nothing to capture in this module's forward")


def _install(module: torch.nn.Module, session: Session) -> torch.nn.Module:
    check_version()
    refuse_foreign(module)

    def evaluated(forward: GraphModule) -> Callable[[list[Any]], Any]:
        program = plain_forward(forward)

        def run(inputs: list[Any]) -> Any:
            session.runs()
            return program(inputs)

        return run

    def planned(step: CapturedStep) -> StepProgram:
        if step.device != session.device:
            raise OutsizeError(
                f"the module was on {session.device} when it was compiled and runs on {step.device} now: move it first, "
                "then call outsize.compile"
            )
        return StepProgram(step, session)

    backend = Backend(planned, evaluated)
    compiled = compiled_call(module, backend)

    def call(*args: Any, **kwargs: Any) -> Any:
        start, graphs = time.perf_counter(), backend.graphs
        session.called()
        try:
            result = compiled(*args, **kwargs)
        finally:
            session.runs()
        if backend.graphs == 0:
            raise CaptureError("torch.compile captured no graph of this module, so no budget can be kept")
        if backend.graphs > graphs:
            session.capture_seconds = time.perf_counter() - start
        return result

    module._compiled_call_impl = call
    _SESSIONS[module] = session
    return module


def _allowed(lossy: dict[str, float] | None) -> dict[str, float] | None:
    """The lossy codecs asked for, held against what they do."""
    for name, error in (lossy or {}).items():
        if name not in LOSSY_IN_STEPS:
            raise OutsizeError(
                f"lossy={{{name!r}: …}}: a step has {', '.join(map(repr, LOSSY_IN_STEPS))} only; "
                "codecs.saved_tensors_hooks(model, codecs.Policy(lossy=…)) has more"
            )
        if error < LOSSY_IN_STEPS[name]:
            raise OutsizeError(
                f"lossy={{{name!r}: {error}}}: its error is up to {LOSSY_IN_STEPS[name]} of an element"
            )
    return lossy


def _budget(budget: int | str | None, device: torch.device = CPU) -> int:
    if budget is None:
        return memory.free_bytes(device)
    return parse_bytes(budget, whole=memory.total_bytes(device) if isinstance(budget, str) else None)
