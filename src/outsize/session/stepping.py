"""What an optimizer's step is beside its arithmetic: the order of its state, and the closure that it runs."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import torch

__all__ = ["in_order", "with_result"]


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
