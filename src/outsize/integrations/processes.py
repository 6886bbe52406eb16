"""Several processes that train one module (DDP, FSDP2): they agree on its plans.

    agree(module)        # in every process, after the first steps

Each process plans its own steps from its own measurements. Results never depend on that, but the processes wait for each
other at every step, so it helps if all do the same. After `agree` all have the plans that follow from the measurements of
the first process, and each keeps its budget. A process that plans again later (for another shape, say) does so alone:
agree again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import torch
import torch.distributed as dist

from ..errors import OutsizeError
from ..session import session_of
from ..session.agree import Facts, Step, difference, joined, plan_digest, prepared, steps_of
from ..values import StepGraph

__all__ = ["agree"]

#: The first try has the rates that the first process measured; where plans need others, the second has those too.
_TRIES = 2


@final
@dataclass(frozen=True, kw_only=True)
class _Said:
    """What each process tells the others first."""

    problem: str
    budget_bytes: int
    facts: tuple[Facts, ...]


def agree(module: torch.nn.Module, group: dist.ProcessGroup | None = None) -> str:
    """All processes of a group take the same plans for a module that each of them has compiled.

    Collective: every process of the group calls it, at the same place of its loop, after at least one step and between
    two steps. With FSDP2 or another observed module that is after three steps: a path is planned when it was seen twice.
    There, let Python collect garbage between steps only, `gc.disable()` first and `gc.collect()` after each: when it
    runs decides how long some tensors live, and steps that differ by that have no plan in common.

    Args:
        module: as it was compiled, or the DDP around it.
        group: the processes; None takes all.

    Returns:
        hash of the plans, equal in all processes.

    Raises:
        OutsizeError: (in all processes) naming the process and what differs: it has another budget or other steps, has
            planned none, or has no room for the plan.
    """
    if not dist.is_initialized():
        raise OutsizeError(
            "agree(module): there is no process group: call torch.distributed.init_process_group first"
        )
    session = session_of(module)
    mine = steps_of(session) if session is not None else {}
    said = _gathered(_said(module, mine), group)
    _refuse([one.problem for one in said])
    budgets = [one.budget_bytes for one in said]
    _refuse(
        "" if budget == budgets[0] else f"its budget is {budget} bytes, that of process 0 is {budgets[0]}"
        for budget in budgets
    )
    known = [{one.key: one for one in each.facts} for each in said]
    shared = [key for key in known[0] if all(key in each for each in known)]
    shared = sorted(key for key in shared if any(each[key].planned for each in known))
    if not shared:
        _refuse_steps(mine, group)
    steps = [mine[key] for key in shared]
    profiles = [step.profile() for step in steps]
    for _ in range(_TRIES):
        profiles = _from_first(profiles, group)
        learned = [joined([each[key] for each in known], profile) for key, profile in zip(shared, profiles)]
        made, problem = [], ""
        try:
            outputs = [frozenset[int]().union(*(each[key].outputs for each in known)) for key in shared]
            made = prepared(steps, learned, outputs)
        except OutsizeError as error:
            problem = str(error)
        outcomes = _gathered((plan_digest([one.plan for one in made]), problem), group)
        _refuse(found for _, found in outcomes)
        digests: list[str] = [digest for digest, _ in outcomes]
        if len(set(digests)) == 1:
            for step, one, facts in zip(steps, made, learned):
                step.adopt(one, facts)
            return digests[0]
        profiles = [one.profile for one in made]
    _refuse(
        ""
        if digest == digests[0]
        else "it makes another plan of the same facts than process 0: give "
        "outsize.compile the same arguments in all processes, and no planner that stops by the clock (exact)"
        for digest in digests
    )
    raise AssertionError("processes that differ from themselves")


def _said(module: torch.nn.Module, mine: dict[str, Step]) -> _Said:
    session = session_of(module)
    if session is None:
        return _Said(problem="the module is not compiled there", budget_bytes=0, facts=())
    facts = tuple(step.facts() for step in mine.values())
    problem = ""
    if not any(one.planned for one in facts):
        problem = "no step was planned there yet: agree after the first steps (three of an observed module)"
    return _Said(problem=problem, budget_bytes=session.budget_bytes, facts=facts)


def _refuse(problems: Any) -> None:
    """What went wrong in one process is an error in all of them, or the others would wait for it.

    Raises:
        OutsizeError: if anything did.
    """
    found = [f"process {rank}: {problem}" for rank, problem in enumerate(problems) if problem]
    if found:
        raise OutsizeError(f"the processes do not agree on a plan: {'; '.join(found[:3])}")


def _refuse_steps(mine: dict[str, Step], group: Any) -> None:
    """No step is common to all. What differs is in the latest one."""
    first: StepGraph = _from_first(_latest(mine), group)
    differs = "" if (latest := _latest(mine)) == first else f"its step differs: {difference(latest, first)}"
    problems = _gathered(differs, group)
    _refuse(problems)
    _refuse(["the steps that all processes know have no plan yet: agree after some more steps"])


def _latest(mine: dict[str, Step]) -> StepGraph:
    return [step.graph for step in mine.values() if step.facts().planned][-1]


def _gathered(value: Any, group: Any) -> list[Any]:
    found: list[Any] = [None] * dist.get_world_size(group)
    dist.all_gather_object(found, value, group=group)
    return found


def _from_first(value: Any, group: Any) -> Any:
    first = 0 if group is None else dist.get_global_rank(group, 0)
    carried = [value]
    dist.broadcast_object_list(carried, src=first, group=group)
    return carried[0]
