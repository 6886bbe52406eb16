"""What a task is: a program as its user writes it, tapes, two or three examples, and an oracle."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from outsize.programs.npi import Head, Tape

__all__ = ["D", "Task", "bits", "digits", "numbers"]

D = range(10)


@dataclass(frozen=True)
class Task:
    """One task.

    Attributes:
        name: in words.
        program: as written at the first attempt.
        tapes: a problem to tapes; a pair is a tape and the pointer's position on it (-1: the last cell).
        sample: a random problem.
        answer: contents of the tapes after the run to the result.
        oracle: the right result, by other means.
        lessons: problems that are given as examples.
    """

    name: str
    program: Callable[..., Any]
    tapes: Callable[..., list[Any]]
    sample: Callable[[Random], list[Any]]
    answer: Callable[[list[list[int]]], Any]
    oracle: Callable[..., Any]
    lessons: tuple[Sequence[Any], ...]

    def heads(self, problem: Sequence[Any]) -> list[Head]:
        out = []
        for made in self.tapes(*problem):
            tape, position = made if isinstance(made, tuple) else (made, 0)
            out.append(tape.at_last() if position == -1 else tape.at(position))
        return out

    def result(self, heads: Sequence[Head]) -> Any:
        return self.answer([h.tape.cells for h in heads])


def numbers(source: Random, low: int = 0, high: int = 9) -> list[int]:
    return source.choices(D, k=source.randint(low, high))


def digits(source: Random) -> list[int]:
    return source.choices(D, k=source.randint(1, 6))


def bits(source: Random) -> list[int]:
    return source.choices(range(2), k=source.randint(0, 9))


assert Tape
