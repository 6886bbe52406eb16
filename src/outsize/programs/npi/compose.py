"""A template with a program in one of its slots: the reference of a model whose slot a program fills.

The rows stay, since no row holds a datum. What the slot answers is another matter: values that can occur, and ways that
no values can take, are found anew. Tapes that only this slot reads and writes lose their domains, for a program answers
any integer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from ...errors import NpiError
from .calls import tailed
from .closure import Closure, check_consistent
from .examples import standing
from .filler import Filler
from .flow import Flow
from .slots import Reference
from .tape import Head, Tape
from .template import Example, Template, execute, parameterize, trace

__all__ = ["compose"]


def compose(template: Template, slot: str, filler: Filler) -> Template:
    """The same higher-order function with a program in one of its slots.

    Args:
        template: the outer program's.
        slot: which of its primitives.
        filler: the program, from `as_filler` or `filler_of`.

    Returns:
        A template to verify a model against whose slot the program's model fills (`swap`).

    Raises:
        NpiError: there is no such slot, it has another number of inputs, or its answers have to stay within a domain.
    """
    if slot not in template.sites:
        raise NpiError(
            f"{template.name} has no primitive {slot!r}; it has {', '.join(sorted(template.sites)) or 'none'}"
        )
    if template.sites[slot].arity != filler.arity:
        raise NpiError(
            f"primitive {slot} of {template.name} takes {template.sites[slot].arity} inputs, {filler.name} {filler.arity}"
        )
    origin = template.origin or template
    return _refilled(origin, {**template.references, slot: filler})


def _refilled(origin: Template, references: dict[str, Reference]) -> Template:
    # Sites are changed in place, so these are others than the given template's; they get the same names, for they are met
    # in the same order: in the given examples, then while the program's text is explored.
    given = origin.traces.examples[: origin.traces.given]
    base = parameterize(trace(origin.traces.linker.entry, given))
    linker, slots = base.traces.linker, base.traces.slots
    open_ = _without_domains(base, references)
    examples = tuple(_freed(example, open_) for example in base.traces.examples)
    for slot, reference in references.items():
        base.sites[slot].refill(reference)
    executions = tuple(
        tuple(tailed(row, linker.tails) for row in execute(linker, slots, example, references))
        for example in examples
    )
    rows = base.closure.rows + base.closure.impossible
    flow = Flow(base.arities, rows, base.sites, [0] * base.arities[base.name], standing(examples))
    if capped := sorted(references.keys() & flow.caps.keys()):
        raise NpiError(
            f"what {capped[0]} answers in {base.name} has to stay within a domain, which nobody proves of a program: "
            "fill slots that are tested, or whose answers go to tapes that no other primitive reads or writes"
        )
    closure = Closure(rows=rows, prefixes=base.closure.prefixes).without(flow.impossible())
    slots.declare(flow.inputs(), flow.caps)
    traces = replace(base.traces, examples=examples, executions=executions)
    check_consistent(traces.rows + closure.rows)
    return replace(
        base, rows=traces.rows, closure=closure, traces=traces, references=references, origin=origin
    )


def _without_domains(template: Template, slots: dict[str, Reference]) -> frozenset[int]:
    """The entry's pointers whose tapes only these slots read and write, and whose values go to no other tape."""
    kept: set[int] = set()
    moved: list[tuple[frozenset[int], frozenset[int]]] = []
    for path in template.flow([0] * template.arities[template.name]).paths:
        moved += [(source, target) for source, target in path.moved if source is not None]
        for use in path.uses:
            if use.slot not in slots:
                kept.update(use.written or (), *(tapes or () for tapes in use.read_from))
    while more := {t for source, target in moved if target & kept for t in source} - kept:
        kept |= more
    return frozenset(range(template.arities[template.name])) - kept


def _freed(example: Example, pointers: frozenset[int]) -> Callable[[], Sequence[Head]]:
    """The example on tapes of its own, without a domain where all pointers of a tape are among these."""

    def make() -> Sequence[Head]:
        heads = tuple(example())
        kept = {id(h.tape) for i, h in enumerate(heads) if i not in pointers}
        tapes = {
            id(h.tape): Tape(h.tape.cells, domain=h.tape.domain if id(h.tape) in kept else None)
            for h in heads
        }
        return [tapes[id(h.tape)].at(h.position) for h in heads]

    return make
