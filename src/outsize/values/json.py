"""Frozen dataclasses to JSON text and back, by their type hints; unknown or missing keys are errors."""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from ..errors import OutsizeError

T = TypeVar("T")


def to_json(value: Any, *, indent: int | None = None) -> str:
    """JSON text of a values dataclass; tuples become arrays, nested dataclasses objects."""
    return json.dumps(dataclasses.asdict(value), indent=indent)


def from_json(kind: type[T], text: str) -> T:
    """The dataclass `kind` that `to_json` wrote.

    Raises:
        OutsizeError: the text is not JSON or does not fit the type, with the path of the misfit.
    """
    try:
        data = json.loads(text)
    except ValueError as error:
        raise OutsizeError(f"not a saved {kind.__name__}: {error}") from error
    return typing.cast(T, _build(kind, data, kind.__name__))


def _build(kind: Any, data: Any, path: str) -> Any:
    if dataclasses.is_dataclass(kind):
        return _build_dataclass(typing.cast(type, kind), data, path)
    origin, args = get_origin(kind), get_args(kind)
    if origin is tuple and isinstance(data, list):
        if len(args) == 2 and args[1] is Ellipsis:
            return tuple(_build(args[0], item, f"{path}[{i}]") for i, item in enumerate(data))
        return tuple(_build(arg, item, f"{path}[{i}]") for i, (arg, item) in enumerate(zip(args, data)))
    if origin is dict and isinstance(data, dict):
        return {_key(args[0], key): _build(args[1], item, f"{path}.{key}") for key, item in data.items()}
    if origin in (typing.Union, types.UnionType):
        return None if data is None else _build(next(a for a in args if a is not type(None)), data, path)
    if origin is typing.Literal and data in args:
        return data
    if kind is float and isinstance(data, int | float):
        return float(data)
    if isinstance(kind, type) and isinstance(data, kind):
        return data
    raise OutsizeError(f"{path} is {data!r}, not {kind}")


def _build_dataclass(kind: type, data: Any, path: str) -> Any:
    hints = get_type_hints(kind)
    if not isinstance(data, dict) or data.keys() - hints.keys():
        raise OutsizeError(
            f"{path} is not a {kind.__name__}: {sorted(data) if isinstance(data, dict) else data!r}"
        )
    try:
        return kind(**{key: _build(hints[key], item, f"{path}.{key}") for key, item in data.items()})
    except TypeError as error:
        raise OutsizeError(f"{path}: {error}") from error


def _key(kind: Any, key: str) -> Any:
    return int(key) if kind is int else key
