"""Trained templates as files, and the door that they come in by.

A file is safetensors with the vocabulary as metadata. Nothing in it is executed, and nothing in it is believed: every
field is looked at here, once, against what it must be (types, ranges, shapes, the words that a controller may say), so
that what comes after may index with it. What a file claims of its own correctness is not read: `verify` finds that anew.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from ...errors import NpiError
from .controller import Controller
from .fitting import PrimitiveCheck
from .primitive import Primitive
from .sound import POINTERS
from .template import Vocabulary
from .trained import Trained

__all__ = ["load", "save"]

_KEY = "outsize.npi"
_WORD = re.compile(r"[pv](0|[1-9][0-9]{0,3})", re.ASCII)
_NAME = re.compile(r"[^\x00-\x1f]{1,200}")
_LARGEST = (1 << 63) - 1
#: Widths of a network, words of a vocabulary, values of a domain: more is no file of ours.
_WIDEST, _WORDS, _VALUES = 1 << 14, 1 << 12, 1 << 22


def save(trained: Trained, path: Path) -> None:
    """Write weights and vocabulary to a safetensors file.

    Args:
        trained: the model.
        path: the file, which is replaced.

    Raises:
        NpiError: it cannot be written, or a program fills a slot.
    """
    tensors = {f"controller.{k}": v.contiguous() for k, v in trained.controller.state_dict().items()}
    networks = {s: m for s, m in trained.primitives.items() if isinstance(m, Primitive)}
    if programs := sorted(trained.primitives.keys() - networks.keys()):
        raise NpiError(
            f"a program fills {', '.join(programs)} of {trained.name}, and a file holds one program's networks: save "
            "both models, each in a file of its own, and swap again after loading"
        )
    for slot, model in networks.items():
        tensors |= {f"primitive.{slot}.{k}": v.contiguous() for k, v in model.state_dict().items()}
    about = {
        "name": trained.name,
        "traces": trained.traces,
        "pointers": trained.pointers,
        "ends": trained.ends,
        "layouts": None if trained.layouts is None else [list(x) for x in trained.layouts],
        "controller": trained.controller.describe(),
        "primitives": {slot: model.describe() for slot, model in networks.items()},
        "checks": {slot: vars(check) for slot, check in trained.checks.items()},
    }
    data = to_bytes(tensors, metadata={_KEY: json.dumps(about, sort_keys=True)})
    try:
        path.write_bytes(data)
    except OSError as error:
        raise NpiError(f"{path} cannot be written: {error}") from error


def load(path: Path, *, ours: bool = False) -> Trained:
    """Read what `save` wrote.

    Args:
        path: the file.
        ours: whether it is part of the package, so that what it says of its own proof counts. Of any other file
            that is not read: `Trained.certified` says it again after `verify`.

    Returns:
        the model.

    Raises:
        NpiError: the file is missing, damaged or not one of ours.
    """
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {})[_KEY])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return _trained(about, tensors, ours)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError, RecursionError) as error:
        raise NpiError(
            f"{path} is not a trained template ({type(error).__name__}: {error}); train it again"
        ) from error


def _trained(about: Any, tensors: Mapping[str, Tensor], ours: bool) -> Trained:
    fields = {"name", "traces", "pointers", "ends", "layouts", "controller", "primitives", "checks"}
    _need(isinstance(about, dict) and set(about) <= fields, "its description has other fields")
    left = dict(tensors)
    controller = _controller(about["controller"], left)
    _fill(controller, left, "controller.")
    primitives, checks = {}, {}
    _need(isinstance(about["primitives"], dict) and isinstance(about["checks"], dict), "slots are no table")
    _need(set(about["primitives"]) == set(about["checks"]), "not every primitive has a check")
    for slot, spec in about["primitives"].items():
        _name(slot)
        primitives[slot] = _primitive(slot, spec, left)
        _fill(primitives[slot], left, f"primitive.{slot}.")
        checks[slot] = _check(about["checks"][slot], primitives[slot])
    _need(not left, f"it holds tensors that nothing uses: {sorted(left)[:3]}")
    layouts = about.get("layouts") if ours else None
    return Trained(
        name=_name(about["name"]),
        controller=controller,
        primitives=primitives,
        checks=checks,
        traces=_integer(about["traces"], 0, _LARGEST),
        pointers=_integer(about["pointers"], 0, 56),
        ends=str(about.get("ends", "")) if ours else "",
        layouts=None if layouts is None else tuple(tuple(x) for x in layouts),
    )


def _controller(spec: Any, tensors: Mapping[str, Tensor]) -> Controller:
    _need(isinstance(spec, dict), "the controller has no description")
    programs, keys = _names(spec["programs"]), _names(spec["keys"])
    slots = _list(spec["slots"], lambda s: s if s == "" else _name(s))
    tuples = _list(spec["tuples"], lambda t: tuple(_list(t, _register, empty=True, distinct=False)))
    _need(len(programs) > 0, "there is no program")
    for key in keys:
        verb, space, called = key.partition(" ")
        known = key in POINTERS or (verb in ("call", "tail") and space and called in programs)
        _need(bool(known), f"{key!r} is no system call")
    sizes = {k: _integer(spec[k], 1, _WIDEST) for k in ("hidden", "embedding")}
    hidden, words = sizes["hidden"], len(keys) + len(tuples) + len(slots)
    _shaped(tensors, "controller.cell.weight_hh", 4 * hidden, hidden)
    _shaped(tensors, "controller.cell.weight_ih", 4 * hidden, sizes["embedding"])
    _shaped(tensors, "controller.heads.weight", words, hidden)
    return Controller(Vocabulary(tuple(programs), tuple(keys), tuple(tuples), tuple(slots)), **sizes)


def _primitive(slot: str, spec: Any, tensors: Mapping[str, Tensor]) -> Primitive:
    _need(isinstance(spec, dict) and set(spec) <= _PRIMITIVE, f"primitive {slot} has another description")
    domains = _list(
        spec["domains"], lambda d: None if d is None else _ascending(d), empty=True, distinct=False
    )
    ranges = _list(
        spec.get("ranges", []), lambda r: None if r is None else _pair(r), empty=True, distinct=False
    )
    _need(len(domains) <= 56 and len(ranges) in (0, len(domains)), f"primitive {slot} has other inputs")
    classes = _ascending(spec["classes"], lowest=-_LARGEST - 1)
    limit, hidden = _integer(spec["one_hot_limit"], 0, _VALUES), _integer(spec["hidden"], 1, _WIDEST)
    width = 1 + sum(Primitive.width(d, limit) for d in domains)
    for layer, shape in {0: (hidden, width), 2: (hidden, hidden), 4: (len(classes), hidden)}.items():
        _shaped(tensors, f"primitive.{slot}.layers.{layer}.weight", *shape)
    return Primitive(_name(spec["name"]), domains, classes, ranges=ranges, hidden=hidden, one_hot_limit=limit)


_PRIMITIVE = {"name", "domains", "classes", "ranges", "hidden", "one_hot_limit"}


def _check(spec: Any, model: Primitive) -> PrimitiveCheck:
    kind = spec["kind"]
    _need(
        kind in ("exhaustive", "statistical") and set(spec) == set(PrimitiveCheck.__annotations__),
        "an odd check",
    )
    bound, margin = (float(spec[k]) for k in ("error_bound", "least_margin"))
    _need(0 <= bound <= 1, "a check with an impossible bound")
    _need(model.finite or (kind == "statistical" and bound > 0), "a check that claims more than can be known")
    inputs, errors = (_integer(spec[k], 0, _LARGEST) for k in ("inputs", "errors"))
    return PrimitiveCheck(kind=kind, inputs=inputs, errors=errors, least_margin=margin, error_bound=bound)


def _shaped(tensors: Mapping[str, Tensor], name: str, *shape: int) -> None:
    """Before a network is made: the file holds as much as it says, so nothing larger than the file is allocated."""
    _need(tuple(tensors[name].shape) == shape, f"{name} is {list(tensors[name].shape)}, not {list(shape)}")


def _fill(module: nn.Module, tensors: dict[str, Tensor], prefix: str) -> None:
    """Move the tensors of one network into it: all of them, float32, finite, of its own shapes."""
    with torch.no_grad():
        for name, parameter in module.state_dict().items():
            given = tensors.pop(prefix + name)
            same = given.shape == parameter.shape and given.dtype == torch.float32
            _need(
                same,
                f"{prefix}{name} is {given.dtype} {list(given.shape)}, not float32 {list(parameter.shape)}",
            )
            _need(bool(given.isfinite().all()), f"{prefix}{name} holds what is not a finite number")
            parameter.copy_(given)


# -- one field each


def _need(fine: bool, why: str) -> None:
    if not fine:
        _fail(why)


def _fail(why: str) -> NoReturn:
    raise ValueError(why)


def _integer(value: Any, low: int, high: int) -> int:
    _need(type(value) is int and low <= value <= high, f"{value!r} is no integer from {low} to {high}")
    return int(value)


def _name(value: Any) -> str:
    _need(isinstance(value, str) and _NAME.fullmatch(value) is not None, f"{value!r} is no name")
    return str(value)


def _register(value: Any) -> str:
    _need(isinstance(value, str) and _WORD.fullmatch(value) is not None, f"{value!r} is no register")
    return str(value)


def _list(value: Any, item: Callable[[Any], Any], *, empty: bool = False, distinct: bool = True) -> list[Any]:
    _need(isinstance(value, list) and len(value) <= _VALUES, "a list is missing")
    _need(empty or 0 < len(value) <= _WORDS, f"a list of {len(value)} words")
    items = [item(v) for v in value]
    _need(not distinct or len(set(items)) == len(items), "a list holds something twice")
    return items


def _names(value: Any) -> list[str]:
    return _list(value, _name)


def _ascending(value: Any, lowest: int = -_LARGEST) -> tuple[int, ...]:
    numbers: Sequence[int] = _list(value, lambda v: _integer(v, lowest, _LARGEST), empty=True, distinct=False)
    _need(len(numbers) > 0, "a domain or a list of answers is empty")
    _need(all(a < b for a, b in pairwise(numbers)), "values are not in ascending order")
    return tuple(numbers)


def _pair(value: Any) -> tuple[int, int]:
    _need(isinstance(value, list) and len(value) == 2, "a range is not two numbers")
    low, high = (_integer(v, -_LARGEST, _LARGEST) for v in value)
    _need(low <= high, "a range is empty")
    return low, high
