"""What makes a template usable by name: the program, examples, and the way from arguments to tapes and
back.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ....errors import NpiError
from ..tape import Head
from ..template import Example

__all__ = ["BITS", "BYTES", "DIGITS", "HUNDRED", "Entry", "digits", "integers", "number"]

BITS, DIGITS, HUNDRED, BYTES = range(2), range(10), range(100), range(256)

Heads = tuple[Head, ...]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A library template.

    Attributes:
        name: what the user says.
        program: the reference, an ordinary function over pointers.
        summary: one line, with the arguments.
        encode: parsed arguments to pointers on fresh tapes. Raises NpiError on arguments that do not fit.
        decode: the same pointers after the run, to the result.
        parse: one command-line word per argument.
        arguments: names of the arguments.
        lessons: arguments of the training examples (small: the lengths that the issue's table allows).
        sample: arguments of a random problem of a length.
        oracle: the right answer by other means.
        like: the template whose controller it shares, if its higher-order function is the same.
    """

    name: str
    program: Callable[..., Any]
    summary: str
    encode: Callable[..., Heads]
    decode: Callable[[Heads], Any]
    parse: tuple[Callable[[str], Any], ...]
    arguments: tuple[str, ...]
    lessons: tuple[tuple[Any, ...], ...]
    sample: Callable[[random.Random, int], tuple[Any, ...]]
    oracle: Callable[..., Any]
    like: str | None = None

    def examples(self) -> list[Example]:
        """The training examples."""
        return [self._example(lesson) for lesson in self.lessons]

    def _example(self, lesson: tuple[Any, ...]) -> Example:
        return lambda: self.encode(*lesson)

    def read(self, words: Sequence[str]) -> tuple[Any, ...]:
        """Parse command-line words.

        Raises:
            NpiError: a wrong number of words, or one that does not parse.
        """
        if len(words) != len(self.parse):
            raise NpiError(
                f"{self.name} takes {len(self.parse)} arguments ({' '.join(self.arguments)}), {len(words)} "
                f"were given: "
                f"{self.summary}"
            )
        return tuple(parse(word) for parse, word in zip(self.parse, words))


def number(word: str) -> str:
    """Decimal digits of any length, leading zeros dropped."""
    if not word.isascii() or not word.isdigit():
        raise NpiError(f"{_short(word)} is not a natural number in decimal digits")
    return word.lstrip("0") or "0"


def digits(text: str, width: int = 0) -> list[int]:
    return [int(c) for c in text.zfill(width)]


def integers(word: str) -> list[int]:
    """A JSON list of integers."""
    try:
        values = json.loads(word)
    except ValueError as error:
        raise NpiError(f"{_short(word)} is not JSON: {error}") from error
    if not isinstance(values, list) or any(type(v) is not int for v in values):
        raise NpiError(f"{_short(word)} is not a JSON list of integers, such as [3, 1, 2]")
    return values


def _short(word: str) -> str:
    return repr(word if len(word) <= 40 else word[:37] + "...")
