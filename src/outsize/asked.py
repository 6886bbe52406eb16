"""What was asked of a public call, held against what there is: at the call, not in the first forward.

Each function takes one argument as it was given and returns it in the form that the rest works with.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Any

import torch

from .device import memory
from .device.place import CPU
from .errors import OutsizeError, PlanError, UnitError
from .measure import Hardware, load_hardware
from .measure.optimizer import optimizers_in, update_bytes
from .plan.make import PLANNERS
from .plan.request import Request
from .plan.settings import MOST_EFFORT, PlanSettings
from .units import parse_bytes
from .values.actions import ASKED

#: Lossy codecs that a step may use, and their largest relative error.
LOSSY_IN_STEPS = {"bf16": 2.0**-8}
INNERS = ("aten", "inductor")
RESIDENTS = ("move", "keep", "fuse", "frozen")
DOORS = ("auto", "captured", "observed")


def a_module(module: object) -> torch.nn.Module:
    """A module that can be taken on."""
    if isinstance(module, type):
        raise OutsizeError(f"module={module.__qualname__}: that is a class; give an instance of it")
    if not isinstance(module, torch.nn.Module):
        raise OutsizeError(f"module={_kind(module)}: give a torch.nn.Module")
    if isinstance(module, torch.jit.ScriptModule):
        raise OutsizeError(
            f"module={_kind(module)}: a scripted module cannot be captured; give the one that it was made from"
        )
    if isinstance(getattr(module, "_orig_mod", None), torch.nn.Module):
        raise OutsizeError(
            "module= has been through torch.compile: give the module that it was made from; inner='inductor' fuses its "
            "kernels"
        )
    return module


def arguments(args: object) -> tuple[Any, ...]:
    """The arguments of a module's call."""
    if not isinstance(args, (tuple, list)):
        raise OutsizeError(
            f"args={_kind(args)}: give the arguments of the module's call as a tuple, as in (x,)"
        )
    return tuple(args)


def bytes_of(budget: object, device: torch.device = CPU) -> int:
    """A budget in bytes, None for what is free on the device."""
    if budget is None:
        return memory.free_bytes(device)
    return parse_bytes(budget, whole=memory.total_bytes(device) if isinstance(budget, str) else None)  # type: ignore[arg-type]


def tier_bytes(name: str, budget: object, *, whole: int | None = None) -> int | None:
    """The bytes that a plan may hold in a tier, None for no limit."""
    try:
        return None if budget is None else parse_bytes(budget, whole=whole)  # type: ignore[arg-type]
    except UnitError as error:
        raise UnitError(f"{name}=: {error}") from None


def a_door(door: object) -> str:
    """How a step becomes known."""
    if door not in DOORS:
        raise OutsizeError(f"door={door!r}: give one of {', '.join(map(repr, DOORS))}")
    return str(door)


def residents(value: object, actions: Sequence[str]) -> str:
    """What may become of an optimizer's state and of frozen parameters; without swaps they stay."""
    if value not in RESIDENTS:
        raise OutsizeError(f"residents={value!r}: give one of {', '.join(map(repr, RESIDENTS))}")
    return "keep" if value in ("move", "frozen") and "swap" not in actions else str(value)


def an_optimizer(optimizer: object) -> Any:
    """An optimizer, or what holds one."""
    if optimizer is not None and not optimizers_in(optimizer):
        update_bytes(optimizer)  # which says what it is missing
    return optimizer


def a_directory(disk: object) -> str | None:
    """The directory of the disk tier."""
    if disk is not None and not isinstance(disk, (str, Path)):
        raise OutsizeError(f"disk={_kind(disk)}: give a directory, as a str or a Path")
    return None if disk is None else str(disk)


def some_actions(actions: object) -> tuple[str, ...]:
    """What a plan may do."""
    if isinstance(actions, str) or not isinstance(actions, Iterable):
        raise OutsizeError(f"actions={actions!r}: give a tuple of {', '.join(ASKED)}, as in ('swap',)")
    chosen = tuple(actions)
    for action in chosen:
        if action not in ASKED:
            raise PlanError(f"actions={chosen}: no action {action!r}; there are {', '.join(ASKED)}")
    if not chosen:
        raise OutsizeError(
            f"actions=(): a plan needs something that it may do: {', '.join(ASKED)}; outsize.meter(module) measures "
            "the step as it is"
        )
    return chosen


def a_planner(planner: object) -> str:
    """The name of a planner."""
    if not isinstance(planner, str) or planner not in PLANNERS:
        raise PlanError(
            f"planner={planner!r}: no planner of that name; there are {', '.join(sorted(PLANNERS))}"
        )
    return planner


def an_inner(inner: object) -> str:
    """How the step's operators run."""
    if inner not in INNERS:
        raise OutsizeError(f"inner={inner!r} is not known: give 'aten' or 'inductor'")
    return str(inner)


def an_effort(effort: object) -> int:
    """How long the planner may look."""
    if isinstance(effort, bool) or not isinstance(effort, int) or effort not in range(1, MOST_EFFORT + 1):
        raise OutsizeError(
            f"effort={effort!r} is not known: give a whole number from 1 (quick) to {MOST_EFFORT}"
        )
    return effort


def a_request(budget_bytes: int, actions: object, planner: object, lossy: object, effort: object) -> Request:
    """What is asked of a plan."""
    return Request(
        budget_bytes=budget_bytes,
        actions=some_actions(actions),
        planner=a_planner(planner),
        lossy=lossy_codecs(lossy),
        settings=PlanSettings(effort=an_effort(effort)),
    )


def lossy_codecs(lossy: object) -> dict[str, float]:
    """The lossy codecs asked for, held against what they do."""
    if lossy is None:
        return {}
    if not isinstance(lossy, Mapping):
        raise OutsizeError(
            f"lossy={lossy!r}: give a dict of codec and largest error, as in {{'bf16': 2**-8}}"
        )
    for name, error in lossy.items():
        if name not in LOSSY_IN_STEPS:
            raise OutsizeError(
                f"lossy={{{name!r}: …}}: a step has {', '.join(map(repr, LOSSY_IN_STEPS))} only; "
                "codecs.saved_tensors_hooks(model, codecs.Policy(lossy=…)) has more"
            )
        if isinstance(error, bool) or not isinstance(error, Real) or not math.isfinite(error):
            raise OutsizeError(f"lossy={{{name!r}: {error!r}}}: give the largest relative error as a number")
        if error < LOSSY_IN_STEPS[name]:
            raise OutsizeError(
                f"lossy={{{name!r}: {error}}}: its error is up to {LOSSY_IN_STEPS[name]} of an element"
            )
    return {name: float(error) for name, error in lossy.items()}


def some_hardware(hardware: object) -> Hardware | None:
    """What a plan is for, None for this machine."""
    if hardware is None or isinstance(hardware, Hardware):
        return hardware
    if not isinstance(hardware, str):
        raise OutsizeError(
            f"hardware={_kind(hardware)}: give a name, a TOML file or an outsize.measure.Hardware"
        )
    return load_hardware(hardware)


def _kind(value: object) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
