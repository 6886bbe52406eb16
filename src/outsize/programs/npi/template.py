"""From traces to a template: the higher-order function, and a data set for each of its primitives.

    trace(program, examples)  →  Traces        system calls of real executions
    parameterize(traces)      →  Template      rows over actions, no datum left; primitive sites with their
    data

Method 3, claims 2 to 6 and 10. Nothing here is learned.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import final

from ...errors import NpiError
from .calls import COPY, Action, Row, tailed
from .closure import Closure, check_consistent, close
from .examples import find_examples, standing
from .flow import Flow
from .record import Recorder
from .returns import Reconsider
from .slots import Answer, Reference, Site, Slots
from .source import Linker, Program
from .tape import Head, Tape

__all__ = [
    "Example",
    "Template",
    "Traces",
    "Vocabulary",
    "execute",
    "fresh",
    "parameterize",
    "retrace",
    "trace",
]

#: Makes the pointers of one execution, on fresh tapes.
Example = Callable[[], Sequence[Head]]


@dataclass(frozen=True, kw_only=True)
class Traces:
    """Logs of executions: for each one, its calls as rows, in order of their end.

    Attributes:
        given: how many of the examples were given; the others were found.
        linker: the program with the functions that it calls.
        slots: its primitive sites, with the values seen there.
        examples: what makes the pointers of each execution.
        executions: the rows of each, in the order of the examples.
        digest: hash of the program's text, constants and tables, as they were when it was traced.
    """

    linker: Linker
    slots: Slots
    examples: tuple[Example, ...]
    executions: tuple[tuple[Row, ...], ...]
    digest: str
    given: int

    @property
    def rows(self) -> tuple[Row, ...]:
        """Distinct rows of all executions, in order of first appearance."""
        return tuple(dict.fromkeys(row for rows in self.executions for row in rows))


@final
@dataclass(frozen=True)
class Vocabulary:
    """What the controller may say: keys (system calls, program calls), tuples of registers, primitive ids."""

    programs: tuple[str, ...]
    keys: tuple[str, ...]
    tuples: tuple[tuple[str, ...], ...]
    slots: tuple[str, ...]

    @classmethod
    def of(cls, entry: str, rows: Iterable[Row]) -> Vocabulary:
        rows = tuple(rows)
        actions = [step.action for row in rows for step in row.steps]
        programs = dict.fromkeys([entry, *(row.program for row in rows)])
        return cls(
            tuple(programs),
            tuple(sorted({a.key for a in actions})),
            tuple(sorted({a.operands for a in actions})),
            tuple(sorted({a.slot for a in actions})),
        )

    def encode(self, action: Action) -> tuple[int, int, int]:
        try:
            return (
                self.keys.index(action.key),
                self.tuples.index(action.operands),
                self.slots.index(action.slot),
            )
        except ValueError as error:
            raise NpiError(f"{action} is not in this controller's vocabulary: train it again") from error

    def decode(self, key: int, operands: int, slot: int) -> Action:
        return Action(self.keys[key], self.tuples[operands], self.slots[slot])


@dataclass(frozen=True, kw_only=True)
class Template:
    """A higher-order function: what the controller learns, and the slots that primitives fill.

    Attributes:
        name: the program's name.
        arities: pointers that each program takes; the entry comes first.
        rows: the training rows, from traces.
        closure: the verification set, from the program's text alone.
        sites: primitive slots by name.
        traces: where it came from, so that it can be traced again with networks in the slots.
        references: the slots that programs fill, see `compose`.
        origin: the template that these were put into.
    """

    name: str
    arities: Mapping[str, int]
    rows: tuple[Row, ...]
    closure: Closure
    sites: Mapping[str, Site]
    traces: Traces
    references: Mapping[str, Reference] = field(default_factory=dict)
    origin: Template | None = None

    @property
    def vocabulary(self) -> Vocabulary:
        """What the controller may say: every key, tuple of registers and slot of its rows."""
        return Vocabulary.of(self.name, self.rows + self.explored)

    @property
    def explored(self) -> tuple[Row, ...]:
        """Every row that the program's text allows. The controller learns them all, those that no values can take
        among them: another primitive may take them.
        """
        return self.closure.rows + self.closure.impossible

    def flow(self, layout: Sequence[int]) -> Flow:
        """The values that can occur where the entry's pointers share tapes so (equal numbers).

        Args:
            layout: for each of the entry's pointers, the first one that is on the same tape.

        Returns:
            domains by register and tape.
        """
        targets = {slot: site.target for slot, site in self.sites.items()}
        caps = {slot: tuple(sorted(target)) for slot, target in targets.items() if target is not None}
        return Flow(self.arities, self.closure.rows, self.sites, layout, standing(self.traces.examples), caps)

    @property
    def layouts(self) -> tuple[tuple[int, ...], ...]:
        """Which of the entry's pointers share a tape, in each way that an example shows."""
        found: dict[tuple[int, ...], None] = {}
        for example in self.traces.examples:
            tapes = [id(head.tape) for head in tuple(example())]
            found[tuple(tapes.index(t) for t in tapes)] = None
        return tuple(found)

    def identity(self) -> str:
        """Hash of the program as it is proved: verification set under its own names, expressions, data functions,
        domains."""
        parts = [f"{name} {arity}" for name, arity in self.arities.items()]
        parts += [str(row) for row in self.closure.rows]
        parts += [site.fingerprint() for site in self.sites.values()]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def check_unchanged(self) -> None:
        """Raise if the program's text, or a constant or table that it uses, is not what it was when it was traced.

        Raises:
            NpiError: it is not.
        """
        for reference in self.references.values():
            reference.check_unchanged()
        if self.traces.linker.digest() != self.traces.digest:
            raise NpiError(
                f"{self.name}, or a constant, a table or a function that it uses, has changed since it was traced: a "
                "program and its data functions change nothing but tapes; trace it again"
            )

    def plain(self, heads: Sequence[Head], steps: int | None = None) -> None:
        """Run the plain program; with programs in its slots, on pointers that let these answer.

        Args:
            heads: the entry's pointers, changed in place.
            steps: system calls before one with programs in its slots is given up.
        """
        if self.references:
            traces = self.traces
            Recorder(traces.linker, traces.slots, self.references, steps=steps).run(tuple(heads))
        else:
            self.traces.linker.entry(*heads)

    @property
    def uncovered(self) -> tuple[Row, ...]:
        """Rows of the verification set that no trace shows."""
        known = set(self.rows)
        return tuple(row for row in self.closure.rows if row not in known)

    def fingerprint(self) -> str:
        """Hash of the verification set with programs and slots numbered: equal for two programs of one
        template.
        """
        return fingerprint(self.closure.rows)


def fingerprint(rows: Sequence[Row]) -> str:
    """SHA-256 of rows in canonical names (programs and slots in order of first use)."""
    programs: dict[str, str] = {}
    slots = {"": "", COPY: COPY}
    lines = []
    for row in rows:
        words = [programs.setdefault(row.program, f"F{len(programs)}")]
        for seen, action in row.steps:
            verb, _, called = action.key.partition(" ")
            if verb in ("call", "tail"):
                verb += " " + programs.setdefault(called, f"F{len(programs)}")
            else:
                verb = action.key
            slot = slots.setdefault(action.slot, f"P{len(slots) - 2}")
            words.append(f"{seen} {verb} {slot} {' '.join(action.operands)}")
        lines.append("|".join(words))
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def trace(program: Program, examples: Iterable[Example]) -> Traces:
    """Run an ordinary program on examples and log its system calls (claims 4 and 6).

    Args:
        program: a plain Python function over pointers.
        examples: each makes the pointers of one execution on fresh tapes.

    Returns:
        the logs, for `parameterize`.

    Raises:
        NpiError: no example; control that depends on an unbounded value; a value or pointer that crosses
            calls.
    """
    linker, examples = Linker(program), tuple(examples)
    if not examples:
        raise NpiError(f"{program.__name__} has no example to run on: give at least one")
    return _record(linker, examples, linker.digest())


def _record(linker: Linker, examples: tuple[Example, ...], digest: str) -> Traces:
    while True:
        try:
            slots = Slots()
            executions = tuple(execute(linker, slots, e, {}) for e in examples)
            return Traces(
                linker=linker,
                slots=slots,
                examples=examples,
                executions=executions,
                digest=digest,
                given=len(examples),
            )
        except Reconsider:
            continue  # once for each function that returns in more than one way


def execute(linker: Linker, slots: Slots, example: Example, answers: Mapping[str, Answer]) -> tuple[Row, ...]:
    recorder = Recorder(linker, slots, answers)
    recorder.run(fresh(example()))
    return tuple(recorder.rows)


def fresh(heads: Iterable[Head]) -> tuple[Head, ...]:
    """The same pointers on copies of their tapes: an example may hand out the same ones each time."""
    copies: dict[int, Tape] = {}
    out = []
    for head in tuple(heads):
        if not isinstance(head, Head):
            raise NpiError(f"an example gives {head!r}; a pointer is made by Tape(…).at()")
        tape = copies.setdefault(id(head.tape), Tape(head.tape.cells, domain=head.tape.domain))
        out.append(tape.at(head.position))
    return tuple(out)


def retrace(template: Template, answers: Mapping[str, Answer]) -> tuple[Row, ...]:
    """The training rows with the given primitives in the slots: what the controller will really meet.

    A primitive that errs on what it was not trained on may lead an example out of the other primitives' domains; of that
    example the program's own trace is taken.
    """
    traces = template.traces
    found: dict[Row, None] = {}
    for example, own in zip(traces.examples, traces.executions):
        try:
            rows = execute(traces.linker, traces.slots, example, answers)
        except NpiError:
            rows = own
        found.update(dict.fromkeys(rows))
    return tuple(found)


def parameterize(traces: Traces) -> Template:
    """Replace the data by primitive ids (claims 2 and 3) and close the template over all observations.

    Ways through the program that the examples do not show are looked for: examples that take them are added
    to the traces, and ways that no values can take are set apart.

    Args:
        traces: from `trace`.

    Returns:
        the template, whose rows the controller learns and whose sites the primitives learn.

    Raises:
        NpiError: traces contradict each other; a site of unknown domain that no example reaches; a call that
            never ends.
    """
    check_consistent(traces.rows)
    linker, slots = traces.linker, traces.slots
    try:
        closure = close(linker, slots)
    except Reconsider:
        return parameterize(_record(linker, traces.examples, traces.digest))
    recorded = tuple(tuple(tailed(row, linker.tails) for row in rows) for rows in traces.executions)
    traces = replace(traces, executions=recorded)
    check_consistent(traces.rows + closure.rows)
    arities = {p: linker.arity(p) for p in dict.fromkeys([linker.name, *(r.program for r in closure.rows)])}
    # What can occur if all pointers are on one tape can occur anyhow.
    together = [0] * arities[linker.name]
    flow = Flow(arities, closure.rows, slots.by_name(), together, standing(traces.examples))
    closure = closure.without(flow.impossible())
    shown = set(traces.rows)
    more = find_examples(linker, slots, traces.examples, [r for r in closure.rows if r not in shown])
    traces = replace(
        traces,
        examples=(*traces.examples, *(example for example, _ in more)),
        executions=(*traces.executions, *(rows for _, rows in more)),
    )
    slots.declare(flow.inputs(), flow.caps)
    return Template(
        name=linker.name,
        arities=arities,
        rows=traces.rows,
        closure=closure,
        sites=slots.by_name(),
        traces=traces,
    )
