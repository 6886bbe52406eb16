"""Can an optimizer update its parameters one after the other, each by itself, with the same bits?

Its state can only rest on a tier until its parameter's turn comes if that is so. It is tried, on small parameters, with
the optimizer's own class and settings: three steps of all at once against three of one by one. Optimizers that look at
all gradients together (LBFGS) differ, and their state stays; so does that of classes which are not torch's own, whose
step may do anything.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Collection, Iterator
from typing import Any

import torch

from .twin import TORCHS, bare_step, plain_group, state_sizes, twin_class

__all__ = ["moving_state", "only", "step_one", "step_only", "updates_alone"]

#: Of the parameters that are tried: with and without a tail behind whole vectors, one and two dimensions.
_SHAPES = ((7,), (16, 5), (64,), (33, 3))
_STEPS = 3
_TRIED: dict[tuple[Any, ...], bool] = {}


def updates_alone(optimizer: torch.optim.Optimizer) -> bool:
    """Whether it may update its parameters one by one; nothing of it is run or changed."""
    kind = type(optimizer)
    if kind not in TORCHS or kind in (torch.optim.LBFGS, torch.optim.SparseAdam):
        return False
    return all(_tried(kind, group) for group in optimizer.param_groups)


def _tried(kind: type[torch.optim.Optimizer], group: dict[str, Any]) -> bool:
    settings = plain_group(group)
    if settings is None or settings.get("differentiable"):
        return False
    kinds = sorted({(str(p.device), str(p.dtype)) for p in group["params"]})
    # Which arithmetic it is depends on flags, and on what is zero; not on the numbers that a scheduler changes.
    flags = {k: bool(v) if isinstance(v, (int, float)) else repr(v) for k, v in settings.items()}
    key = (kind, repr(sorted(flags.items())), tuple(kinds), torch.get_num_threads())
    if key not in _TRIED:
        _TRIED[key] = all(_same(kind, settings, p) for p in _one_of_each(group["params"]))
    return _TRIED[key]


def _one_of_each(parameters: list[torch.Tensor]) -> list[torch.Tensor]:
    return list({(p.device, p.dtype): p for p in parameters}.values())


def _same(kind: type[torch.optim.Optimizer], settings: dict[str, Any], like: torch.Tensor) -> bool:
    """Whether both ways give the same parameters and the same state, to the bit."""
    generator = torch.Generator().manual_seed(0)
    shapes = [s for s in _SHAPES if len(s) == 2] if kind.__name__ == "Muon" else _SHAPES
    values = [torch.randn(s, generator=generator) for s in shapes]
    pushes = [[torch.randn(s, generator=generator) for s in shapes] for _ in range(_STEPS)]

    device = torch.device("cpu") if like.is_meta else like.device

    def run(*, alone: bool) -> list[torch.Tensor]:
        own = [v.to(device, like.dtype, copy=True).requires_grad_() for v in values]
        optimizer: Any = twin_class(kind)([{**settings, "params": own}])  # type: ignore[arg-type]
        for push in pushes:
            for p, g in zip(own, push):
                p.grad = g.to(device, like.dtype)
            for chosen in [[p] for p in own] if alone else [own]:
                step_only(optimizer, {id(p) for p in chosen})
        states = [optimizer.state[p] for p in own]
        kept = [v for s in states for v in s.values() if isinstance(v, torch.Tensor)]
        return [p.detach() for p in own] + kept

    try:
        return all(
            a is not None and b is not None and a.dtype == b.dtype and a.shape == b.shape and _bits(a, b)
            for a, b in itertools.zip_longest(run(alone=False), run(alone=True))
        )
    except (RuntimeError, ValueError, TypeError):  # a setting that these parameters do not allow
        return False


def _bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    def flat(t: torch.Tensor) -> torch.Tensor:
        return t.detach().cpu().contiguous().reshape(-1).view(torch.uint8)

    return torch.equal(flat(a), flat(b))


@contextlib.contextmanager
def only(optimizer: torch.optim.Optimizer, parameters: Collection[int]) -> Iterator[None]:
    """Meanwhile the optimizer has only those of its parameters whose `id` is given. Its groups are the same objects."""
    groups, chosen = optimizer.param_groups, []
    whole = [group["params"] for group in groups]
    try:
        for group, params in zip(groups, whole):
            group["params"] = [p for p in params if id(p) in parameters]
            if group["params"]:
                chosen.append(group)
        optimizer.param_groups = chosen
        yield
    finally:
        optimizer.param_groups = groups
        for group, params in zip(groups, whole):
            group["params"] = params


def step_only(optimizer: torch.optim.Optimizer, parameters: Collection[int]) -> None:
    """The optimizer's own step over some of its parameters, without its hooks."""
    with only(optimizer, parameters):
        if optimizer.param_groups:
            bare_step(type(optimizer))(optimizer)


def step_one(optimizer: torch.optim.Optimizer, group: dict[str, Any], parameter: torch.Tensor) -> None:
    """The optimizer's own step over one parameter of one of its groups, without its hooks."""
    groups, params = optimizer.param_groups, group["params"]
    try:
        optimizer.param_groups, group["params"] = [group], [parameter]
        bare_step(type(optimizer))(optimizer)
    finally:
        optimizer.param_groups, group["params"] = groups, params


def moving_state(optimizer: torch.optim.Optimizer, parameter: torch.Tensor, least: int) -> int:
    """Bytes of the tensors of at least `least` bytes that it keeps, or will keep, of a parameter."""
    group = next((g for g in optimizer.param_groups if any(p is parameter for p in g["params"])), None)
    if group is None:
        return 0
    return sum(size for size in state_sizes(type(optimizer), group, parameter) if size >= least)
