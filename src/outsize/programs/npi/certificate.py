"""What is proved of a trained template, and what is not.

Three facts, each checked on a finite set, together say that the model equals its reference program on inputs of every
length: the controller answers every row of the verification set as the program does; each primitive answers its whole
domain as the program's own expression does; every cycle of calls makes some measure smaller. The certificate holds the
hashes of what was checked, so it stands for these weights and this program only.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch

from ...errors import NpiError
from .calls import Row
from .controller import ControllerCheck, check_controller
from .primitive import PrimitiveCheck, check_primitive
from .slots import UNDEFINED, Site
from .template import Template
from .termination import Termination, prove_termination
from .trained import Trained

__all__ = ["REQUIRED_MARGIN", "Certificate", "certify", "read_certificate"]

#: Least margin of a certified decision. Logits of one row alone and among 2,400 differ by less than 6e-6.
REQUIRED_MARGIN = 1e-2
_FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """See the module.

    Attributes:
        format: version of this layout.
        template: name.
        holds: whether everything below was found as it must be.
        program: hash of the reference's verification set.
        controller: hash of the weights.
        functions, sequences, sequences_before, decisions: sizes; `sequences` is the minimised verification set,
            `sequences_before` all observation sequences.
        witnesses: fewest training examples, found greedily, whose executions show the whole set.
        traces: executions that the controller was trained on.
        check: the controller on the set.
        tables_agree: whether the compiled tables answer the set as the network does.
        primitives: hash and check by slot.
        termination: measures, or the cycles for which none was found.
        proved, not_proved: in words.
    """

    format: int
    template: str
    holds: bool
    program: str
    controller: str
    functions: int
    sequences: int
    sequences_before: int
    decisions: int
    witnesses: int
    traces: int
    check: ControllerCheck
    tables_agree: bool
    primitives: Mapping[str, Mapping[str, Any]]
    termination: Termination
    proved: tuple[str, ...]
    not_proved: tuple[str, ...]

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2, sort_keys=True)

    @property
    def ends(self) -> bool:
        """Whether every execution of these weights is proved to end: all of the certificate but a bound on errors."""
        exact = all(p["kind"] == "exhaustive" and not p["errors"] for p in self.primitives.values())
        return self.holds and exact

    def match(self, trained: Trained, template: Template | None = None) -> None:
        """Raise unless this certificate is about these weights and, if given, this program.

        Raises:
            NpiError: naming what differs.
        """
        now = {"controller": trained.controller.fingerprint()}
        then = {"controller": self.controller}
        if template is not None:
            now["program"], then["program"] = template.fingerprint(), self.program
        now |= {f"primitive {s}": p.fingerprint() for s, p in trained.primitives.items()}
        then |= {f"primitive {s}": p["weights"] for s, p in self.primitives.items()}
        if different := sorted(k for k in now.keys() | then.keys() if now.get(k) != then.get(k)):
            raise NpiError(
                f"the certificate of {self.template} is not about this model: {', '.join(different)} changed since; run "
                f"`outsize npi verify {trained.name}` for a new one"
            )


def read_certificate(path: Path) -> Certificate:
    """Read a certificate file.

    Raises:
        NpiError: missing, damaged, or of another format.
    """
    try:
        raw = json.loads(path.read_text())
        if raw["format"] != _FORMAT:
            raise NpiError(f"{path} is a certificate of format {raw['format']}, this version reads {_FORMAT}")
        raw["check"] = ControllerCheck(**raw["check"])
        raw["termination"] = Termination(**raw["termination"])
        if set(raw) != {f.name for f in fields(Certificate)}:
            raise KeyError("fields are missing or unknown")
        return Certificate(**raw)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise NpiError(
            f"{path} is not a certificate ({type(error).__name__}: {error}); run `outsize npi verify`"
        ) from error


def certify(template: Template, trained: Trained) -> Certificate:
    """Check everything and write down what follows.

    Args:
        template: the reference's, from `parameterize`.
        trained: what is to be certified.
    """
    rows = template.closure.rows
    check = check_controller(trained.controller, rows)
    agree = (
        all(trained.tables.walk(row) == [s.action for s in row.steps] for row in rows)
        if not check.errors
        else False
    )
    primitives = {slot: _primitive(template.sites.get(slot), trained, slot) for slot in trained.primitives}
    ends = _ends(template)
    exact = all(p["kind"] == "exhaustive" and p["errors"] == 0 for p in primitives.values())
    safe = check.errors == 0 and check.least_margin >= REQUIRED_MARGIN
    bounded = _error(primitives) < 1 and not _wrong(primitives)
    proved, not_proved = _words(template, safe, exact, ends, primitives)
    return Certificate(
        format=_FORMAT,
        template=trained.name,
        holds=safe and agree and ends.proved and (exact or bounded),
        program=template.fingerprint(),
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
        proved=proved,
        not_proved=not_proved,
    )


def _error(primitives: Mapping[str, Mapping[str, Any]]) -> float:
    """e of 1 - m * e, m calls of each primitive; from 1 on the bound says nothing even of one call."""
    return sum(float(p["error_bound"]) for p in primitives.values())


def _wrong(primitives: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether a primitive is known to answer some input of a finite domain wrongly."""
    return any(p["kind"] == "exhaustive" and p["errors"] for p in primitives.values())


def _primitive(site: Site | None, trained: Trained, slot: str) -> dict[str, Any]:
    """Check a primitive against the program's own expression, over the whole domain where there is one."""
    model, known, refused = trained.primitives[slot], trained.checks[slot], 0
    if site is not None and model.finite:
        data, whole = site.pairs(1 << 22)
        if whole and list(data) and set(map(tuple, model.every_input().tolist())) == set(data):
            known, refused = _exhaustive(model, data), list(data.values()).count(UNDEFINED)
    return {"weights": model.fingerprint(), "refused": refused, **asdict(known)}


def _exhaustive(model: Any, data: Mapping[tuple[int, ...], int]) -> PrimitiveCheck:
    inputs = torch.tensor(list(data), dtype=torch.int64).reshape(len(data), -1)
    answers = torch.tensor(list(data.values()))
    classes = torch.tensor(model.classes)
    rank = torch.searchsorted(classes, answers).clamp_(max=len(classes) - 1)
    unknown = int((classes[rank] != answers).sum())
    check = check_primitive(model, inputs, rank, torch.zeros(0), True)
    errors = check.errors + unknown
    return PrimitiveCheck(
        kind="exhaustive",
        inputs=len(data),
        errors=errors,
        least_margin=check.least_margin if check.least_margin != float("inf") else 1e9,
        error_bound=errors / len(data),
    )


def _ends(template: Template) -> Termination:
    truths, outputs = {}, {}
    for site in template.sites.values():
        data, whole = site.pairs(1 << 17)
        if whole and site.kind == "test" and site.arity == 1:
            truths[site.name] = tuple(frozenset(k[0] for k, v in data.items() if v == yes) for yes in (0, 1))
        if whole and site.kind == "write":
            outputs[site.name] = frozenset(data.values()) - {UNDEFINED}
    return prove_termination(
        template.arities,
        template.closure.rows,
        template.layout,
        truths,  # type: ignore[arg-type]
        outputs,
    )


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


def _words(
    template: Template,
    safe: bool,
    exact: bool,
    ends: Termination,
    primitives: Mapping[str, Mapping[str, Any]],
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    proved: list[str] = []
    open_: list[str] = []
    n = len(template.closure.rows)
    (proved if safe else open_).append(
        f"the controller acts as {template.name} on all {n} observation sequences"
    )
    (proved if ends.proved else open_).append("every execution that stays on its tapes ends")
    for slot, p in primitives.items():
        if p["kind"] == "exhaustive" and p["errors"] == 0:
            none = f"; {p['refused']} have no answer that fits, and are refused" if p["refused"] else ""
            proved.append(
                f"primitive {slot} equals the program's expression on all {p['inputs']} inputs{none}"
            )
        else:
            open_.append(
                f"primitive {slot} is exact: {p['errors']} of {p['inputs']} wrong, e <= {p['error_bound']:.3g} per call"
            )
    if safe and exact and ends.proved:
        proved.append(f"so the model equals {template.name} on inputs of every length")
    elif safe and ends.proved:
        bound = _error(primitives)
        calls = math.ceil(1 / bound) - 1
        open_.append(
            f"an execution that makes m calls of each primitive is right with probability >= 1 - m * {bound:.3g}, "
            + (
                f"which says nothing beyond {calls} calls"
                if calls
                else "which says nothing: train on more samples"
            )
        )
    open_.append(
        f"that {template.name} itself computes what its user wants: tests compare it with other means"
    )
    open_.append("inputs outside of the primitives' domains, which raise an error")
    open_ += [f"a call in which {template.name} itself fails: {path}" for path in template.closure.refused]
    return tuple(proved), tuple(open_)
