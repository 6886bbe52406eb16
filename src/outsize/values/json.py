"""Frozen dataclasses to JSON text and back, by their type hints; unknown or missing keys are errors.

Text may come from a file that was cut short, edited or damaged, so nothing in it is believed: types are exact (a truth
value is no number), numbers are finite and within the range of their hint (`ranges`), and values whose parts must agree
have a method `misfit`, which says how they do not. Each error names the place: `Plan.decisions[3].after`.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import types
import typing
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from ..errors import OutsizeError
from ..files import AnyPath, Door, parse_json, shown
from .ranges import Range

T = TypeVar("T")

#: Longest text of one name, reason or note.
_MOST_TEXT = 100_000


def to_json(value: Any, *, indent: int | None = None) -> str:
    """JSON text of a values dataclass; tuples become arrays, nested dataclasses objects.

    Args:
        value: a frozen dataclass.
        indent: spaces of each level; None writes one line.

    Returns:
        the text.
    """
    return json.dumps(dataclasses.asdict(value), indent=indent)


def from_json(kind: type[T], text: str) -> T:
    """The dataclass `kind` that `to_json` wrote.

    Args:
        kind: a frozen dataclass of `outsize.values`.
        text: what `to_json` gave.

    Returns:
        the value.

    Raises:
        OutsizeError: the text is not JSON or does not fit the type, with the path of the misfit.
    """
    try:
        return build(kind, parse_json(text))
    except ValueError as error:
        raise OutsizeError(f"not a saved {kind.__name__}: {error}") from error


def load_json(kind: type[T], path: AnyPath, door: Door) -> T:
    """The dataclass `kind` from a file.

    Args:
        kind: a frozen dataclass of `outsize.values`.
        path: the file.
        door: what such a file holds, how large it may be, and what to do where it cannot be used.

    Returns:
        the value.

    Raises:
        OutsizeError: of the door's class, naming the file, what is wrong with it and what to do.
    """
    text = door.text(path)
    try:
        return build(kind, parse_json(text))
    except ValueError as error:
        raise door.fail(path, f"not a saved {kind.__name__}: {error}") from error


def build(kind: type[T], data: Any) -> T:
    """The dataclass `kind` from what a parser made of a text.

    Args:
        kind: a frozen dataclass of `outsize.values`.
        data: dictionaries, lists and plain values.

    Returns:
        the value.

    Raises:
        ValueError: it does not fit, with the path of the misfit.
    """
    return typing.cast(T, _build(kind, data, kind.__name__))


def _build(kind: Any, data: Any, path: str) -> Any:
    if dataclasses.is_dataclass(kind):
        return _build_dataclass(typing.cast(type, kind), data, path)
    origin, args = get_origin(kind), get_args(kind)
    if origin is typing.Annotated:
        return _ranged(args[0], args[1], data, path)
    if origin is tuple and isinstance(data, list):
        return _build_tuple(args, data, path)
    if origin is dict and isinstance(data, dict):
        return {_key(args[0], key, path): _build(args[1], item, _at(path, key)) for key, item in data.items()}
    if origin in (typing.Union, types.UnionType):
        return None if data is None else _build(next(a for a in args if a is not type(None)), data, path)
    if origin is typing.Literal and isinstance(data, str) and data in args:
        return data
    if kind is Any:
        return data
    if kind is float or kind is int:
        return _ranged(kind, _FINITE, data, path)
    if kind is str and isinstance(data, str):
        return _text(data, path)
    if kind is bool and isinstance(data, bool):
        return data
    raise ValueError(f"{path} is {shown(data)}, not {_name(kind)}")


_FINITE = Range(-math.inf, math.inf)


def _ranged(kind: type, within: Range, data: Any, path: str) -> Any:
    number = isinstance(data, int if kind is int else int | float) and not isinstance(data, bool)
    if not number:
        raise ValueError(f"{path} is {shown(data)}, not {_name(kind)}")
    if not within.holds(data):
        raise ValueError(f"{path} is {shown(data)}, not {'a number' if within is _FINITE else within}")
    try:
        return kind(data)
    except OverflowError:
        raise ValueError(f"{path} is {shown(data)}, too large for a float") from None


def _build_tuple(args: tuple[Any, ...], data: list[Any], path: str) -> tuple[Any, ...]:
    if len(args) == 2 and args[1] is Ellipsis:
        return tuple(_build(args[0], item, f"{path}[{i}]") for i, item in enumerate(data))
    if len(args) != len(data):
        raise ValueError(f"{path} has {len(data)} values, not {len(args)}")
    return tuple(_build(arg, item, f"{path}[{i}]") for i, (arg, item) in enumerate(zip(args, data)))


def _build_dataclass(kind: type, data: Any, path: str) -> Any:
    hints = _hints(kind)
    if not isinstance(data, dict):
        raise ValueError(f"{path} is {shown(data)}, not a {kind.__name__}")
    if unknown := sorted(data.keys() - hints.keys()):
        raise ValueError(f"{path} has {shown(unknown[0])}, which a {kind.__name__} does not have")
    if missing := sorted(_required(kind) - data.keys()):
        raise ValueError(f"{path} lacks {', '.join(missing)}")
    value = kind(**{key: _build(hints[key], item, f"{path}.{key}") for key, item in data.items()})
    problem = value.misfit() if hasattr(value, "misfit") else ""
    if problem:
        raise ValueError(f"{path}: {problem}")
    return value


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind, include_extras=True)


@functools.cache
def _required(kind: type) -> frozenset[str]:
    none = dataclasses.MISSING
    return frozenset(
        f.name for f in dataclasses.fields(kind) if f.default is none and f.default_factory is none
    )


def _text(data: str, path: str) -> str:
    if len(data) > _MOST_TEXT:
        raise ValueError(f"{path} has {len(data):,} characters, at most {_MOST_TEXT:,} are read")
    try:
        data.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{path} is {shown(data)}, which is not Unicode text") from error
    return data


def _at(path: str, key: str) -> str:
    """The place of one entry of a table, whose key comes from the file."""
    return f"{path}.{key if key.isidentifier() and key.isascii() and len(key) < 40 else shown(key)}"


def _key(kind: Any, key: str, path: str) -> Any:
    if kind is not int:
        return _text(key, path)
    try:
        return int(key)
    except ValueError:
        raise ValueError(f"{path} has the key {shown(key)}, not a whole number") from None


def _name(kind: Any) -> str:
    names = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
    return names.get(kind, str(kind).replace("typing.", ""))
