"""The public calls. `decide.py` is the picture: capture → measure → slack → plan → rewrite → runtime."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from . import asked
from .capture import capture
from .decide import Options, decide, prepare, prepare_observed
from .device import allocator, memory
from .device.place import device_of
from .errors import BudgetError, OutsizeError
from .fx import CapturedStep
from .measure import Hardware
from .plan import Request, lower, simulate
from .prepared import Learned, released
from .runtime.tiers import DiskTier, HostSettings, HostTier, Tier
from .session import SESSIONS, ObservedSession, Session, install, resident, session_of
from .session import release as _release
from .units import parse_bytes
from .values import Plan, RunRecord
from .values.actions import ASKED_BY_DEFAULT, ENCODING, TRAVELLING, allowed

__all__ = ["capture", "compile", "meter", "plan", "record", "release", "report", "resident", "sweep"]

_SESSIONS = SESSIONS


def compile(
    module: torch.nn.Module,
    budget: int | str | None = None,
    *,
    optimizer: torch.optim.Optimizer | None = None,
    disk: str | Path | None = None,
    actions: Sequence[str] = ASKED_BY_DEFAULT,
    planner: str = "search",
    lossy: dict[str, float] | None = None,
    host_budget: int | str | None = None,
    disk_budget: int | str | None = None,
    inner: str = "aten",
    effort: int = 1,
    door: str = "auto",
    strict: bool = False,
    residents: str = "move",
) -> torch.nn.Module:
    """Keep the module's training step under a budget; the training loop stays as it is.

    >>> import torch, outsize
    >>> model = torch.nn.Sequential(*(torch.nn.Linear(256, 256) for _ in range(8)))
    >>> outsize.compile(model, budget="64 MiB").train()(torch.randn(2048, 256)).square().mean().backward()

    Args:
        module: the network.
        budget: peak bytes of the step on the module's device: an int, `"1.5 GiB"`, `"60%"` of the device's memory, or
            None for the bytes that are free now. It counts parameters, buffers, gradients, inputs, activations, operator
            workspace and, given `optimizer`, its state.
        optimizer: the optimizer that will update the module.
        disk: directory of the disk tier, which serves a module on the processor; None picks a real disk. A module on a
            GPU swaps to page-locked host memory.
        actions: what a plan may do: `swap`, `recompute`, `encode`. An observed step that no plan covers may always swap.
        planner: `search`, `slack`, `distance`, `units` or `exact`.
        lossy: codecs that may lose bits, and the relative error that each element may have: `{"bf16": 2**-8}`,
            the only one that needs no memory beside its result; none unless given.
        host_budget, disk_budget: most bytes that the plan may hold in that tier.
        inner: `aten` runs the step operator by operator, to the bit; `inductor` fuses what lies between our calls.
        effort: 1 to 8: how long the planner looks. 1 takes a second on 400 operators; more find plans a little faster.
        door: how the step becomes known. `captured`: `torch.compile` traces it as one graph, before it runs. `observed`:
            its first steps run in eager PyTorch and are watched. `auto`: captured where that is possible, else observed;
            the report says which and why.
        residents: `move`: where the budget leaves no room for it, the optimizer's state rests on a tier between updates.
            `frozen`: so do parameters that nobody trains. `fuse`: updates run in the backward. `keep`: all stays.
        strict: in an observed module, a step that no plan covers and that cannot be kept under the budget is an error
            before it takes more, the first one included; else it runs, and a warning says by how much it was over.

    Returns:
        `module`, compiled in place: same `state_dict` keys, same results to the bit.

    Raises:
        OutsizeError: an argument is none of those above, or of another kind; `lossy` allows less than its codec's error;
            the module lies on several devices; it is on a GPU and `disk`, `disk_budget` or `inner="inductor"` is given.
        UnitError: a budget cannot be read.
        VersionError: this torch is not supported.
        TierError: the disk directory is missing, read-only or too small.
        BudgetError: (at the first forward) no plan fits; it names the smallest budget that does.
        CaptureError: (at the first forward, with `door="captured"`) the module is not one graph.
    """
    device = _device(module)
    memory.check_counted(device)
    options = Options(
        request=replace(
            asked.a_request(asked.bytes_of(budget, device), actions, planner, lossy, effort),
            host_budget=asked.tier_bytes("host_budget", host_budget, whole=memory.total_bytes()),
            disk_budget=asked.tier_bytes("disk_budget", disk_budget),
        ),
        disk=asked.a_directory(disk),
        inner=asked.an_inner(inner),
    )
    _suits(device, disk, disk_budget, inner)
    asked.an_optimizer(optimizer)
    door, resting = asked.a_door(door), asked.residents(residents, options.request.actions)
    allocator.install()
    made = functools.partial(_observed, weakref.ref(module), optimizer, options, device, strict=bool(strict))
    if door == "observed":
        return install(module, made("as asked"))
    captured = _captured(module, optimizer, options, device, residents=resting)
    return install(module, captured, made if door == "auto" else None)


def _captured(
    module: torch.nn.Module, optimizer: Any, options: Options, device: torch.device, *, residents: str
) -> Session:
    """The session of a module whose steps are captured."""
    tiers = _tiers(device, options) if allowed(options.request.actions) & (TRAVELLING | ENCODING) else {}
    planned = functools.partial(prepare, options)
    repeats, budget = "recompute" in options.request.actions, options.request.budget_bytes
    return Session(module, optimizer, tiers, planned, budget, device, repeats=repeats, residents=residents)


def _observed(
    module: weakref.ref[torch.nn.Module],
    optimizer: Any,
    options: Options,
    device: torch.device,
    why: str,
    *,
    strict: bool,
) -> ObservedSession:
    """The session of a module whose steps are observed."""
    alive = module()
    assert alive is not None  # it is being compiled, or called
    tiers = _tiers(device, options) if allowed(options.request.actions) & (TRAVELLING | ENCODING) else {}
    planned = functools.partial(prepare_observed, options)
    spare = functools.partial(_tiers, device, options)
    return ObservedSession(
        alive,
        optimizer,
        tiers,
        planned,
        options.request.budget_bytes,
        device,
        spare=spare,
        why=why,
        strict=strict,
    )


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
    return {"host": HostTier(device, settings=HostSettings(limit_bytes=options.request.host_budget))}


def meter(module: torch.nn.Module, *, optimizer: torch.optim.Optimizer | None = None) -> torch.nn.Module:
    """The plain step in the same executor and under the same meter: what a plan is compared with.

    Args:
        module: the network.
        optimizer: what updates it, whose state and workspace then count.

    Returns:
        the module; `outsize.report(module)` has the figures after a step.

    Raises:
        OutsizeError: `module` or `optimizer` is none; the module lies on several devices.
    """
    device = _device(module)
    memory.check_counted(device)
    asked.an_optimizer(optimizer)
    allocator.install()
    options = Options(request=Request(budget_bytes=2**62, actions=()))
    planned = functools.partial(prepare, options)
    return install(module, Session(module, optimizer, {}, planned, options.request.budget_bytes, device))


def release(module: torch.nn.Module) -> torch.nn.Module:
    """Give the plain module back: its own call, and everything that was made for it freed.

    Hooks, threads, the swap file, plans, graphs and what torch's compiler keeps go; parameters, buffers and gradients
    stay. It may be called again, on a module that was never compiled, and after an error. All of that happens by itself
    when the module goes.

    Args:
        module: any.

    Returns:
        the module.
    """
    return _release(module)


def report(module: torch.nn.Module, *, timelines: bool = True) -> RunRecord:
    """What was planned for the module and what its steps measured.

    Args:
        module: compiled here, and run for a step.
        timelines: simulate the step without and with the plan as well, for the curves of the report page.

    Returns:
        figures, decisions and refusals; `outsize.values.to_json` and the CLI's pages take it.

    Raises:
        OutsizeError: the module is not compiled here, or has not run a step yet.
    """
    session = session_of(module)
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

    Args:
        module: compiled here.

    Raises:
        OutsizeError: the module is not compiled here.
    """
    if (session := session_of(module)) is None:
        raise OutsizeError(
            "there is no step to record: call outsize.compile(module) or outsize.meter(module) first"
        )
    if isinstance(session, ObservedSession):
        raise OutsizeError(
            "a module whose steps are observed runs in eager PyTorch, which is not recorded operator by operator: use "
            "torch.profiler, or door='captured' where the module is one graph"
        )
    session.recording = True


def plan(
    module: torch.nn.Module,
    args: tuple[Any, ...],
    *,
    budget: int | str | None = None,
    hardware: str | Hardware | None = None,
    optimizer: torch.optim.Optimizer | None = None,
    actions: Sequence[str] = ASKED_BY_DEFAULT,
    planner: str = "search",
    lossy: dict[str, float] | None = None,
    effort: int = 1,
) -> Plan:
    """The plan that `compile` would make for `module(*args)`, without running the step.

    Args:
        module: the network; on the meta device or under FakeTensorMode nothing is allocated.
        args: of the module's call, as a tuple.
        budget: as for `compile`; a percentage is of the hardware's memory.
        hardware: a name that `outsize.measure.known_hardware()` lists, a TOML file, or None for this machine.
            With it the figures are estimates, and module and args may be fake tensors.
        optimizer, actions, planner, lossy, effort: as for `compile`.

    Returns:
        decisions, refusals, predicted peak in bytes and predicted step in seconds.

    Raises:
        OutsizeError: an argument is none of those above, as for `compile`.
        BudgetError: no plan fits the budget.
        CaptureError: the module is not one graph.
    """
    options = _plan_options(budget, hardware, _device(module))
    request = asked.a_request(options.request.budget_bytes, actions, planner, lossy, effort)
    return _planned(module, asked.arguments(args), replace(options, request=request), optimizer)


def plain_plan(
    module: torch.nn.Module,
    args: tuple[Any, ...],
    *,
    hardware: str | Hardware | None = None,
    optimizer: torch.optim.Optimizer | None = None,
) -> Plan:
    """The step as it is, without running it: a plan without decisions. Arguments as for `plan`."""
    options = replace(
        _plan_options(2**62, hardware, _device(module)), request=Request(budget_bytes=2**62, actions=())
    )
    return _planned(module, asked.arguments(args), options, optimizer)


def _planned(
    module: torch.nn.Module,
    args: tuple[Any, ...],
    options: Options,
    optimizer: torch.optim.Optimizer | None,
) -> Plan:
    asked.an_optimizer(optimizer)
    allocator.install()
    step = capture(module, args)
    return decide(step, _unlearned(module, args, step, optimizer), options).plan


def _device(module: torch.nn.Module) -> torch.device:
    """The device that a module is on, which is one."""
    asked.a_module(module)
    return device_of((*module.parameters(), *module.buffers()))


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
    options = _plan_options(2**62, hardware, _device(module))
    for planner, actions in techniques.values():
        asked.a_planner(planner), asked.some_actions(actions)
    if not isinstance(points, int) or points < 1:
        raise OutsizeError(f"points={points!r}: give a whole number of budgets, 1 or more")
    args = asked.arguments(args)
    asked.an_optimizer(optimizer)
    allocator.install()
    step = capture(module, args)
    learned = _unlearned(module, args, step, optimizer)

    def attempt(planner: str, actions: Sequence[str], budget: int) -> Plan | int:
        wanted = Request(planner=planner, actions=tuple(actions), budget_bytes=budget)
        try:
            return decide(step, learned, replace(options, request=wanted)).plan
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


def _plan_options(budget: int | str | None, hardware: str | Hardware | None, here: torch.device) -> Options:
    there = asked.some_hardware(hardware)
    if there is None:
        return Options(request=Request(budget_bytes=asked.bytes_of(budget, here)))
    whole = there.memory_bytes
    limit = whole if budget is None else parse_bytes(budget, whole=whole)
    return Options(request=Request(budget_bytes=limit), hardware=there)


def _unlearned(
    module: torch.nn.Module,
    args: tuple[Any, ...],
    step: CapturedStep,
    optimizer: torch.optim.Optimizer | None,
) -> Learned:
    """What is known of a step that has not run: the resident bytes that its graph does not hold."""
    counts = Session(module, optimizer, {}, released, 0, step.device, residents="move")
    counts.streams.refresh(module)
    resident = max(0, counts.resident_bytes(args) - step.graph.resident_bytes)
    return Learned(resident=resident, update=counts.optimizers.workspace, units=counts.streams.units)
