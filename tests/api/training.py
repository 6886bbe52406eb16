"""Train a workload for a few steps and keep everything that a plan might get wrong, bit for bit."""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass, replace
from typing import Any

import torch

import outsize
from outsize import api
from outsize.zoo import Workload


@dataclass(frozen=True)
class Trace:
    """Losses, gradients and, after the last step, parameters and buffers, by name."""

    tensors: dict[str, torch.Tensor]

    def differing(self, other: Trace) -> list[str]:
        """Names that are missing on one side or differ in any bit."""
        names = sorted({*self.tensors, *other.tensors})
        return [n for n in names if not _same(self.tensors.get(n), other.tensors.get(n))]


def _same(a: torch.Tensor | None, b: torch.Tensor | None) -> bool:
    if a is None or b is None or a.shape != b.shape or a.dtype != b.dtype:
        return False
    return a.contiguous().reshape(-1).view(torch.uint8).equal(b.contiguous().reshape(-1).view(torch.uint8))


def train(
    work: Workload,
    module: torch.nn.Module,
    *,
    steps: int = 3,
    optimizer: torch.optim.Optimizer | None = None,
    seed: int = 0,
    keep_gradients: bool = False,
) -> Trace:
    """`steps` steps from the given seed; the plain update `p -= 0.01 g` without an optimizer."""
    torch.manual_seed(seed)
    kept: dict[str, torch.Tensor] = {}
    for number, batch in enumerate(itertools.islice(work.batches(), steps)):
        loss = work.loss_fn(module(*batch.args), batch.target)
        loss.backward()
        kept[f"loss {number}"] = loss.detach().clone()
        del loss
        for name, parameter in module.named_parameters():
            if parameter.grad is not None:
                kept[f"gradient {number} {name}"] = parameter.grad.clone()
        _update(module, optimizer, keep_gradients)
    kept |= {f"state {k}": v.clone() for k, v in module.state_dict().items()}
    kept["random"] = torch.random.get_rng_state()
    return Trace(kept)


def _update(module: torch.nn.Module, optimizer: torch.optim.Optimizer | None, keep_gradients: bool) -> None:
    if optimizer is not None:
        optimizer.step()
    else:
        with torch.no_grad():
            for parameter in module.parameters():
                if parameter.grad is not None:
                    parameter.sub_(parameter.grad, alpha=0.01)
    module.zero_grad(set_to_none=not keep_gradients)


def rebudget(
    module: torch.nn.Module,
    budget: int,
    *,
    planner: str = "slack",
    actions: tuple[str, ...] = ("swap", "recompute", "encode"),
) -> None:
    """Another budget for a compiled module, without capturing it again: what was learnt is forgotten."""
    session = api._SESSIONS[module]
    plans = session.plans
    prepare: Any = plans.prepare
    options = prepare.args[0]
    request = replace(options.request, budget_bytes=budget, planner=planner, actions=actions)
    options = replace(options, request=request)
    session.budget_bytes = plans.budget_bytes = budget
    plans.prepare = functools.partial(prepare.func, options)
    plans.repeats = "recompute" in actions
    plans.tracks.clear()
    if session._round is not None:
        session._round.close()
        session._round = None
    plans.losses = type(plans.losses)()
    session.notes.clear()
    session.measured = type(session.measured)()


def smallest_budget(module: torch.nn.Module, args: tuple[Any, ...], **settings: Any) -> int:
    """The smallest feasible budget that the error names."""
    rebudget(module, 1, **settings)
    try:
        module(*args)
    except outsize.BudgetError as error:
        return error.smallest_feasible_bytes
    raise AssertionError("a budget of one byte was accepted")
