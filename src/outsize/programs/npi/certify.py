"""Verification: everything is found anew from the program and the weights.

Three facts, each checked on a finite set, together say that the model equals its reference program on inputs of every
length: the controller answers every row of the verification set as the program does; each primitive answers the whole
domain of its site as the program's own expression does; every cycle of calls makes some measure smaller. What a file
says of its own checks is not looked at. At last model and program run side by side (`guard.py`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import torch

from ...errors import NpiError
from .abstract import Layout
from .calls import Row
from .certificate import FORMAT, REQUIRED_MARGIN, Certificate, right
from .controller import check_controller
from .filler import ProgramPrimitive
from .fitting import PrimitiveCheck, check_primitive, error_bound, held_out
from .guard import Guard, Sample, compare
from .primitive import Filling, Primitive
from .refusals import Refusal, refusals
from .rounding import plain_arithmetic
from .slots import UNDEFINED, Site
from .template import Template
from .termination import Termination, prove_termination
from .trained import Trained

__all__ = ["certify", "ends_of"]

#: Inputs of a primitive that are enumerated.
_DOMAIN_LIMIT = 1 << 22

#: Answers by inputs.
Pairs = Mapping[tuple[int, ...], int]


def certify(template: Template, trained: Trained, *, sample: Sample | None = None) -> Certificate:
    """Check everything and write down what follows.

    Args:
        template: the reference's, from `parameterize`.
        trained: what is to be certified.
        sample: makes one valid random input for the trial at the end; without it the examples are varied.

    Returns:
        what was proved, and what not; `holds` is the verdict.

    Raises:
        NpiError: the model is not of this template, or the program changed since it was traced.
    """
    template.check_unchanged()
    _same_make(template, trained)
    with plain_arithmetic():
        rows = template.closure.rows
        check = check_controller(trained.controller, rows)
        agree = not check.errors and all(
            trained.tables.walk(row) == [s.action for s in row.steps] for row in rows
        )
        data = {slot: site.pairs(_DOMAIN_LIMIT) for slot, site in template.sites.items()}
        anyhow = template.flow([0] * template.arities[template.name])
        refused = refusals(
            anyhow, template.sites, {s: pairs for s, (pairs, _) in data.items()}, template.layouts
        )
        primitives = {
            slot: {
                **_primitive(template.sites[slot], trained.primitives[slot], *pairs),
                "wider": _wider(template.sites[slot], trained.primitives[slot]),
                **_stops(refused.get(slot)),
            }
            for slot, pairs in data.items()
        }
        ends, layouts = ends_of(template, data)
        guard = compare(template, trained, sample) if agree else _NONE
    template.check_unchanged()  # a data function that changes something was asked for its whole domain by now
    found = Certificate(
        format=FORMAT,
        template=trained.name,
        holds=False,
        program=template.identity(),
        model=trained.fingerprint(),
        controller=trained.controller.fingerprint(),
        functions=len(template.arities),
        sequences=len(rows),
        sequences_before=template.closure.prefixes,
        decisions=check.states,
        witnesses=_witnesses(template),
        traces=trained.traces,
        check=check,
        tables_agree=agree,
        primitives=primitives,
        termination=ends,
        layouts=layouts,
        guard=guard,
        proved=(),
        not_proved=(),
        made_here=True,
    )
    return _worded(template, found)


_NONE = Guard(examples=0, inputs=0, failures=0, engines=(), different=0, first="")


def _same_make(template: Template, trained: Trained) -> None:
    """Raise unless the model has the template's entry, pointers, slots and words."""
    sites, slots = template.sites, trained.primitives
    wrong = [
        ("name", template.name, trained.name),
        ("entry", template.name, trained.controller.vocabulary.programs[0]),
        ("pointers", template.arities[template.name], trained.pointers),
        ("primitives", sorted(sites), sorted(slots)),
        *(("inputs of " + s, sites[s].arity, len(slots[s].domains)) for s in sites.keys() & slots.keys()),
    ]
    for what, want, have in wrong:
        if want != have:
            raise NpiError(
                f"the model is not of template {template.name}: {what} {have}, the program has {want}"
            )
    for row in template.closure.rows:
        if row.program not in trained.controller.vocabulary.programs:
            raise NpiError(f"the model is not of template {template.name}: it knows no program {row.program}")
        for step in row.steps:
            trained.controller.vocabulary.encode(step.action)


def _primitive(site: Site, model: Filling, data: Pairs, whole: bool) -> dict[str, Any]:
    """A primitive against the program's own expression: the site's whole domain where there is one, else pairs of the
    examples that were not trained on. A program is held against the one at the site, by a proof of its own."""
    refused = list(data.values()).count(UNDEFINED)
    if isinstance(model, ProgramPrimitive):
        known = _program(site, model, data, whole)
    else:
        assert isinstance(model, Primitive)
        known = _exhaustive(model, data) if whole else _statistical(model, data)
    return {"weights": model.fingerprint(), "refused": refused, **asdict(known)}


def _program(site: Site, model: ProgramPrimitive, data: Pairs, whole: bool) -> PrimitiveCheck:
    """A program in a slot: the same as at the site, or else right on the site's whole domain. Either way its model must
    be proved to be the program, here and now, and to answer wherever the program does."""
    model.filler.check_unchanged()
    inner = certify(model.filler.template, model.filler.model, sample=model.filler.sample)
    margins = [inner.check.least_margin, *(p["least_margin"] for p in inner.primitives.values())]
    proved = inner.ends and inner.total and inner.layouts in (None, model.filler.layouts)
    margin = min(margins) if proved else 0.0
    answers = _asked(site, model, list(data))
    wrong = sum(have != want for have, want in zip(answers, data.values()))
    kind, bound = ("exhaustive", wrong / len(data)) if whole else ("statistical", 1.0)
    if model.filler.same_as(site.reference):
        wrong += not proved
        kind, bound = "program", float(wrong > 0)
    return PrimitiveCheck(kind=kind, inputs=len(data), errors=wrong, least_margin=margin, error_bound=bound)


def _asked(site: Site, model: ProgramPrimitive, inputs: list[tuple[int, ...]]) -> list[int]:
    """Answers of a program's model; where a batch fails, of its halves."""
    try:
        answers = model.filler.answers(inputs)
    except NpiError:
        half = len(inputs) // 2
        return (
            [UNDEFINED]
            if not half
            else _asked(site, model, inputs[:half]) + _asked(site, model, inputs[half:])
        )
    return [int(answer != 0) if site.kind == "test" else answer for answer in answers]


def _stops(refusal: Refusal | None) -> dict[str, Any]:
    """What the certificate says of inputs that can occur and have no answer."""
    if refusal is None:
        return {"stops": "", "avoidable": False}
    return {"stops": str(refusal), "avoidable": refusal.why != "grows"}


def _wider(site: Site, model: Filling) -> bool:
    """Whether the model answers inputs that the program's tapes do not hold: of these nothing is known."""
    if isinstance(model, ProgramPrimitive):
        return any(want is not None for want in site.domains)
    return any(
        have is not None and want is not None and not set(have) <= want
        for have, want in zip(model.domains, site.domains)
    )


def _contained(model: Primitive, inputs: torch.Tensor) -> torch.Tensor:
    """Which inputs the model has an answer to at all, bool [n]."""
    inside = torch.ones(len(inputs), dtype=torch.bool)
    for i, (domain, bounds) in enumerate(zip(model.domains, model.ranges)):
        if domain is not None:
            inside &= torch.isin(inputs[:, i], torch.tensor(domain, dtype=torch.int64))
        elif bounds is not None:
            inside &= (inputs[:, i] >= bounds[0]) & (inputs[:, i] <= bounds[1])
    return inside


def _checked(model: Primitive, data: Pairs, exhaustive: bool) -> PrimitiveCheck | None:
    """The model on all of `data`; None where it has no answer to some input or lacks an answer."""
    inputs = torch.tensor(list(data), dtype=torch.int64).reshape(len(data), -1)
    answers = torch.tensor(list(data.values()), dtype=torch.int64)
    classes = torch.tensor(model.classes, dtype=torch.int64)
    rank = torch.searchsorted(classes, answers).clamp_(max=len(classes) - 1)
    if not bool(_contained(model, inputs).all()) or not bool((classes[rank] == answers).all()):
        return None
    held = torch.arange(len(inputs))
    return check_primitive(model, inputs, rank, held, exhaustive)


def _exhaustive(model: Primitive, data: Pairs) -> PrimitiveCheck:
    found = _checked(model, data, True)
    if found is not None:
        return found
    wrong = sum(not _answers(model, inputs, want) for inputs, want in data.items())
    return PrimitiveCheck(
        kind="exhaustive", inputs=len(data), errors=wrong, least_margin=0.0, error_bound=wrong / len(data)
    )


def _answers(model: Primitive, inputs: tuple[int, ...], want: int) -> bool:
    row = torch.tensor([inputs], dtype=torch.int64).reshape(1, -1)
    return bool(_contained(model, row).all()) and int(model.raw(row)[0]) == want


def _statistical(model: Primitive, data: Pairs) -> PrimitiveCheck:
    """On the fifth that training leaves out. A model whose range is wider than the examples' says more than is known."""
    pairs = list(data.items())
    held = dict(pairs[i] for i in held_out(data).tolist())
    columns = list(zip(*data))
    wider = any(
        d is not None or r is None or r != (min(c), max(c))
        for d, r, c in zip(model.domains, model.ranges, columns)
        if d is None
    )
    found = None if wider else _checked(model, held, False)
    if found is not None:
        return found
    wrong = len(held) if wider else sum(not _answers(model, inputs, want) for inputs, want in held.items())
    bound = error_bound(wrong, len(held))
    return PrimitiveCheck(
        kind="statistical", inputs=len(held), errors=wrong, least_margin=0.0, error_bound=bound
    )


def ends_of(
    template: Template, data: Mapping[str, tuple[Pairs, bool]]
) -> tuple[Termination, tuple[tuple[int, ...], ...] | None]:
    """Termination for pointers that share tapes in any way, or else in the ways that the examples show.

    Args:
        template: the program's.
        data: each site's pairs, and whether they are its whole domain.

    Returns:
        What was found, and the arrangements of tapes that it is about (None: any).
    """
    truths, outputs = {}, {}
    for slot, (pairs, whole) in data.items():
        site = template.sites[slot]
        if whole and site.kind == "test" and site.arity == 1:
            truths[slot] = tuple(frozenset(k[0] for k, v in pairs.items() if v == yes) for yes in (0, 1))
        if whole and site.kind == "write":
            outputs[slot] = frozenset(pairs.values()) - {UNDEFINED}

    def prove(tapes: Sequence[int]) -> Termination:
        return prove_termination(
            template.arities,
            template.closure.rows,
            Layout(tapes=tuple(tapes)),
            truths,  # type: ignore[arg-type]
            outputs,
            template.flow(tapes),
        )

    anyhow = prove([0] * template.arities[template.name])
    if anyhow.proved:
        return anyhow, None
    layouts = template.layouts
    found = [prove(layout) for layout in layouts]
    worst = next((f for f in found if not f.proved), found[0])
    return replace(worst, assumes=("pointers of the entry share tapes as in the examples",)), layouts


def _witnesses(template: Template) -> int:
    """Examples that together show the whole set, chosen greedily."""
    missing: set[Row] = set(template.closure.rows) - set(template.uncovered)
    shown = [set(rows) for rows in template.traces.executions]
    count = 0
    while missing:
        best = max(shown, key=lambda rows: len(rows & missing))
        missing -= best
        count += 1
    return count


def _worded(template: Template, c: Certificate) -> Certificate:
    """The certificate with its conclusion: whether it holds, what is proved and what is not."""
    proved: list[str] = []
    open_: list[str] = []
    name, g = _called(template), c.guard
    fact = f"the controller acts as {name} on all {c.sequences} observation sequences"
    (proved if c.controlled else open_).append(fact)
    (proved if c.termination.proved else open_).append("every execution that stays on its tapes ends")
    for slot, p in c.primitives.items():
        (proved if right(p) else open_).append(_of_primitive(slot, p))
    alike = c.guard.different == 0 and c.guard.examples > 0
    stops = {slot: p["stops"] for slot, p in c.primitives.items() if p["stops"]}
    holds = c.controlled and c.exact and c.termination.proved and alike and c.answers
    if holds and stops:
        proved.append(
            f"so the model equals {name} on inputs of every length on which it is not stopped by an error, as where "
            + " or ".join(f"{slot} is given {text}" for slot, text in stops.items())
        )
    elif holds:
        proved.append(f"so the model equals {name} on inputs of every length")
    elif (
        c.controlled
        and c.termination.proved
        and any(p["kind"] == "statistical" for p in c.primitives.values())
    ):
        open_.append(_bound(c))
    if g.different:
        open_.insert(0, f"model and program agree: {g.different} trials differ, the first on {g.first}")
    for slot, text in stops.items():
        what = (
            "give that tape a wider domain, or test before: the model stops with an error there"
            if c.primitives[slot]["avoidable"]
            else "the model stops with an error there, and the program may go on"
        )
        open_.append(f"that it answers where {slot} is given {text}; {what}")
    open_.append(f"that {name} itself computes what its user wants: tests compare it with other means")
    open_.append("inputs outside of the primitives' domains, which raise an error")
    if wide := sorted(slot for slot, p in c.primitives.items() if p["wider"]):
        open_.append(
            f"what {', '.join(wide)} answers to inputs that the program's tapes do not hold, and that a run on them ends"
        )
    if c.termination.proved and c.layouts is not None:
        open_.append(
            "that it ends where pointers of the entry share tapes otherwise than in the examples (checked at run)"
        )
    open_.append(
        f"the trial is none: {g.examples} examples and {g.inputs} random inputs on {', '.join(g.engines) or 'none'}"
    )
    return Certificate(**{**vars(c), "holds": holds, "proved": tuple(proved), "not_proved": tuple(open_)})


def _called(template: Template) -> str:
    """The program's name, with those of the programs in its slots."""
    inside = [f"{reference.name} as {slot}" for slot, reference in sorted(template.references.items())]
    return f"{template.name} with {', '.join(inside)}" if inside else template.name


def _of_primitive(slot: str, p: Mapping[str, Any]) -> str:
    if right(p):
        none = f"; {p['refused']} have no answer that fits" if p["refused"] else ""
        none += ", and no execution asks for it" if p["refused"] and not p["stops"] else ""
        if p["kind"] == "program":
            return f"primitive {slot} is a program, and its model was proved to equal it on inputs of every length"
        return f"primitive {slot} equals the program's expression on all {p['inputs']} inputs{none}"
    if p["kind"] == "program":
        return (
            f"primitive {slot} is right: the program in it is not proved to be its model; verify that alone"
        )
    if p["kind"] == "exhaustive" and not p["errors"]:
        return f"primitive {slot} is exact: its margin {p['least_margin']:.3g} is below {REQUIRED_MARGIN}"
    return f"primitive {slot} is exact: {p['errors']} of {p['inputs']} wrong, e <= {p['error_bound']:.3g} per call"


def _bound(c: Certificate) -> str:
    bound = sum(float(p["error_bound"]) for p in c.primitives.values() if not right(p))
    calls = math.ceil(1 / bound) - 1
    says = f"which says nothing beyond {calls} calls" if calls else "which says nothing: train on more"
    return (
        f"an execution that makes m calls of each primitive is right with probability >= 1 - m * {bound:.3g} if its "
        f"inputs are drawn as those of the examples are, {says}; other inputs may be wrong every time"
    )
