"""A certified program in a slot: what answers there may be a model of its own (method 3, closed under composition).

A slot asks with values and wants one back, a program runs on tapes. So with the program come the way from values to its
tapes (`encode`) and from these to an answer (`decode`), both plain Python. They are part of what is claimed: the
composed program is the outer one whose data function encodes, runs the inner program and decodes. The model does the
same with the inner model, so the two are equal where the inner certificate holds. What would lie outside of that
certificate (other tapes shared, cells that the examples' domains do not hold) is an error on both sides.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import FunctionType
from typing import NoReturn, final

import numpy as np
import torch
from torch import Tensor

from ...errors import NpiError
from .examples import standing
from .guard import Sample
from .names import Names, digest
from .primitive import Filling
from .slots import Reference
from .tape import Head
from .template import Template, fresh
from .trained import Trained, layout_of, run, started

__all__ = ["Filler", "ProgramPrimitive", "as_filler"]


@final
@dataclass(frozen=True, kw_only=True)
class Filler(Reference):
    """A certified program as a function of values.

    Attributes:
        template: the program's.
        model: its model, certified.
        encode: the pointers of one execution, on fresh tapes, from the slot's values.
        decode: the answer, from the pointers after the run.
        arity: how many values it takes.
        way: what `encode` and `decode` are, for the hash.
        held: what may stand on the tape of each of its pointers; None: any integer.
        layouts: which of its pointers share a tape, in the arrangements of its examples.
        sample: makes valid random inputs for the trial in its verification.
    """

    template: Template
    model: Trained
    encode: Callable[..., Sequence[Head]]
    decode: Callable[[Sequence[Head]], int]
    arity: int
    way: str
    held: tuple[frozenset[int] | None, ...]
    layouts: tuple[tuple[int, ...], ...]
    sample: Sample | None = None

    @property
    def name(self) -> str:
        """The program's name."""
        return self.template.name

    def __call__(self, inputs: tuple[int, ...]) -> int:
        heads = self._heads(inputs)
        self.template.plain(heads)
        return self._answer(inputs, heads)

    def answers(
        self, rows: Sequence[tuple[int, ...]], go: Callable[[Sequence[Sequence[Head]]], object] | None = None
    ) -> list[int]:
        """What the model answers, as one batch.

        Args:
            rows: the slot's values.
            go: what runs the model; without it, `run`.

        Returns:
            an answer for each row.

        Raises:
            NpiError: as `run`; an input that cannot be encoded.
        """
        executions = [self._heads(row) for row in rows]
        if executions:
            (go or functools.partial(run, self.model))(executions)
        return [self._answer(row, heads) for row, heads in zip(rows, executions)]

    def same_as(self, other: Reference | None) -> bool:
        """Whether another one is the same program, encoded and decoded by the same functions.

        Args:
            other: what stands in a slot, or None.

        Returns:
            True where it is.
        """
        return (
            isinstance(other, Filler)
            and self.identity() == other.identity()
            and (self.encode is other.encode or self.way.startswith(_OWN))
            and (self.decode is other.decode or self.way.startswith(_OWN))
        )

    def _heads(self, inputs: tuple[int, ...]) -> tuple[Head, ...]:
        heads = fresh(self.encode(*inputs))
        if len(heads) != len(self.held):
            raise NpiError(f"encode of {self.name} must give {len(self.held)} pointers, made by Tape(…).at()")
        if layout_of(heads) not in self.layouts:
            raise NpiError(
                f"encode of {self.name} puts pointers on tapes as none of its examples does, for which nothing is "
                "proved: trace it with such an example"
            )
        for i, (head, held) in enumerate(zip(heads, self.held)):
            if held is not None and not held.issuperset(head.tape.cells):
                raise NpiError(
                    f"encode of {self.name} puts a value under pointer {i} for {inputs} that the domain of its examples "
                    "does not hold"
                )
        return heads

    def _answer(self, inputs: tuple[int, ...], heads: Sequence[Head]) -> int:
        answer = self.decode(heads)
        if type(answer) not in (int, bool) or not -(1 << 63) < answer < 1 << 63:
            raise NpiError(
                f"{self.name} answers {str(answer)[:40]} to {inputs}: decode must give an integer of 64 bits"
            )
        return int(answer)

    def identity(self) -> str:
        return hashlib.sha256(f"{self.template.identity()}\n{self.way}".encode()).hexdigest()

    def check_unchanged(self) -> None:
        """Raise if the program, its examples' domains, `encode` or `decode` are not what they were.

        Raises:
            NpiError: naming what has changed.
        """
        self.template.check_unchanged()
        if (self.held, self.layouts) != (_held(self.template), self.template.layouts):
            raise NpiError(
                f"what {self.name} may be given is not what its examples show: make the filler again"
            )
        if self.way.startswith(_OWN) and self.way != _own(self.encode, self.decode):
            raise NpiError(
                f"encode or decode of {self.name}, or something that they use, has changed: make the filler again"
            )


#: What `way` begins with where the text of `encode` and `decode` is hashed.
_OWN = "own "


def _held(template: Template) -> tuple[frozenset[int] | None, ...]:
    return tuple(None if d is None else frozenset(d) for d in standing(template.traces.examples))


def _own(encode: object, decode: object) -> str:
    if not isinstance(encode, FunctionType) or not isinstance(decode, FunctionType):
        raise NpiError("encode and decode must be plain Python functions")
    for function in (encode, decode):
        if assigned := sorted(Names(function).assigned):
            raise NpiError(
                f"{function.__name__} assigns the outer name {assigned[0]}: encode and decode answer by their arguments "
                "alone"
            )
    return f"{_OWN}{digest(encode)} {digest(decode)}"


def as_filler(
    template: Template,
    model: Trained,
    encode: Callable[..., Sequence[Head]],
    decode: Callable[[Sequence[Head]], int],
    *,
    way: str = "",
    arity: int | None = None,
    sample: Sample | None = None,
) -> Filler:
    """Make a certified program into what can fill a slot.

    Args:
        template: the program's.
        model: its model, which a certificate that holds has said of that it ends (`Trained.certified`).
        encode: makes the program's pointers, on fresh tapes, from the slot's values: a plain function of as many
            parameters as the slot has inputs.
        decode: reads the answer off the pointers after the run.
        way: names `encode` and `decode` where they are not plain functions; without it their text is hashed.
        arity: how many values `encode` takes, where its parameters do not say it.
        sample: makes valid random inputs for the trial, as in `verify`.

    Returns:
        what `swap` and `compose` take.

    Raises:
        NpiError: the model is not certified, or of another program.
    """
    if model.name != template.name:
        raise NpiError(f"the model is of {model.name}, the template of {template.name}")
    if model.ends != model.fingerprint():
        raise NpiError(
            f"{model.name} is not certified, and a slot takes certified programs only: "
            "model.certified(npi.verify(template, model)), if that holds"
        )
    return Filler(
        template=template,
        model=model,
        encode=encode,
        decode=decode,
        arity=len(inspect.signature(encode).parameters) if arity is None else arity,
        way=way or _own(encode, decode),
        held=_held(template),
        layouts=template.layouts,
        sample=sample,
    )


@final
class ProgramPrimitive(Filling):
    """A program's model where a network would stand."""

    def __init__(self, name: str, filler: Filler) -> None:
        self.name, self._filler, self._identity = name, filler, filler.identity()

    @property
    def filler(self) -> Filler:
        return self._filler

    @property
    def domains(self) -> tuple[tuple[int, ...] | None, ...]:
        return (None,) * self.filler.arity

    def raw(self, inputs: Tensor) -> Tensor:
        return self._asked(inputs, functools.partial(run, self.filler.model))

    def started(self) -> Callable[[Tensor], Tensor]:
        return functools.partial(self._asked, go=started(self.filler.model))

    def _asked(self, inputs: Tensor, go: Callable[[Sequence[Sequence[Head]]], object]) -> Tensor:
        rows = [tuple(row) for row in inputs.tolist()]
        return torch.tensor(self.filler.answers(rows, go), dtype=torch.int64)

    def refuse(self, inputs: list[int]) -> NoReturn:
        raise NpiError(f"the program {self.filler.name} in slot {self.name} has no answer to {inputs}")

    def table(self) -> np.ndarray:
        raise NpiError(
            f"the program {self.filler.name} in slot {self.name} takes any integer: it has no table"
        )

    def fingerprint(self) -> str:
        return hashlib.sha256(
            f"{self.filler.identity()}\n{self.filler.model.fingerprint()}".encode()
        ).hexdigest()

    def __call__(self, inputs: tuple[int, ...]) -> int:
        return self.one(inputs)
