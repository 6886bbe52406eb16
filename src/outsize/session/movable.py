"""What of optimizers' state may move: of torch's own classes that update parameter by parameter to the same bits."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Mapping

import torch

from ..measure.alone import moving_state, updates_alone
from ..runtime.homes import LEAST_MOVED, Home
from ..runtime.tiers import Tier

__all__ = ["Homes", "give_up", "homes_of"]

#: By optimizer and parameter.
Homes = dict[tuple[int, int], Home]

#: For whom an optimizer's state moves: one over several modules has it moved for one of them.
_OWNERS: weakref.WeakKeyDictionary[torch.optim.Optimizer, weakref.ref[object]] = weakref.WeakKeyDictionary()


def homes_of(
    optimizers: Iterable[torch.optim.Optimizer],
    known: Homes,
    names: Mapping[int, str],
    device: torch.device,
    tiers: Mapping[str, Tier],
    owner: object,
) -> Homes:
    """In the order of the updates.

    Args:
        known: those found before, which are kept.
        names: of the module's parameters, by `id`.
        device: of the module.
        tiers: where they rest.
        owner: for whom they move.
    """
    found: Homes = {}
    for optimizer in optimizers:
        if _OWNERS.get(optimizer, lambda: None)() not in (None, owner) or not updates_alone(optimizer):
            continue
        _OWNERS[optimizer] = weakref.ref(owner)
        for parameter in (p for group in optimizer.param_groups for p in group["params"]):
            key = id(optimizer), id(parameter)
            home = known.get(key)
            if home is None or home.optimizer is not optimizer or home.parameter is not parameter:
                home = _home(optimizer, parameter, names, device, tiers)
            if home is not None:
                found[key] = home
    return found


def _home(
    optimizer: torch.optim.Optimizer,
    parameter: torch.Tensor,
    names: Mapping[int, str],
    device: torch.device,
    tiers: Mapping[str, Tier],
) -> Home | None:
    if parameter.device != device or not parameter.requires_grad or id(parameter) not in names:
        return None
    nbytes = moving_state(optimizer, parameter, LEAST_MOVED)
    return (
        Home(optimizer, parameter, name=names[id(parameter)], nbytes=nbytes, tiers=tiers) if nbytes else None
    )


def give_up(owner: object) -> None:
    """Nothing moves for it any more."""
    for optimizer in [o for o, its in _OWNERS.items() if its() is owner]:
        del _OWNERS[optimizer]
