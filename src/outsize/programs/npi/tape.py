"""Tapes and pointers: the only vocabulary a reference program needs.

A program that is to be learned is an ordinary Python function over pointers. Run as it is, it computes on
plain integers (`Head`); run by `npi.trace`, the same calls go to a recorder (`Probe`) and become a log of
system calls. The controller later issues the same calls to the machine, so this file is the list of what it
may do.

A position lies between -1 (before the start) and `len(tape)` (past the end); reading or writing there is an
error.
"""

from __future__ import annotations

import operator
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, final

from ...errors import NpiError

if TYPE_CHECKING:
    from .value import Value

__all__ = ["Head", "Pointer", "Tape", "cell_value"]

#: Values of a tape's domain. Larger ones cannot be enumerated for one input, let alone for two.
_LARGEST_DOMAIN = 1 << 22


@final
class Tape:
    """Cells of integers.

    Args:
        values: the cells' first contents.
        domain: every value that a cell may ever hold, where that is a finite set. It is what lets a primitive
            that reads this tape be checked exhaustively; without it, its certificate is statistical. Tracing
            checks what is read and written against it; plain runs do not, and primitives check their inputs.
    """

    def __init__(self, values: Iterable[int], *, domain: Iterable[int] | None = None) -> None:
        self.cells = [cell_value(value, "a cell of a tape") for value in _items(values, "a tape's cells")]
        self.domain = None if domain is None else _domain(domain)

    def __len__(self) -> int:
        return len(self.cells)

    def at(self, position: int = 0) -> Head:
        """A new pointer on this tape; -1 is before the start, `len(tape)` past the end.

        Args:
            position: from -1 to `len(tape)`.

        Returns:
            the pointer.

        Raises:
            NpiError: the position is off the tape.
        """
        return Head(self, position)

    def at_last(self) -> Head:
        """A new pointer on the last cell (before the start, if the tape is empty)."""
        return Head(self, len(self.cells) - 1)


def cell_value(value: object, what: str) -> int:
    """A cell's content as a plain integer; nothing is rounded or read from text."""
    try:
        return int(operator.index(value))  # type: ignore[arg-type]
    except TypeError:
        raise NpiError(f"{what} is {value!r}: tapes hold integers") from None


def _items(values: Iterable[int], what: str) -> Iterable[int]:
    if isinstance(values, str | bytes) or not isinstance(values, Iterable):
        raise NpiError(f"{what} are given as {values!r}: give a list of integers")
    return values


def _domain(values: Iterable[int]) -> Sequence[int]:
    """Distinct values in ascending order; a range stays one, so that a large one costs nothing."""
    if isinstance(values, range):
        held: Sequence[int] = values if values.step > 0 else values[::-1]
    else:
        held = tuple(
            sorted({cell_value(v, "a value of a domain") for v in _items(values, "a domain's values")})
        )
    count = (held[-1] - held[0]) // held.step + 1 if isinstance(held, range) and held else len(held)
    if not 1 <= count <= _LARGEST_DOMAIN:
        raise NpiError(
            f"a domain has {count} values; it must have 1 to {_LARGEST_DOMAIN}, and a primitive is checked on every "
            "combination of its inputs: leave the domain out where there is no small one"
        )
    if held[0] <= -(1 << 63) or held[-1] >= 1 << 63:
        raise NpiError(f"a domain reaches from {held[0]} to {held[-1]}; cells have 64 bits")
    return held


class Pointer(ABC):
    """A position on a tape. Passed to a function it is passed by reference, as any Python object."""

    def __iter__(self) -> Iterator[Any]:
        """The values from here to the end of the tape. The pointer itself goes along: past the last cell in the end."""
        while not self.at_end():
            yield self.read()
            self.move(1)

    @abstractmethod
    def read(self) -> Any:
        """The value of the cell under the pointer: an integer, or under a recorder a `Value`.

        Raises:
            NpiError: the pointer is before the first or past the last cell.
        """

    @abstractmethod
    def write(self, value: int | Value) -> None:
        """Put a value into the cell under the pointer.

        Args:
            value: an integer, or what was read.

        Raises:
            NpiError: the pointer is on no cell, or the value is no integer.
        """

    @abstractmethod
    def move(self, steps: Any = 1) -> None:
        """Go right (positive) or left (negative) by a number of cells fixed in the program's text.

        Args:
            steps: cells to the right; negative goes left.

        Raises:
            NpiError: it would go further than one past either end.
        """

    @abstractmethod
    def at_end(self) -> bool:
        """Whether the pointer is past the last cell."""

    @abstractmethod
    def at_start(self) -> bool:
        """Whether the pointer is before the first cell."""

    @abstractmethod
    def before(self, other: Pointer) -> bool:
        """Whether this position is smaller than the other's.

        Args:
            other: a pointer of the same run, on any tape.

        Returns:
            True where it is.
        """

    @abstractmethod
    def meets(self, other: Pointer) -> bool:
        """Whether the two positions are equal.

        Args:
            other: a pointer of the same run, on any tape.

        Returns:
            True where they are.
        """

    @abstractmethod
    def goto(self, other: Pointer) -> None:
        """Take the other's position, staying on one's own tape.

        Args:
            other: a pointer of the same run, on any tape.

        Raises:
            NpiError: this tape has no such position.
        """

    @abstractmethod
    def copy(self) -> Pointer:
        """A new pointer at the same place, which lives as long as the call that made it."""

    @abstractmethod
    def middle(self, other: Pointer) -> Pointer:
        """A new pointer on this tape, half-way (rounded down) between the two positions.

        Args:
            other: a pointer of the same run, on any tape.

        Returns:
            the new pointer.
        """

    @abstractmethod
    def seek(self, value: int | Value) -> None:
        """Go to the position that a value read from a tape names.

        Args:
            value: a position, read from a tape.

        Raises:
            NpiError: this tape has no such position.
        """


@final
class Head(Pointer):
    """A pointer that computes on plain integers: what a program uses when nobody records it.

    Args:
        tape: the cells that it points to.
        position: from -1 (before the start) to `len(tape)` (past the end).
    """

    def __init__(self, tape: Tape, position: int) -> None:
        self.tape = tape
        self.position = cell_value(position, "a position")
        self._check(self.position, -1, len(tape))

    def __repr__(self) -> str:
        return f"Head({self.position} of {len(self.tape)})"

    def _check(self, position: int, low: int, high: int) -> None:
        if not low <= position <= high:
            raise NpiError(f"position {position} is off the tape: {low}..{high} are allowed here")

    def read(self) -> int:
        self._check(self.position, 0, len(self.tape) - 1)
        return self.tape.cells[self.position]

    def write(self, value: int | Value) -> None:
        self._check(self.position, 0, len(self.tape) - 1)
        self.tape.cells[self.position] = cell_value(value, "what is written")

    def move(self, steps: int = 1) -> None:
        self._check(self.position + steps, -1, len(self.tape))
        self.position += steps

    def at_end(self) -> bool:
        return self.position >= len(self.tape)

    def at_start(self) -> bool:
        return self.position < 0

    def before(self, other: Pointer) -> bool:
        return self.position < _head(other).position

    def meets(self, other: Pointer) -> bool:
        return self.position == _head(other).position

    def goto(self, other: Pointer) -> None:
        self._check(_head(other).position, -1, len(self.tape))
        self.position = _head(other).position

    def copy(self) -> Head:
        return Head(self.tape, self.position)

    def middle(self, other: Pointer) -> Head:
        return Head(self.tape, (self.position + _head(other).position) // 2)

    def seek(self, value: int | Value) -> None:
        position = cell_value(value, "the position that is sought")
        self._check(position, -1, len(self.tape))
        self.position = position


def _head(pointer: Pointer) -> Head:
    if not isinstance(pointer, Head):
        raise NpiError("a recorded pointer met one that is not recorded: pass every pointer as an argument")
    return pointer
