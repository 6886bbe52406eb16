"""What makes a template usable by name: the program, examples, and the way from arguments to tapes and
back.
"""

from __future__ import annotations

import itertools
import json
import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ....errors import NpiError
from ..primitive import Filling
from ..tape import Head
from ..template import Example

__all__ = [
    "BITS",
    "BYTES",
    "DIGITS",
    "HUNDRED",
    "Entry",
    "digits",
    "from_json",
    "integer",
    "integer_of_any_size",
    "integers",
    "integers_of_any_size",
    "number",
    "spell",
]

BITS, DIGITS, HUNDRED, BYTES = range(2), range(10), range(100), range(256)

Heads = tuple[Head, ...]
_LARGEST = (1 << 63) - 1


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
        ascending: a test slot, and which arguments must be in its order.
        ordered: which arguments must be in ascending order as integers.
        wide: the template that does the same for integers of any size, which is what `outsize npi run` runs.
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
    ascending: tuple[str, tuple[int, ...]] | None = None
    ordered: tuple[int, ...] = ()
    wide: str | None = None

    def examples(self) -> list[Example]:
        """The training examples."""
        return [self._example(lesson) for lesson in self.lessons]

    def _example(self, lesson: tuple[Any, ...]) -> Example:
        return lambda: self.encode(*lesson)

    def check(self, primitives: Mapping[str, Filling], arguments: tuple[Any, ...]) -> None:
        """Look at what the program takes for granted: lists in the order of the primitive that will compare them.

        Raises:
            NpiError: a list is not in order.
        """
        for values in (arguments[i] for i in self.ordered):
            for earlier, later in itertools.pairwise(values):
                if later < earlier:
                    raise NpiError(
                        f"{self.name} needs a list in ascending order, and {spell(earlier)} comes before {spell(later)} "
                        "in it: sort it first (`outsize npi run merge_sort`)"
                    )
        slot, which = self.ascending or ("", ())
        for values in (arguments[i] for i in which):
            pairs = torch.tensor([(b, a) for a, b in itertools.pairwise(values)], dtype=torch.int64).reshape(
                -1, 2
            )
            for later, earlier in pairs[primitives[slot].answer(pairs) == 1].tolist()[:1]:
                raise NpiError(
                    f"{self.name} needs a list in ascending order of its primitive {slot}, and {earlier} comes before "
                    f"{later} in it: sort it first (`outsize npi run merge_sort`)"
                )

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


def integer(word: str) -> int:
    """One integer of 64 bits."""
    if not re.fullmatch("-?[0-9]{1,19}", word) or not -_LARGEST <= int(word) <= _LARGEST:
        raise NpiError(f"{_short(word)} is not an integer (of 64 bits)")
    return int(word)


def from_json(word: str) -> Any:
    try:
        return json.loads(word)
    except (ValueError, RecursionError) as error:
        raise NpiError(f"{_short(word)} is not JSON: {error}") from error


def integers(word: str) -> list[int]:
    """A JSON list of integers."""
    values = from_json(word)
    if not isinstance(values, list) or any(type(v) is not int for v in values):
        raise NpiError(f"{_short(word)} is not a JSON list of integers, such as [3, 1, 2]")
    if any(abs(v) > _LARGEST for v in values):
        raise NpiError(f"{_short(word)} holds an integer of more than 64 bits; cells have 64")
    return values


def integers_of_any_size(word: str) -> list[int]:
    """A JSON list of integers, of any number of digits."""
    try:
        values = json.loads(word, parse_int=_whole)
    except (ValueError, RecursionError) as error:
        raise NpiError(f"{_short(word)} is not JSON: {error}") from error
    if not isinstance(values, list) or any(type(v) is not int for v in values):
        raise NpiError(f"{_short(word)} is not a JSON list of integers, such as [3, 1, 2]")
    return values


def integer_of_any_size(word: str) -> int:
    """One integer, of any number of digits."""
    if not re.fullmatch("-?[0-9]+", word, re.ASCII):
        raise NpiError(f"{_short(word)} is not an integer")
    return _whole(word)


#: Digits that Python converts at once; it refuses more than 4,300.
_PIECE = 4_000


def _whole(text: str) -> int:
    sign, text, value = (-1, text[1:], 0) if text[0] == "-" else (1, text, 0)
    for i in range(0, len(text), _PIECE):
        part = text[i : i + _PIECE]
        value = value * 10 ** len(part) + int(part)
    return sign * value


def spell(value: int) -> str:
    """An integer's decimal digits, of any number."""
    parts, rest = [], abs(value)
    while rest >= 10**_PIECE:
        rest, part = divmod(rest, 10**_PIECE)
        parts.append(str(part).zfill(_PIECE))
    return ("-" if value < 0 else "") + str(rest) + "".join(reversed(parts))


def _short(word: str) -> str:
    return repr(word if len(word) <= 40 else word[:37] + "...")
