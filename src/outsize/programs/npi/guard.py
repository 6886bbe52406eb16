"""Program and model side by side, on the examples and on random inputs, with every engine.

No proof: a trial. It is there for what nobody thought of: the certificate's argument is about rows, zones and tables, and
a fault in any of them, or in how the program was read, shows here as two tapes that differ. The plain program runs on
pointers that count, so that an input on which it never ends is left out.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, final

from ...errors import NpiError
from .bounded import at_most
from .machine import Limits
from .tape import Head, Pointer, Tape
from .template import Template
from .trained import Engine, Trained, run

__all__ = ["Guard", "Sample", "compare"]

#: Random inputs that the program must have run to its end on, those that are tried for it, and those on which it fails
#: that the model must fail on, too.
INPUTS, TRIES, FAILURES = 1_000, 5_000, 200
#: Pointer calls of the program on one random input; the model may make a few for each.
_CALLS, _PER_CALL = 250, 16
#: System calls of an example that runs in a batch with others of its kind.
_SHORT = 1_000
#: Lines of the program on one input, beside as many as 16 for each pointer call.
_LINES = 4_000
#: The longest example that the network runs (150 µs a system call): some seconds. Tables and C run all of them.
_NETWORK_CALLS = 20_000
_LONGEST = 6
_SEED = 20_261_130

#: Makes one random input: pointers on fresh tapes.
Sample = Callable[[random.Random], Sequence[Head]]


@dataclass(frozen=True, kw_only=True)
class Guard:
    """What was compared.

    Attributes:
        examples, inputs: how many examples, and random inputs on which the program ends.
        failures: random inputs on which the program fails, and the model must.
        engines: which engines ran.
        different: executions that were found to differ (of those that a batch fails on, one).
        first: the first difference, in words, or "".
    """

    examples: int
    inputs: int
    failures: int
    engines: tuple[str, ...]
    different: int
    first: str


class _TooLong(Exception):
    """The program has made more pointer calls than a trial waits for."""


class _Outside(Exception):
    """The program reads or writes what a tape's domain does not hold: nothing is claimed there."""


@final
class Watched(Pointer):
    """A plain pointer that counts its calls and minds its tape's domain."""

    def __init__(self, head: Head, left: list[int]) -> None:
        self.head, self.left = head, left

    def _call(self) -> Head:
        self.left[0] -= 1
        if self.left[0] < 0:
            raise _TooLong
        return self.head

    def _held(self, value: int) -> int:
        if self.head.tape.domain is not None and value not in self.head.tape.domain:
            raise _Outside
        return value

    def read(self) -> int:
        return self._held(self._call().read())

    def write(self, value: Any) -> None:
        head = self._call()
        head.write(value)
        if not -(1 << 63) < self._held(head.read()) < 1 << 63:
            raise _Outside

    def move(self, steps: int = 1) -> None:
        self._call().move(steps)

    def at_end(self) -> bool:
        return self._call().at_end()

    def at_start(self) -> bool:
        return self._call().at_start()

    def before(self, other: Pointer) -> bool:
        return self._call().before(_bare(other))

    def meets(self, other: Pointer) -> bool:
        return self._call().meets(_bare(other))

    def goto(self, other: Pointer) -> None:
        self._call().goto(_bare(other))

    def copy(self) -> Watched:
        return Watched(self._call().copy(), self.left)

    def middle(self, other: Pointer) -> Watched:
        return Watched(self._call().middle(_bare(other)), self.left)

    def seek(self, value: Any) -> None:
        self._call().seek(value)


def _bare(pointer: Pointer) -> Head:
    if not isinstance(pointer, Watched):
        raise NpiError(f"a pointer of the program met {pointer!r}: pass every pointer as an argument")
    return pointer.head


@final
@dataclass(frozen=True)
class Shape:
    """Tapes (contents, domain) and pointers (tape, position) of one input, from which it is made as often as asked."""

    tapes: tuple[tuple[tuple[int, ...], Sequence[int] | None], ...]
    pointers: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, heads: Sequence[Head]) -> Shape:
        tapes = list({id(h.tape): h.tape for h in heads}.values())
        number = {id(t): i for i, t in enumerate(tapes)}
        contents = tuple((tuple(t.cells), t.domain) for t in tapes)
        return cls(contents, tuple((number[id(h.tape)], h.position) for h in heads))

    def heads(self) -> list[Head]:
        tapes = [Tape(cells, domain=domain) for cells, domain in self.tapes]
        return [tapes[t].at(position) for t, position in self.pointers]

    def __str__(self) -> str:
        cells = ", ".join(f"{list(c[:12])}{'…' if len(c) > 12 else ''}" for c, _ in self.tapes)
        return f"tapes {cells}, pointers at {[p for _, p in self.pointers]}"


def _varied(shape: Shape, source: random.Random) -> Shape:
    """Another input of the same make: other lengths and contents, pointers at corresponding places."""
    lengths = [len(cells) for cells, _ in shape.tapes]
    way, by = source.random(), source.randint(-3, 3)
    short = [min(n, _LONGEST) for n in lengths]
    if way < 0.6:
        short = [max(0, n + by) for n in short]
    elif way < 0.8:
        short = [max(0, n + source.randint(-2, 2)) for n in short]
    tapes = tuple(
        (_contents(cells, domain, n, source), domain) for (cells, domain), n in zip(shape.tapes, short)
    )
    pointers = []
    for t, p in shape.pointers:
        old, new = lengths[t], short[t]
        moved = p if p <= 0 else new - (old - p) if old - p <= 1 else min(p, new)
        pointers.append((t, source.randint(-1, new) if source.random() < 0.1 else max(-1, moved)))
    return Shape(tapes, tuple(pointers))


def _contents(
    cells: tuple[int, ...], domain: Sequence[int] | None, n: int, source: random.Random
) -> tuple[int, ...]:
    """As the example's, as one of its cells repeated, or anything that the domain holds."""
    way = source.random()
    if way < 0.3 and cells:
        return tuple(cells[i % len(cells)] for i in range(n))
    values = domain or sorted({*cells, *range(n + 1)})
    if way < 0.5:
        values = source.sample(values, min(2, len(values)))
    return tuple(source.choice(values) for _ in range(n))


def _plain(template: Template, shape: Shape, calls: int) -> tuple[str, Any]:
    """How the plain program ends: ("ends", result), ("fails", error) or ("skipped", None).

    One with programs in its slots is run on pointers that let these answer; there, whatever fails is skipped.
    """
    heads, program = shape.heads(), template.traces.linker.entry
    if template.references:
        try:
            template.plain(heads, calls)
        except NpiError:
            return "skipped", None
        return "ends", _result(heads)
    left = [calls]
    try:
        with at_most(_LINES + _PER_CALL * calls, _TooLong):
            program(*(Watched(h, left) for h in heads))
    except (_TooLong, _Outside, RecursionError):
        return "skipped", None
    except Exception as error:
        return "fails", f"{type(error).__name__}: {error}"
    return "ends", _result(heads)


def _result(heads: Sequence[Head]) -> list[tuple[list[int], int]]:
    return [(h.tape.cells, h.position) for h in heads]


def compare(template: Template, trained: Trained, sample: Sample | None = None) -> Guard:
    """Run program and model on the examples and on random inputs.

    Args:
        template: the program's.
        trained: the model.
        sample: makes valid inputs, where a program has demands that its examples do not show. Half of the random
            inputs come from it, the other half vary the examples.
    """
    examples = [Shape.of(tuple(example())) for example in template.traces.examples]
    engines: list[Engine] = ["native", "tables", "network"]
    engines = engines[trained.fastest != "native" :]
    calls = [sum(len(row.steps) for row in rows) for rows in template.traces.executions]
    trial = _Trial(trained, engines)
    short: list[tuple[Shape, Any]] = []
    for shape, n in zip(examples, calls):
        which, result = _plain(template, shape, 8 * n + 1_000)
        if which != "skipped" and n <= _SHORT:
            short.append((shape, result))
        elif which != "skipped":
            used = [e for e in engines if e != "network" or n <= _NETWORK_CALLS]
            trial.run([(shape, result)], _PER_CALL * n + 1_000, used)
    trial.run(short, _PER_CALL * _SHORT, engines)
    ended, failed = _draw(template, examples, sample)
    trial.run(ended, _PER_CALL * _CALLS, engines)
    for shape, error in failed:
        trial.must_fail(shape, error)
    return Guard(
        examples=len(examples),
        inputs=len(ended),
        failures=len(failed),
        engines=tuple(engines),
        different=trial.different,
        first=trial.first,
    )


def _draw(
    template: Template, examples: Sequence[Shape], sample: Sample | None
) -> tuple[list[tuple[Shape, Any]], list[tuple[Shape, str]]]:
    source = random.Random(_SEED)
    ended: list[tuple[Shape, Any]] = []
    failed: list[tuple[Shape, str]] = []
    for i, shape in enumerate(_shapes(examples, sample, source)):
        if len(ended) >= INPUTS or i >= TRIES:
            break
        which, result = _plain(template, shape, _CALLS)
        if which == "ends":
            ended.append((shape, result))
        elif which == "fails" and len(failed) < FAILURES:
            failed.append((shape, result))
    return ended, failed


def _shapes(examples: Sequence[Shape], sample: Sample | None, source: random.Random) -> Iterator[Shape]:
    while True:
        yield _varied(source.choice(examples), source)
        if sample is not None:
            yield Shape.of(sample(source))


@final
class _Trial:
    """Runs the model and counts where it differs."""

    def __init__(self, trained: Trained, engines: Sequence[Engine]) -> None:
        self.trained, self.engines = trained, engines
        self.different, self.first = 0, ""

    def run(self, cases: Sequence[tuple[Shape, Any]], steps: int, engines: Sequence[Engine]) -> None:
        for engine in engines if cases else ():
            executions = [shape.heads() for shape, _ in cases]
            try:
                self._execute(executions, engine, steps)
            except NpiError:
                self._failing(cases, engine, steps)
                continue
            for (shape, want), heads in zip(cases, executions):
                if (got := _result(heads)) != want:
                    self._differs(shape, engine, want, got)

    def _failing(self, cases: Sequence[tuple[Shape, Any]], engine: Engine, steps: int) -> None:
        """A batch fails: find one of it that does, by halves."""
        while len(cases) > 1:
            half = cases[: len(cases) // 2]
            try:
                self._execute([shape.heads() for shape, _ in half], engine, steps)
                cases = cases[len(half) :]
            except NpiError:
                cases = half
        (shape, want) = cases[0]
        self._differs(shape, engine, want, self._alone(shape, engine, steps))

    def must_fail(self, shape: Shape, error: str) -> None:
        engine = self.engines[0]
        got = self._alone(shape, engine, _PER_CALL * _CALLS)
        if not isinstance(got, str):
            self._differs(shape, engine, error, got)

    def _alone(self, shape: Shape, engine: Engine, steps: int) -> Any:
        heads = shape.heads()
        try:
            self._execute([heads], engine, steps)
        except NpiError as error:
            return str(error)
        return _result(heads)

    def _execute(self, executions: Sequence[Sequence[Head]], engine: Engine, steps: int) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            run(self.trained, executions, engine=engine, limits=Limits(steps=steps))

    def _differs(self, shape: Shape, engine: str, want: Any, got: Any) -> None:
        self.different += 1
        if not self.first:
            self.first = (
                f"{shape}: the program gives {str(want)[:200]}, the model on engine {engine} {str(got)[:200]}"
            )
