"""Quantities as people write them: `"1.5 GiB"`, `"60%"`, `"12 GB/s"`; and back."""

from __future__ import annotations

import re

from .errors import UnitError

_FACTORS = {
    "": 1, "b": 1,
    "k": 10**3, "kb": 10**3, "m": 10**6, "mb": 10**6, "g": 10**9, "gb": 10**9, "t": 10**12, "tb": 10**12,
    "ki": 2**10, "kib": 2**10, "mi": 2**20, "mib": 2**20,
    "gi": 2**30, "gib": 2**30, "ti": 2**40, "tib": 2**40,
}  # fmt: skip
_QUANTITY = re.compile(r"\s*([0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*([A-Za-z]*)\s*")
_PERCENT = re.compile(r"\s*([0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*%\s*")


def parse_bytes(text: int | str, *, whole: int | None = None) -> int:
    """Bytes from an int or a text such as `"1.5 GiB"`, `"800MB"`, `"60%"`.

    Args:
        text: a number of bytes, or a quantity with a unit (decimal kB/MB/GB/TB, binary KiB/MiB/GiB/TiB).
        whole: what a percentage is of, in bytes; None forbids percentages.

    Raises:
        UnitError: not a positive quantity, or a percentage where none is allowed.
    """
    if isinstance(text, bool) or not isinstance(text, (int, str)):
        raise UnitError(f"cannot read {text!r} as bytes: give an int or a text such as '1.5 GiB' or '60%'")
    if isinstance(text, int):
        return _positive(text, text)
    if match := _PERCENT.fullmatch(text):
        if whole is None:
            raise UnitError(f"{text!r} is a percentage of nothing known here: give bytes, such as '1.5 GiB'")
        return _positive(int(float(match[1]) / 100 * whole), text)
    match = _QUANTITY.fullmatch(text)
    if match is None or match[2].lower() not in _FACTORS:
        raise UnitError(f"cannot read {text!r} as bytes: write '1500 MB', '1.5 GiB', '60%' or a whole number")
    return _positive(int(float(match[1]) * _FACTORS[match[2].lower()]), text)


def _positive(value: int, text: object) -> int:
    if value <= 0:
        raise UnitError(f"{text!r} is not a positive number of bytes")
    return value


def format_bytes(count: float) -> str:
    """`1536` → `"1.50 KiB"`: binary units, three significant digits or more."""
    size, sign = abs(float(count)), "-" if count < 0 else ""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{sign}{size:.0f} {unit}" if unit == "B" else f"{sign}{size:.2f} {unit}"
        size /= 1024
    return f"{sign}{size:.2f} TiB"


def format_seconds(seconds: float) -> str:
    """`0.0021` → `"2.10 ms"`; `75` → `"1 min 15 s"`."""
    if seconds >= 60:
        return f"{int(seconds // 60)} min {seconds % 60:.0f} s"
    if seconds >= 1:
        return f"{seconds:.2f} s"
    return f"{seconds * 1e3:.2f} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.0f} µs"
