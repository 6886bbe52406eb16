"""From a captured step to a plan, and from the plan to rewritten graphs: measure → slack → plan → check → rewrite."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.fx import Node

from .frozen import may_rest, resting
from .fx import CapturedStep
from .links import MOST_MEASURED, disk_link, host_link
from .measure import Hardware, MeasureSettings, default_cache, estimate, measure_ops, storage_rates
from .observe import Observed
from .plan import (
    PlanSettings,
    Request,
    check,
    lower,
    make_plan,
    plan_with_parameters,
    plan_with_state,
    simulate,
)
from .plan.schedule.kept import kept_peak
from .plan.schedule.phases import phase_peaks
from .prepared import Learned, Prepared, PreparedReplay, guessed_outside
from .replay import Script, build_program
from .rewrite import rewrite_step, verify_step, without_bytes, without_missing
from .runtime.ops import OPS
from .slack import compute_slack
from .values import (
    CodecRate,
    Entry,
    LinkRate,
    OpCost,
    Plan,
    Profile,
    Schedule,
    StateUnit,
    StepGraph,
    Storage,
)
from .values.actions import ENCODING, allowed

#: A step's own Python objects and small native blocks, which the allocator's count includes: 30 to 60 KB were seen on
#: steps of 6 to 60 ops, 300 to 430 KB on 1,000; a process's first steps, its libraries warm, took 50 KB more;
#: with 96 KiB a GPT of 3.4 MB went 687 bytes over.
OBJECT_BYTES, OBJECT_BYTES_PER_OP = 128 * 1024, 384
#: And for each tensor that autograd saves in an eager step: a handle, a view's description, an emptied alias.
OBJECT_BYTES_SAVED = 2048


def object_bytes(graph: StepGraph) -> int:
    """What is kept free for the objects of a step."""
    return OBJECT_BYTES + OBJECT_BYTES_PER_OP * len(graph.ops)


@dataclass(frozen=True, kw_only=True)
class Options:
    """What was asked of `compile` or `plan`: what the plan may do, and where and how its step runs.

    Attributes:
        request: of the plan; its tiers are those that the machine turns out to have.
        hardware: what the plan is for; None for this machine.
        disk: directory of the disk tier.
        inner: what runs between our calls: `aten` or `inductor`.
    """

    request: Request
    hardware: Hardware | None = None
    disk: str | None = None
    inner: str = "aten"


@dataclass(frozen=True, kw_only=True)
class Decided:
    """A plan and what it was made from."""

    graph: StepGraph
    profile: Profile
    plan: Plan
    schedule: Schedule
    peaks: dict[str, int]
    seconds: tuple[float, float]


def decide(step: CapturedStep, learned: Learned, options: Options) -> Decided:
    """measure → slack → plan → check."""
    clock = [time.perf_counter()]
    resident = learned.resident + learned.bias + object_bytes(step.graph)
    costs = _costs(step, learned, options)
    graph = step.graph if options.inner == "inductor" else _as_made(step.graph, costs)
    graph, idle = without_bytes(step, replace(graph, extra_resident_bytes=resident), learned.absent)
    graph = _with_later(graph, step.boundary, learned.later)
    profile = _profile(step, graph, costs, learned, options)
    costs = tuple(OpCost(seconds=0.0) if i in idle else cost for i, cost in enumerate(profile.ops))
    profile = replace(profile, ops=costs)
    clock.append(time.perf_counter())
    fused = _fused(step, learned.units) if options.inner != "inductor" else {}
    return _decided(graph, profile, options, clock, learned.units, fused, may_rest(step, learned))


def _decided(
    graph: StepGraph,
    profile: Profile,
    options: Options,
    clock: list[float],
    units: tuple[StateUnit, ...] = (),
    fused: dict[int, tuple[int, int]] | None = None,
    frozen: Sequence[int] = (),
) -> Decided:
    """slack → plan → check. The clock has when measuring began and when it had ended."""
    request, tiers = options.request, tuple(t for t in ("host", "disk") if t in profile.links)
    moves = "swap" in request.actions and options.inner != "inductor" and tiers
    tier, limit = tiers[0] if moves else "", request.host_budget
    limit = limit if tiers[:1] == ("host",) else request.disk_budget

    def planned(graph: StepGraph, profile: Profile, resting: int) -> Plan:
        """Beside so many bytes of state in the tier."""
        beside = replace(
            request,
            tiers=tiers,
            host_budget=_left(request.host_budget, resting),
            disk_budget=_left(request.disk_budget, resting),
        )
        return make_plan(graph, profile, compute_slack(graph, profile), beside)

    def beside(graph: StepGraph, profile: Profile, resting: int) -> tuple[StepGraph, Profile, Plan]:
        """The same with the optimizer's state, beside so many bytes of parameters in the tier."""
        if not units:
            return graph, profile, planned(graph, profile, resting)
        return plan_with_state(
            graph,
            profile,
            units,
            lambda graph, profile, state: planned(graph, profile, state + resting),
            budget_bytes=request.budget_bytes,
            tier=tier,
            tier_bytes=_left(limit, resting),
            fused=fused,
        )

    graph, profile, made = plan_with_parameters(
        graph, profile, frozen, beside, budget_bytes=request.budget_bytes, tier=tier, tier_bytes=limit
    )
    schedule = lower(graph, made)
    timeline = simulate(graph, profile, schedule)
    check(graph, profile, schedule, request.budget_bytes)
    clock.append(time.perf_counter())
    peaks = phase_peaks(graph, schedule, timeline)
    seconds = (clock[1] - clock[0], clock[2] - clock[1])
    return Decided(graph=graph, profile=profile, plan=made, schedule=schedule, peaks=peaks, seconds=seconds)


def _fused(step: CapturedStep, units: tuple[StateUnit, ...]) -> dict[int, tuple[int, int]]:
    """Units whose update may run in the backward → storages of the gradient and of the parameter."""
    found = {}
    for number, unit in enumerate(units):
        gradient = step.backward_outputs[unit.place] if unit.place >= 0 else None
        if isinstance(gradient, Node):
            found[number] = (step.storage[gradient], step.storage[step.primals[unit.place]])
    return found


def _updates(
    step: CapturedStep, made: Decided, units: tuple[StateUnit, ...]
) -> dict[int, list[tuple[int, int]]]:
    """Position in the backward → updates that run there: slot of the state, place of the gradient."""
    found: dict[int, list[tuple[int, int]]] = {}
    state = (s for s in made.graph.storages if s.kind == "state")
    for storage, unit in zip(state, units):
        if storage.uses[0] < len(step.nodes) - 1:
            found.setdefault(storage.uses[0], []).append((storage.index, unit.place))
    return found


def _left(limit: int | None, taken: int) -> int | None:
    return None if limit is None else max(0, limit - taken)


def _costs(step: CapturedStep, learned: Learned, options: Options) -> tuple[OpCost, ...]:
    """Of this machine, or estimated for the hardware asked for."""
    if options.hardware is not None:
        return estimate(step.graph, options.hardware).ops
    settings = MeasureSettings(cache=default_cache())
    known = learned.costs[: len(step.graph.ops)]  # without the updates that a plan has taken apart
    return known or measure_ops(step.graph.ops, step.nodes, settings, device=step.device)


def _as_made(graph: StepGraph, costs: Sequence[OpCost]) -> StepGraph:
    """With the bytes that operators take for their results: some hand out a small tensor over a large storage (col2im
    does, on a CPU). Where several results stand for that, it is the one that lives longest."""
    more = {
        max(op.writes, key=lambda s: graph.death(graph.storages[s])): cost.surplus_bytes
        for op, cost in zip(graph.ops, costs)
        if cost.surplus_bytes and op.writes
    }
    storages = (replace(s, nbytes=s.nbytes + more.get(s.index, 0)) for s in graph.storages)
    return replace(graph, storages=tuple(storages)) if more else graph


def _with_later(graph: StepGraph, boundary: int, nbytes: int) -> StepGraph:
    """With bytes that come between forward and backward and stay: what other calls of the module hold by then."""
    if not nbytes:
        return graph
    index, ops = len(graph.storages), list(graph.ops)
    held = Storage(
        index=index,
        name="other calls",
        nbytes=nbytes,
        kind="gradient",
        producer=boundary,
        uses=(),
        dtype="uint8",
    )
    ops[boundary] = replace(ops[boundary], writes=(*ops[boundary].writes, index))
    return replace(graph, ops=tuple(ops), storages=(*graph.storages, held))


def _profile(
    step: CapturedStep, graph: StepGraph, known: tuple[OpCost, ...], learned: Learned, options: Options
) -> Profile:
    """The costs with what else a plan needs to know: codecs, links, what loss and update take."""
    if options.hardware is not None:
        profile = estimate(graph, options.hardware)
    else:
        lossy = tuple(options.request.lossy)
        encodes = allowed(options.request.actions) & ENCODING and (
            lossy or any(s.zeros for s in graph.candidates())
        )
        measured = functools.partial(storage_rates, graph, learned.densities, lossy, step.device)
        profile = Profile(ops=known, codecs=(learned.codecs or measured()) if encodes else {})
    costs = list(profile.ops)
    outside = guessed_outside(step, learned.absent) if learned.outside is None else learned.outside
    # What stays from then on was alive when the bytes outside were counted.
    costs[step.boundary] = replace(costs[step.boundary], workspace_bytes=max(0, outside - learned.later))
    costs[-1] = replace(costs[-1], workspace_bytes=learned.update)
    profile = replace(profile, ops=tuple(costs))
    state = sum(unit.nbytes for unit in learned.units)
    fits = max(graph.plain_residency(profile.workspace)) + state <= options.request.budget_bytes
    if options.hardware is None and not fits and "swap" in options.request.actions:
        state += sum(unit.nbytes for unit in learned.parameters)
        most = min(options.request.disk_budget or 2**62, state + sum(s.nbytes for s in graph.candidates()))
        links = learned.links or _links(step.device, options.disk, most)
        profile = replace(profile, links=links)
    return profile


def _links(device: torch.device, disk: str | None, most: int) -> dict[str, LinkRate]:
    """An accelerator swaps to the host's memory, the processor to disk, measured with the `most` that it may hold."""
    if device.type == "cuda":
        return {"host": host_link(device)}
    return {"disk": disk_link(disk, most or MOST_MEASURED)}


def prepare(options: Options, step: CapturedStep, learned: Learned) -> Prepared:
    """Decide, then rewrite and verify."""
    made = decide(step, learned, options)
    start = time.perf_counter()
    updates = _updates(step, made, learned.units)
    observe = _sampled(options, made, learned)
    rewritten = rewrite_step(
        step,
        made.schedule,
        OPS,
        observe=observe,
        updates=updates,
        parameters=resting(step, learned, made.graph, made.schedule),
    )
    verify_step(step, rewritten, OPS)
    without: Callable[[frozenset[int]], Any] = functools.partial(
        without_missing, rewritten, OPS, len(step.tangents)
    )
    if options.inner == "inductor":
        from .runtime.inductor import compile_graph, compile_step

        sizes = [s.nbytes for s in made.graph.storages]
        rewritten, plain = compile_step(rewritten, sizes), without
        without = lambda missing: compile_graph(plain(missing), sizes)  # noqa: E731
    state = (s.index for s in made.graph.storages if s.kind == "state")
    slots = dict(zip(state, (unit.name for unit in learned.units), strict=True))
    rewritten = replace(rewritten, without=functools.cache(without), slots=slots)
    if learned.absent and rewritten.without is not None:
        rewritten.without(learned.absent)  # made now, so that it does not count in the step
    return Prepared(
        graph=made.graph,
        profile=made.profile,
        plan=made.plan,
        rewritten=rewritten,
        phase_peaks=made.peaks,
        object_bytes=object_bytes(made.graph),
        measure_seconds=made.seconds[0],
        planning_seconds=made.seconds[1],
        rewrite_seconds=time.perf_counter() - start,
        updates=_after_backward(step, made.schedule),
        fused=frozenset(slot for some in updates.values() for slot, _ in some),
    )


def _after_backward(step: CapturedStep, schedule: Schedule) -> tuple[Entry, ...]:
    """The entries from the first update after the backward on."""
    first = next(i for i, e in enumerate(schedule.entries) if e.op == len(step.nodes) - 1)
    return schedule.entries[first:]


def prepare_observed(options: Options, step: Observed, learned: Learned, tries: int = 4) -> PreparedReplay:
    """Decide for a step that was observed, then spread the plan over its events. Where its graph is kept for another
    backward, what was saved stays to the end: the plan is made for less until that fits, `tries` times at most."""
    clock = [time.perf_counter()]
    spare = object_bytes(step.graph) + OBJECT_BYTES_SAVED * len(step.saved)
    graph = replace(step.graph, extra_resident_bytes=learned.resident + learned.bias + spare)
    costs = list(learned.costs or step.costs)
    if learned.outside is not None:
        costs[step.boundary] = replace(costs[step.boundary], workspace_bytes=learned.outside)
    costs[-1] = replace(costs[-1], workspace_bytes=learned.update)
    profile = _with_rates(graph, Profile(ops=tuple(costs)), learned, options, step.device)
    clock.append(time.perf_counter())
    made = _decided(graph, profile, options, clock)
    if step.kept and tries:
        over = kept_peak(made.graph, made.profile, made.schedule) - options.request.budget_bytes
        if over > 0:
            return prepare_observed(options, step, replace(learned, bias=learned.bias + over), tries - 1)
    start = time.perf_counter()
    program = build_program(
        graph,
        made.schedule,
        Script(
            forward=step.forward,
            saved=step.saved,
            saved_at=step.saved_at,
            renewed=step.renewed,
            rewriting=step.rewriting,
            nbytes=step.nbytes,
            lasting=step.lasting,
            unpacked=tuple(n for _, numbers in step.unpacked for n in numbers),
        ),
        position=step.position,
        unpacked=step.unpacked,
        storage=step.storage,
        boundary=step.boundary,
    )
    return PreparedReplay(
        graph=graph,
        profile=profile,
        plan=made.plan,
        program=program,
        phase_peaks=made.peaks,
        object_bytes=spare,
        measure_seconds=made.seconds[0],
        planning_seconds=made.seconds[1],
        rewrite_seconds=time.perf_counter() - start,
    )


def _with_rates(
    graph: StepGraph, profile: Profile, learned: Learned, options: Options, device: torch.device
) -> Profile:
    """With the rates of codecs and links, where the step does not fit as it is."""
    if max(graph.plain_residency(profile.workspace)) <= options.request.budget_bytes:
        return profile
    lossy = tuple(options.request.lossy)
    if allowed(options.request.actions) & ENCODING and (lossy or any(s.zeros for s in graph.candidates())):
        rates = learned.codecs or storage_rates(graph, learned.densities, lossy, device)
        profile = replace(profile, codecs=_without_masks(rates))
    if "swap" in options.request.actions:
        most = min(options.request.disk_budget or 2**62, sum(s.nbytes for s in graph.candidates()))
        links = learned.links or _links(device, options.disk, most)
        profile = replace(profile, links=links)
    return profile


def _without_masks(rates: dict[str, CodecRate]) -> dict[str, CodecRate]:
    """A mask gives back no values, and an eager step that takes another path may ask for them."""
    return {name: rate for name, rate in rates.items() if name != "mask"}


def _sampled(options: Options, made: Decided, learned: Learned) -> frozenset[int]:
    """Storages that zero suppression may take and that the plan does not encode: an encoding counts by itself."""
    if not allowed(options.request.actions) & ENCODING or not made.plan.decisions:
        return frozenset()
    if options.inner == "inductor" and learned.densities:  # a sample keeps what Inductor would fuse away
        return frozenset()
    counted = {d.storage for d in made.plan.decisions if d.codec == "relu"}
    suited = (s for s in made.graph.candidates() if s.zeros and s.nbytes >= PlanSettings().min_bytes)
    return frozenset(s.index for s in suited if s.index not in counted)
