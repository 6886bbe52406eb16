"""Primitive slots: one for each data-value assignment and each test on data (method 3, claim 3).

A site is a place in the program's text: function, line, expression. Its name is the data function's where
the program calls one (`less`), else the cell's that is written (`carry`). With the site come its data: the
pairs seen, and, where every tape it reads declares a finite domain, the whole product of domains, answered
by the program's own expression.
"""

from __future__ import annotations

import hashlib
import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from math import prod
from types import FunctionType
from typing import final

from ...errors import NpiError
from .calls import COPY
from .names import digest
from .value import Expr, canonical, evaluate, functions, registers, show

__all__ = ["UNDEFINED", "Answer", "Reference", "Site", "Slots"]

#: The answer to inputs for which the program has none: it divides by zero there, or its result does not fit the tape
#: that it is written to. A primitive learns it like any other answer, and a call that gets it is an error.
UNDEFINED = -(1 << 63)

#: A primitive's answer to the values under the pointers.
Answer = Callable[[tuple[int, ...]], int]


class Reference(ABC):
    """A program that stands at a site in place of the site's own expression."""

    @property
    @abstractmethod
    def name(self) -> str:
        """The program's."""

    @abstractmethod
    def __call__(self, inputs: tuple[int, ...]) -> int:
        """What the plain program answers; it raises where it fails."""

    @abstractmethod
    def identity(self) -> str:
        """SHA-256 of the program as it is proved, and of the way from values to its tapes and back."""

    @abstractmethod
    def check_unchanged(self) -> None:
        """Raise if the program is not what it was when it was traced."""


@final
class Site:
    """A data-value assignment or a test on data, and what is known of its inputs."""

    def __init__(self, name: str, kind: str, where: str, expr: Expr) -> None:
        self.name, self.kind, self.where = name, kind, where
        self.text = show(expr)
        self._expr, self._registers = expr, registers(expr)
        self.arity = len(self._registers)
        #: The program's own expression and the registers that are its inputs, in order.
        self.expression = expr, tuple(self._registers)
        self.seen: dict[tuple[int, ...], int] = {}
        self.domains: list[set[int] | None] = [set() for _ in range(self.arity)]
        self.target: set[int] | None = None
        self._target_known = False
        self.declared, self.reached = False, True
        self.reference: Reference | None = None

    def refill(self, reference: Reference) -> None:
        """From now on a program answers here, whatever the expression in the text says."""
        inputs = [("v", register) for register in self._registers]
        self._expr = ("call", reference.name, lambda *values: reference(values), *inputs)
        self.text, self.reference = show(self._expr), reference
        self.expression = self._expr, tuple(self._registers)
        self.seen = {}

    def __call__(self, inputs: tuple[int, ...]) -> int:
        """The program's own answer."""
        result = int(evaluate(self._expr, dict(zip(self._registers, inputs))))
        return int(bool(result)) if self.kind == "test" else result

    def fingerprint(self) -> str:
        """SHA-256 of what it computes: kind, expression, the text of the functions in it, domains and target."""
        texts = [] if self.reference is None else [self.reference.identity()]
        for function in functions(self._expr) if self.reference is None else ():
            inner, *how = getattr(function, "__wrapped__", (function,))
            texts.append(f"{digest(inner) if isinstance(inner, FunctionType) else inner.__name__} {how}")
        domains = [None if d is None else sorted(d) for d in self.domains]
        target = None if self.target is None else sorted(self.target)
        about = [self.name, self.kind, self.text, *texts, repr(domains), repr(target)]
        return hashlib.sha256("\n".join(about).encode()).hexdigest()

    def observe(self, inputs: tuple[int | None, ...], domains: Sequence[Sequence[int] | None]) -> None:
        pair = tuple(n for n in inputs if n is not None)
        if pair not in self.seen:
            self.seen[pair] = self(pair)
        for i, domain in enumerate(() if self.declared else domains):
            known = self.domains[i]
            self.domains[i] = None if known is None or domain is None else known | set(domain)

    def widen_target(self, domain: Sequence[int] | None) -> None:
        known = (self.target or set()) if self._target_known else set()
        unbounded = domain is None or (self._target_known and self.target is None)
        self.target = None if unbounded else known | set(domain or ())
        self._target_known = True

    def pairs(self, limit: int) -> tuple[dict[tuple[int, ...], int], bool]:
        """The data set, and whether it is the whole domain.

        Args:
            limit: largest number of inputs that are enumerated.

        Raises:
            NpiError: the program has an answer to no input of the domain.
        """
        if not self.reached:
            return {(0,) * self.arity: UNDEFINED}, True
        finite = [sorted(d) for d in self.domains if d is not None]
        if len(finite) < self.arity or prod(len(d) for d in finite) > limit:
            return dict(self.seen), False
        data = {inputs: self._answer(inputs) for inputs in itertools.product(*finite)}
        if set(data.values()) == {UNDEFINED}:
            raise NpiError(
                f"primitive {self.name} ({self.text}) has no answer to any of {len(data)} inputs that fits the tape "
                f"it is written to ({sorted(self.target or ())[:10]})"
            )
        return data, True

    def _answer(self, inputs: tuple[int, ...]) -> int:
        try:
            answer = self(inputs)
        except NpiError:
            if self.reference is None:
                raise
            return UNDEFINED  # a program's own failure
        except (RecursionError, MemoryError) as error:
            raise NpiError(
                f"primitive {self.name} ({self.text}) fails on {inputs}: {type(error).__name__}"
            ) from error
        except Exception:  # the program itself fails on this input, whatever it raises
            return UNDEFINED
        fits = abs(answer) < -UNDEFINED if self.target is None else answer in self.target
        return answer if fits else UNDEFINED


@final
class Slots:
    """The primitive sites of a program, found while it runs."""

    def __init__(self) -> None:
        self._sites: dict[tuple[str, str, str, Expr], Site] = {}

    def __iter__(self) -> Iterator[Site]:
        return iter(self._sites.values())

    def by_name(self) -> Mapping[str, Site]:
        return {site.name: site for site in self._sites.values()}

    def site(self, kind: str, program: str, where: str, expr: Expr, label: str) -> Site:
        key = (kind, program, where, canonical(expr))
        if key not in self._sites:
            self._sites[key] = Site(self._fresh(_label(kind, expr, label)), kind, where, expr)
        return self._sites[key]

    def declare(
        self,
        inputs: Mapping[str, Sequence[tuple[int, ...] | None]],
        caps: Mapping[str, tuple[int, ...] | None],
    ) -> None:
        """Learn the domain of every input. A site that no values lead to has an answer to nothing: a run that comes there
        all the same, with other primitives, is an error.

        Raises:
            NpiError: an input has no finite domain, and no example shows any.
        """
        for key, site in self._sites.items():
            site.reached = site.name in inputs
            if not site.reached:
                site.domains, site.target, site.declared = [{0} for _ in range(site.arity)], None, True
                continue
            site.domains, site.declared = [None if d is None else set(d) for d in inputs[site.name]], True
            if site.kind != "test":
                cap = caps.get(site.name)
                site.target = None if cap is None else set(cap)
            if None in site.domains and not site.seen:
                raise NpiError(
                    f"no example reaches {site.text} at {site.where} in {key[1]}: add one that does, so that the "
                    "primitive's inputs can be collected, or give the tapes it reads a domain"
                )

    def _fresh(self, name: str) -> str:
        taken = {"", COPY, *(site.name for site in self._sites.values())}
        names = itertools.chain([name], (f"{name}_{i}" for i in itertools.count(2)))
        return next(n for n in names if n not in taken)


_TESTS = {"<": "less", "<=": "at_most", ">": "more", ">=": "at_least", "==": "equal", "!=": "differs"}


def _label(kind: str, expr: Expr, label: str) -> str:
    if expr[0] == "call":
        return str(expr[1])
    return label or "value" if kind != "test" else _TESTS.get(expr[0], "holds")
