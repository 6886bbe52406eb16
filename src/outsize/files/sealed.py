"""Arrays in one safetensors file, and a checksum over every byte of it.

The container says where each array lies, so it notices a file that is cut short; a flipped bit in an index or a weight
it hands on. A sealed file holds in its metadata the XXH3 of the whole file, with the digits of the checksum itself
read as zeros. It is verified before anything is believed, at the speed of the page cache. A checksum only guards
against accidents: whoever writes a file on purpose can seal it, so readers still check every index that they use.

The file is mapped once; header, checksum and arrays are read through that one map, and other bytes that take the
file's name meanwhile are never seen.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash

from ..errors import OutsizeError
from .door import AnyPath, Door, check_count, parse_json, reason, shown

Array = npt.NDArray[Any]

_KEY = "outsize"
_MARK = b'\\"checksum\\": \\"'
_DIGITS = 32
_BLANK = b"0" * _DIGITS
#: As the safetensors library has it: a longer header is refused unread.
_MOST_HEADER = 100_000_000
_BLOCK = 2**22
_TYPES = {
    "BOOL": "?", "I8": "i1", "U8": "u1", "I16": "<i2", "U16": "<u2", "F16": "<f2", "I32": "<i4", "U32": "<u4",
    "F32": "<f4", "I64": "<i8", "U64": "<u8", "F64": "<f8",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Sealed:
    """What a sealed file holds.

    Attributes:
        path: where it came from, for errors.
        about: what the writer said of the arrays.
        arrays: by name, mapped from the file and not writable.
    """

    path: AnyPath
    about: dict[str, Any]
    arrays: dict[str, Array]


def save_sealed(
    path: AnyPath, arrays: Mapping[str, Array], *, format: str, version: int, about: Mapping[str, Any]
) -> None:
    """Write arrays as one file, whole or not at all.

    Args:
        path: the file; what stood there stays until the new one is complete.
        arrays: by name.
        format, version: what `open_sealed` asks for.
        about: JSON values that belong to them.

    Raises:
        OutsizeError: more values than `open_sealed` reads.
    """
    from safetensors.numpy import save_file

    # One entry, since the library writes several in an order that changes from run to run; the checksum comes first, so
    # that nothing that the caller says can stand before it.
    head = {"checksum": _BLANK.decode(), "format": format, "version": version, "about": dict(about)}
    text = json.dumps(head)
    try:
        check_count(text)
    except ValueError as error:
        raise OutsizeError(
            f"{os.fspath(path)} is not written, since it could not be read: {error}"
        ) from error
    target = Path(path)
    partial = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        # Not `ascontiguousarray`, which gives a scalar a dimension.
        whole = {name: np.asarray(array, order="C") for name, array in arrays.items()}
        partial.touch()
        mode = partial.stat().st_mode  # as the user's mask has it; the library would make it private
        save_file(whole, str(partial), metadata={_KEY: text})
        partial.chmod(mode)
        seal(partial)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def seal(path: AnyPath) -> None:
    """Write the checksum of a file as it now stands into its place."""
    with open(path, "r+b") as file:
        data = np.memmap(file, mode="r+")
        place = 8 + _place(data[8 : 8 + _header_bytes(data)].tobytes())
        data[place : place + _DIGITS] = np.frombuffer(_digest(data, place).encode(), np.uint8)
        data.flush()


def seal_text(value: Any) -> str:
    """Checksum of a JSON value, for files that are text."""
    return xxhash.xxh3_128_hexdigest(json.dumps(value, sort_keys=True).encode())


def open_sealed(path: AnyPath, door: Door, *, format: str, version: int) -> Sealed:
    """Map the arrays of a file written by `save_sealed`.

    Raises:
        OutsizeError: of the door's class: missing, damaged, of another format or version.
    """
    try:
        size = door.check_size(path)
        if size < 16:
            raise ValueError(f"it is damaged or not a safetensors file: it has {size} bytes")
        with open(path, "rb") as file:
            data = np.memmap(file, mode="r")
        raw = data[8 : 8 + _header_bytes(data)].tobytes()
        header = parse_json(raw.decode("utf-8"))
        head = _head(header, door.kind)
        if (head["format"], head["version"]) != (format, version):
            found = f"{shown(head['format'])}, version {shown(head['version'])}"
            raise ValueError(f"it holds {found}; this version reads {format!r}, version {version}")
        _verify(data, raw, head["checksum"])
        arrays = _arrays(data, 8 + len(raw), header)
    except (OSError, ValueError) as error:  # UnicodeDecodeError is a ValueError
        raise door.fail(path, reason(error)) from error
    return Sealed(path=path, about=head["about"], arrays=arrays)


def _header_bytes(data: Array) -> int:
    length = int.from_bytes(data[:8].tobytes(), "little")
    if length % 8 or not 8 <= length <= min(len(data) - 8, _MOST_HEADER):
        raise ValueError(
            f"it is damaged or not a safetensors file: a header of {length:,} bytes in a file of {len(data):,}"
        )
    return length


def _head(header: Any, kind: str) -> dict[str, Any]:
    """The one entry of the metadata that this package writes."""
    about = header.get("__metadata__") if isinstance(header, dict) else None
    text = about.get(_KEY) if isinstance(about, dict) else None
    if not isinstance(text, str):
        raise ValueError(f"it is not {kind}: this package did not write it")
    head = parse_json(text)
    wanted = {"checksum": str, "format": str, "version": int, "about": dict}
    if not isinstance(head, dict) or "format" not in head or "version" not in head:
        raise ValueError("its description is damaged")
    if "checksum" not in head:
        raise ValueError("it holds no checksum: an earlier version wrote it")
    if head.keys() != wanted.keys() or any(type(head[k]) is not kind for k, kind in wanted.items()):
        raise ValueError("its description is damaged")
    return head


def _place(raw: bytes) -> int:
    """Where in the header the digits of the checksum stand."""
    found = raw.find(_MARK)
    if found < 0:
        raise ValueError("it is damaged: it holds no checksum")
    return found + len(_MARK)


def _digest(data: Array, place: int) -> str:
    """XXH3 of the file, with zeros for the digits at `place`."""
    state = xxhash.xxh3_128(data[:place].tobytes())
    state.update(_BLANK)
    for at in range(place + _DIGITS, len(data), _BLOCK):
        state.update(data[at : at + _BLOCK].data)
    return state.hexdigest()


def _verify(data: Array, raw: bytes, checksum: str) -> None:
    place = _place(raw)
    digits = raw[place : place + _DIGITS]
    if digits != checksum.encode() or _digest(data, 8 + place) != checksum:
        raise ValueError("it is damaged: its checksum does not match its bytes")


def _arrays(data: Array, base: int, header: dict[str, Any]) -> dict[str, Array]:
    """Views of the map. Together they cover the data once, without a hole."""
    entries = [(name, entry) for name, entry in header.items() if name != "__metadata__"]
    places = {name: _entry(name, entry) for name, entry in entries}
    arrays, end = {}, 0
    for name, (dtype, shape, low, high) in sorted(places.items(), key=lambda item: item[1][2:]):
        if low != end or (base + low) % dtype.itemsize:
            raise ValueError(f"the array {shown(name)} begins at byte {low}, not at {end}")
        end = high
        if base + high > len(data):
            break
        arrays[name] = data[base + low : base + high].view(dtype).reshape(shape)
    if base + end != len(data):
        raise ValueError(f"it is damaged: {len(data) - base:,} bytes of arrays, {end:,} are described")
    for name, array in arrays.items():
        if array.dtype == np.bool_ and array.size and array.view(np.uint8).max() > 1:
            raise ValueError(f"the array {shown(name)} holds truth values other than 0 and 1")
    return arrays


def _entry(name: str, entry: Any) -> tuple[np.dtype[Any], tuple[int, ...], int, int]:
    """dtype, shape, first and last byte of one array, consistent with one another."""
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"the array {shown(name)} is not described")
    kind, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(kind, str) or kind not in _TYPES:
        raise ValueError(f"the array {shown(name)} has dtype {shown(kind)}, which is not read")
    if not _counts(shape) or not _counts(offsets) or len(shape) > 8 or len(offsets) != 2:
        raise ValueError(f"the array {shown(name)} has no usable shape and place")
    dtype = np.dtype(_TYPES[kind])
    if math.prod(shape) * dtype.itemsize != offsets[1] - offsets[0]:
        raise ValueError(f"the array {shown(name)} of shape {shown(tuple(shape))} lies in other bytes")
    return dtype, tuple(shape), offsets[0], offsets[1]


def _counts(values: Any) -> bool:
    return isinstance(values, list) and all(type(v) is int and 0 <= v < 2**62 for v in values)
