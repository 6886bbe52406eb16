"""What an optimizer's step is beside its arithmetic: its groups, the order of its state, the closure that it runs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any, final

import torch

from ..measure.alone import step_one
from ..runtime.homes import Home

__all__ = ["Aside", "in_order", "updated", "with_result"]


@final
class Aside:
    """The groups of optimizers whose steps are taken parameter by parameter just now: after an interrupt anywhere they
    are given back."""

    def __init__(self) -> None:
        self._kept: list[tuple[torch.optim.Optimizer, list[dict[str, Any]], list[Any]]] = []

    def keep(self, optimizer: torch.optim.Optimizer) -> None:
        """Its groups may be narrowed or taken out from now on."""
        groups = optimizer.param_groups
        self._kept.append((optimizer, groups, [group["params"] for group in groups]))

    def restore(self) -> None:
        """All that were kept are as they were."""
        while self._kept:
            optimizer, groups, parameters = self._kept[-1]
            optimizer.param_groups = groups
            for group, params in zip(groups, parameters):
                group["params"] = params
            self._kept.pop()


def updated(home: Home, groups: Mapping[int, dict[str, Any]]) -> None:
    """One parameter's update, once its state is there; `groups` by the parameter's `id`."""
    home.wait()
    optimizer, parameter = home.optimizer, home.parameter
    assert optimizer is not None
    assert parameter is not None  # it has a gradient
    step_one(optimizer, groups[id(parameter)], parameter)


def in_order(optimizer: torch.optim.Optimizer) -> None:
    """The state's entries in the order of a step over all parameters, which a checkpoint keeps."""
    state = optimizer.state
    wanted = [p for group in optimizer.param_groups for p in group["params"] if p in state]
    if any(a is not b for a, b in zip(state, wanted)):
        ordered: defaultdict[torch.Tensor, Any] = defaultdict(dict)
        ordered.update((p, state[p]) for p in wanted)
        ordered.update(state)
        optimizer.state = ordered  # at once: an interrupt finds the one or the other


def with_result(
    args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    """A step that was given a closure runs it first: it is run here, and the optimizer gets its result. None where there
    is no closure."""
    closure = next((value for value in (*args, *kwargs.values()) if callable(value)), None)
    if closure is None:
        return None
    with torch.enable_grad():
        result = closure()

    def told(value: Any) -> Any:
        return (lambda: result) if value is closure else value

    return tuple(map(told, args)), {name: told(value) for name, value in kwargs.items()}
