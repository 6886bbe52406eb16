"""Bytes that an optimizer will hold, and those that its step needs for a moment, before its first step.

What the user's optimizer is, nobody knows: its `step()` may write a file, count, or change the weights through another
optimizer that it holds. So none of its code is run to size it. An optimizer of `torch.optim` has a twin over other
parameters (`twin.py`); a class derived from one is sized as its base, which is a guess; one that only holds another (a
wrapper: accelerate's, SAM, Lookahead, ZeroRedundancyOptimizer) is sized as what it holds. What is left is unknown, and
is read from what is there after the first step.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch

from ..device.parts import parts
from ..errors import OutsizeError
from .twin import TORCHS, twin_bytes

__all__ = ["UpdateBytes", "optimizers_in", "state_bytes", "state_storages", "update_bytes"]

#: How deep tensors and optimizers are looked for in an optimizer's attributes: `state[parameter]["history"][i]` is 4.
_DEPTH = 5


@dataclass(frozen=True, kw_only=True)
class UpdateBytes:
    """What an optimizer adds to a step.

    Attributes:
        state: bytes of state, present or to come.
        workspace: bytes of temporary tensors at their peak.
        guessed: names of the classes that are none of torch's, whose state is known from their first step on only.
    """

    state: int = 0
    workspace: int = 0
    guessed: tuple[str, ...] = ()

    def __add__(self, other: UpdateBytes) -> UpdateBytes:
        return UpdateBytes(
            state=self.state + other.state,
            workspace=max(self.workspace, other.workspace),  # one updates after the other
            guessed=self.guessed + other.guessed,
        )


def update_bytes(optimizer: Any) -> UpdateBytes:
    """State and workspace of an optimizer; nothing of it is run or changed.

    Args:
        optimizer: one of torch's or derived from it, or an object that holds some.

    Raises:
        OutsizeError: it neither is nor holds a `torch.optim.Optimizer`.
    """
    held = optimizers_in(optimizer)
    if not held:
        raise OutsizeError(
            f"optimizer={_name(optimizer)}: it is no torch.optim.Optimizer and no attribute of it holds one; give the "
            "optimizer that updates the module, or leave optimizer= out: outsize finds it at its first step"
        )
    total, counted = UpdateBytes(), set[int]()
    for one in (*reversed(held), *(() if optimizer in held else (optimizer,))):
        there = {
            s: n for s, n in _storages(one).items() if s not in counted
        }  # a wrapper may share its base's state
        counted |= there.keys()
        expected = _alone(one, wraps=len(optimizers_in(one)) > 1)
        total += replace(expected, state=max(expected.state, sum(there.values())))
    return total


def _alone(optimizer: Any, *, wraps: bool) -> UpdateBytes:
    """What is expected of one optimizer, without those that it holds."""
    kind = type(optimizer)
    base = next((c for c in kind.__mro__ if c in TORCHS), None)
    guessed = () if kind is base else (_name(optimizer),)
    if base is None or wraps or not isinstance(optimizer, torch.optim.Optimizer):
        return UpdateBytes(guessed=guessed)
    sized = twin_bytes(base, optimizer.param_groups)
    if sized is None:
        return UpdateBytes(guessed=(_name(optimizer),))
    known = not (guessed and optimizer.state)  # what is there counts more than a guess
    return UpdateBytes(state=sized[0] if known else 0, workspace=sized[1], guessed=guessed)


def optimizers_in(value: Any) -> tuple[torch.optim.Optimizer, ...]:
    """The optimizers that an object is and holds in its attributes, each once, the outermost first.

    One that an optimizer holds for other parameters than its own is somebody else's.
    """
    found: list[torch.optim.Optimizer] = []
    seen: set[int] = set()
    waiting = [value]
    while waiting:
        one = waiting.pop(0)
        if id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, torch.optim.Optimizer):
            found.append(one)
        held = {name: v for name, v in _attributes(one).items() if name != "state"}
        waiting += [v for v in _values(held, _DEPTH) if hasattr(type(v), "step")]
    own = _parameters(value)
    return tuple(o for o in found if not own or own & _parameters(o))


def _parameters(optimizer: Any) -> set[int]:
    groups = getattr(optimizer, "__dict__", {}).get("param_groups", ())
    return {id(p) for group in groups for p in group["params"]}


def state_storages(optimizer: Any, device: torch.device | None = None) -> dict[int, int]:
    """Bytes of the tensors that an optimizer holds beside parameters and gradients, by storage.

    Those in its state and in its attributes count: averaged weights, histories, flat buffers.

    Args:
        device: count the tensors on devices of this type only.
    """
    held: dict[int, int] = {}
    for one in {id(o): o for o in (optimizer, *optimizers_in(optimizer))}.values():
        held |= _storages(one, device)
    return held


def _storages(optimizer: Any, device: torch.device | None = None) -> dict[int, int]:
    """Of one optimizer, without those that it holds."""
    groups = getattr(optimizer, "__dict__", {}).get("param_groups", ())
    updated = [p for group in groups for p in group["params"]]
    own = {id(t) for p in updated for t in (p, p.grad)}
    held: dict[int, int] = {}
    for tensor in _values(_attributes(optimizer), _DEPTH):
        if not isinstance(tensor, torch.Tensor) or id(tensor) in own or tensor.layout is not torch.strided:
            continue
        if device is None or tensor.device.type == device.type:
            held |= {s._cdata: s.nbytes() for part in parts(tensor) for s in (part.untyped_storage(),)}
    for part in (
        part for parameter in updated for part in parts(parameter)
    ):  # a flat buffer of theirs is not state
        held.pop(part.untyped_storage()._cdata, None)
    return held


def state_bytes(optimizer: Any) -> int:
    """Bytes of the state that an optimizer holds now."""
    return sum(state_storages(optimizer).values())


def _attributes(value: Any) -> dict[str, Any]:
    """What an object holds beside its parameters and settings, without running properties of its class."""
    held = {} if isinstance(value, type) else getattr(value, "__dict__", {})
    return {name: v for name, v in held.items() if name not in ("param_groups", "defaults")}


def _values(container: Any, depth: int) -> Iterator[Any]:
    """The leaves of nested containers."""
    if isinstance(container, dict):
        items: Any = list(container.values())
    elif isinstance(container, (list, tuple, set, frozenset)):
        items = container
    else:
        yield container
        return
    if depth > 0:
        for item in items:
            yield from _values(item, depth - 1)


def _name(value: object) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"
