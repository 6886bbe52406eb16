"""What the fuzzing knows of one reader."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from outsize.errors import OutsizeError

Change = Callable[[bytes, random.Random], bytes]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Subject:
    """One reader.

    Attributes:
        file: name of its file.
        make: writes a sound one.
        read: reads it.
        use: does something with what was read.
        errors: of the reader; it names the file.
        change: damages that know the format, besides those of any bytes.
        longest_error: in characters.
        sealed: it has a checksum, so every change of its bytes that is not sealed again is noticed.
    """

    file: str
    make: Callable[[Path], None]
    read: Callable[[Path], Any]
    use: Callable[[Any], Any]
    errors: type[OutsizeError] = OutsizeError
    change: Change | None = None
    sealed: bool = False
    longest_error: int = 1500
