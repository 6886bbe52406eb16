"""A small mutation engine: what crashes, networks, editors and attackers do to files, drawn from one seed.

Bytes know nothing of what they mean: bits flip, pieces go, come or change places, lengths become huge. Text with
structure (JSON) is also changed where it parses on: another number, another type, a key lost or doubled, an endless
list. For a sealed file the arrays and their description are changed, and sealed again, so that the checksum hides
nothing.
"""

from __future__ import annotations

import json
import random
import re
import struct
import tempfile
from typing import Any

import numpy as np

from outsize.files import seal

NUMBERS = (
    0, -1, 1, 2, 7, 127, 128, 255, 2**15, 2**31 - 1, 2**31, 2**32, 2**53, 2**63 - 1, 2**63, -(2**63) - 1, 10**40,
    0.5, -0.0, 1e-320, 1e308, -1e308, float("nan"), float("inf"), -float("inf"),
)  # fmt: skip
TEXTS = ("", "x", "-1", "\x00", "é", "\ud800", "[bold]", "</script>", "a" * 5000, "../..", "1e5")
_DIGITS = re.compile(rb"-?[0-9]+(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?")


def bytes_changed(data: bytes, rng: random.Random, other: bytes = b"") -> bytes:
    """One to four changes that know nothing of the format; `other` gives pieces to splice in."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        rng.choice((_flip, _cut, _overwrite, _insert, _remove, _move, _length, _number, _splice))(
            out, rng, other
        )
    return bytes(out)


def _at(out: bytearray, rng: random.Random) -> int:
    """Mostly anywhere; often near the front, where headers are."""
    return rng.randrange(min(len(out), 200) if rng.random() < 0.3 else len(out)) if out else 0


def _flip(out: bytearray, rng: random.Random, other: bytes) -> None:
    if out:
        out[_at(out, rng)] ^= 1 << rng.randrange(8)


def _cut(out: bytearray, rng: random.Random, other: bytes) -> None:
    del out[_at(out, rng) :]


def _overwrite(out: bytearray, rng: random.Random, other: bytes) -> None:
    at = _at(out, rng)
    piece = bytes([rng.choice((0, 255, 32, 92, 128, rng.randrange(256)))]) * rng.choice((1, 1, 4, 16, 64))
    out[at : at + len(piece)] = piece


def _insert(out: bytearray, rng: random.Random, other: bytes) -> None:
    at = _at(out, rng)
    out[at:at] = rng.randbytes(rng.choice((1, 2, 8, 100)))


def _remove(out: bytearray, rng: random.Random, other: bytes) -> None:
    at = _at(out, rng)
    del out[at : at + rng.choice((1, 2, 8, 100))]


def _move(out: bytearray, rng: random.Random, other: bytes) -> None:
    at, size = _at(out, rng), rng.choice((1, 8, 64, 512))
    piece = out[at : at + size]
    if rng.random() < 0.5:
        del out[at : at + size]
    to = _at(out, rng)
    out[to:to] = piece * rng.choice((1, 1, 2, 50))


def _length(out: bytearray, rng: random.Random, other: bytes) -> None:
    """Eight bytes become a size that nothing has, or one that is a little off."""
    at = rng.choice((0, 0, _at(out, rng)))
    old = int.from_bytes(out[at : at + 8], "little")
    new = rng.choice((2**63, 2**64 - 1, 2**40, 0, 1, old + 1, old - 1, old + 8, old * 2))
    out[at : at + 8] = struct.pack("<Q", new % 2**64)


def _number(out: bytearray, rng: random.Random, other: bytes) -> None:
    """Another number in the place of one that is spelled out."""
    if found := list(_DIGITS.finditer(bytes(out))):
        match = rng.choice(found)
        spelled = str(rng.choice(NUMBERS)).encode()
        out[match.start() : match.end()] = rng.choice(
            (spelled, match[0] + b"0", b"-" + match[0], b"9" * 4400)
        )


def _splice(out: bytearray, rng: random.Random, other: bytes) -> None:
    if other:
        low = rng.randrange(len(other))
        at = _at(out, rng)
        out[at : at + rng.choice((0, 16, 256))] = other[low : low + rng.choice((16, 256, 4096))]


def value_changed(value: Any, rng: random.Random) -> Any:
    """A JSON value with one place in it changed, in place where it has places."""
    places = list(_places(value))
    if not places:
        return rng.choice(({}, [], None, 3))
    numbers = [place for place in places if type(place[0][place[1]]) in (int, float)]
    if numbers and rng.random() < 0.6:  # what still parses and fits goes farther
        (container, key), (other, there) = rng.choice(numbers), rng.choice(numbers)
        old, near = container[key], other[there]
        container[key] = rng.choice((near, near, old + 1, old - 1, old * 2, old * 1000, *NUMBERS[:6]))
        return value
    container, key = rng.choice(places)
    old = container[key]
    change = rng.randrange(8)
    if change == 0:
        del container[key]
    elif change == 1 and isinstance(container, list):
        container.insert(key, old)
    elif change == 1:
        container[rng.choice(TEXTS)] = old
    elif change == 2:
        container[key] = [old] * rng.choice((0, 1, 2, 1000))
    elif change == 3:
        container[key] = {rng.choice(TEXTS): old}
    elif change == 4:
        other, there = rng.choice(places)
        container[key] = other[there] if not isinstance(other[there], dict | list) else None
    elif isinstance(old, int | float) and change < 7:
        container[key] = rng.choice((old + 1, old - 1, -old, old * 2, *NUMBERS))
    else:
        container[key] = rng.choice((None, True, False, [], {}, *NUMBERS, *TEXTS))
    return value


def _places(value: Any) -> Any:
    if isinstance(value, dict | list):
        for key in list(value) if isinstance(value, dict) else range(len(value)):
            yield value, key
            yield from _places(value[key])


def numbers_changed(data: bytes, rng: random.Random) -> bytes:
    """One to three numbers that are spelled out become others."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 3))):
        _number(out, rng, b"")
    return bytes(out)


def json_changed(data: bytes, rng: random.Random) -> bytes:
    """The text of a JSON value with one to three places changed, or one key doubled, or nested without end."""
    value = json.loads(data)
    for _ in range(rng.choice((1, 1, 2, 3))):
        value = value_changed(value, rng)
    text = json.dumps(value)
    kind = rng.randrange(20)
    if kind == 0:
        text = text.replace("{", '{"a": 1, "a": 2, ', 1)
    elif kind == 1:
        text = text.replace(":", ":" + "[" * rng.choice((10, 100_000)), 1)
    return text.encode("utf-8", "surrogatepass")


def sealed_changed(data: bytes, rng: random.Random) -> bytes:
    """A sealed file with its description or its arrays changed, the container repaired, and sealed again."""
    length = int.from_bytes(data[:8], "little")
    header, body = json.loads(data[8 : 8 + length]), bytearray(data[8 + length :])
    head = json.loads(header["__metadata__"]["outsize"])
    kind = rng.randrange(8)
    if kind == 0:
        head["about"] = value_changed(head["about"], rng)
    elif kind == 1:
        head = {"checksum": head["checksum"], **value_changed({k: head[k] for k in list(head)[1:]}, rng)}
    elif kind == 2:
        metadata = header.pop("__metadata__")
        header = {"__metadata__": metadata, **value_changed(header, rng)}
    else:
        names = [
            n
            for n in header
            if n != "__metadata__" and header[n]["data_offsets"][0] < header[n]["data_offsets"][1]
        ]
        for name in rng.choices(names, k=rng.choice((1, 1, 2, 5))):
            _array_changed(body, header[name], rng)
    header["__metadata__"]["outsize"] = json.dumps(head)
    text = json.dumps(header, separators=(",", ":")).encode("utf-8", "surrogatepass")
    text += b" " * (-len(text) % 8)
    out = len(text).to_bytes(8, "little") + text + bytes(body)
    return _sealed(out) if rng.random() < 0.95 else out


def _sealed(data: bytes) -> bytes:
    """With the checksum that belongs to the bytes, where they still have a place for one."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        try:
            seal(file.name)
        except ValueError:
            return data
        file.seek(0)
        return file.read()


_TYPES = {"I16": "<i2", "I32": "<i4", "I64": "<i8", "F16": "<f2", "F32": "<f4", "U8": "u1", "BOOL": "u1"}


def _array_changed(body: bytearray, entry: dict[str, Any], rng: random.Random) -> None:
    """Some elements become others: off by one, exchanged, of the far end of their type, or no number."""
    low, high = entry["data_offsets"]
    array = np.frombuffer(body, np.uint8)[low:high].view(_TYPES[entry["dtype"]])
    at = rng.randrange(len(array))
    size = rng.choice((1, 1, 1, 3, len(array) - at))
    kind = rng.randrange(5)
    if kind == 0:
        array[at : at + size] += rng.choice((-1, 1))
    elif kind == 1:
        array[at] = array[rng.randrange(len(array))]
    elif kind == 2:
        array[at : at + size] = np.random.default_rng(rng.randrange(2**32)).permutation(array[at : at + size])
    elif array.dtype.kind == "f":
        array[at] = rng.choice((np.nan, np.inf, -1.0, 6e4, 0.0))
    else:
        bound = np.iinfo(array.dtype)
        array[at : at + size] = rng.choice(
            (bound.min, bound.max, bound.max - 1, -1 % (int(bound.max) + 1), 0, 1, 1000 % bound.max)
        )
