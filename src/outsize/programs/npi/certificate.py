"""What is proved of a trained template, and what is not: the record of a verification.

A certificate names, by hash, everything that it stands for: the program with its expressions, domains and data functions,
the controller with its vocabulary, the primitives with their domains and answers. A file of one is a claim. It can be
compared with a model, and `outsize npi verify --against` makes it anew and compares every field; it proves nothing.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, NoReturn

from ...errors import NpiError
from .controller import ControllerCheck
from .fitting import PrimitiveCheck
from .guard import Guard
from .template import Template
from .termination import Termination
from .trained import Trained

__all__ = ["REQUIRED_MARGIN", "Certificate", "read_certificate"]

#: Least margin of a certified decision or answer. Logits of one row alone and among 2,400 differ by less than 6e-6.
REQUIRED_MARGIN = 1e-2
#: A controller's margin over the float32 noise that was measured on the very same decisions.
REQUIRED_OVER_NOISE = 100.0
FORMAT = 3
#: How far floats of a certificate may be off when it is made again on another machine.
_TOLERANCE = 0.2


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """See the module.

    Attributes:
        format: version of this layout.
        template: name.
        holds: whether the model was proved to equal the program on inputs of every length, and every trial agreed.
        program: hash of the program: its verification set, expressions, domains and data functions.
        model: hash of the whole model.
        controller: hash of weights and vocabulary.
        functions, sequences, sequences_before, decisions: sizes; `sequences` is the minimised verification set,
            `sequences_before` all observation sequences.
        witnesses: fewest training examples, found greedily, whose executions show the whole set.
        traces: executions that the controller was trained on.
        check: the controller on the set.
        tables_agree: whether the compiled tables answer the set as the network does.
        primitives: hash and check by slot.
        termination: measures, or the cycles for which none was found.
        layouts: which of the entry's pointers share a tape, in the arrangements for which termination was proved; None:
            any. `run` checks it.
        guard: runs of model and program side by side.
        proved, not_proved: in words.
        made_here: `verify` made it in this process; False for one that was read from a file.
    """

    format: int
    template: str
    holds: bool
    program: str
    model: str
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
    layouts: tuple[tuple[int, ...], ...] | None
    guard: Guard
    proved: tuple[str, ...]
    not_proved: tuple[str, ...]
    made_here: bool = field(default=False, repr=False, compare=False)

    def _record(self) -> dict[str, Any]:
        record = asdict(self)
        del record["made_here"]
        return record

    def to_json(self) -> str:
        """The certificate as JSON text with its digest; `read_certificate` reads it back."""
        record = self._record()
        return json.dumps({**record, "digest": _digest(record)}, indent=2, sort_keys=True, allow_nan=False)

    @property
    def controlled(self) -> bool:
        """Whether every decision of the controller is the program's, by a margin that no rounding reaches."""
        c = self.check
        enough = c.least_margin >= max(REQUIRED_MARGIN, REQUIRED_OVER_NOISE * c.noise)
        return c.states > 0 and c.errors == 0 and enough and self.tables_agree

    @property
    def exact(self) -> bool:
        """Whether every primitive was found right on its whole domain."""
        return all(map(right, self.primitives.values()))

    @property
    def answers(self) -> bool:
        """Whether the model answers wherever the program does, but for results that no finite domain would hold."""
        return not any(p["avoidable"] for p in self.primitives.values())

    @property
    def total(self) -> bool:
        """Whether no input of the tapes' domains stops the model for want of an answer."""
        return not any(p["stops"] for p in self.primitives.values())

    @property
    def bounded(self) -> bool:
        """Whether a bound on the error of one call is known, for inputs drawn as those of the examples."""
        errors = [p for p in self.primitives.values() if not right(p)]
        safe = self.controlled and self.termination.proved
        sampled = all(p["kind"] == "statistical" for p in errors)
        return safe and sampled and sum(float(p["error_bound"]) for p in errors) < 1

    @property
    def ends(self) -> bool:
        """Whether every execution of this model that stays on its tapes is proved to end: one on any values that its
        primitives answer."""
        return self.holds and not any(p["wider"] for p in self.primitives.values())

    def match(self, trained: Trained, template: Template | None = None) -> None:
        """Raise unless this certificate is about this model and, if given, this program.

        Args:
            trained: the model.
            template: the program; None compares the model alone.

        Raises:
            NpiError: naming what differs.
        """
        now = {"controller": trained.controller.fingerprint()}
        then = {"controller": self.controller}
        if template is not None:
            now["program"], then["program"] = template.identity(), self.program
        now |= {f"primitive {s}": p.fingerprint() for s, p in trained.primitives.items()}
        then |= {f"primitive {s}": p["weights"] for s, p in self.primitives.items()}
        different = sorted(k for k in now.keys() | then.keys() if now.get(k) != then.get(k))
        if not different and trained.fingerprint() != self.model:
            different = ["name or pointers"]
        if different:
            raise NpiError(
                f"the certificate of {self.template} is not about this model: {', '.join(different)} changed since; run "
                f"`outsize npi verify {trained.name}` for a new one"
            )

    def repeats(self, other: Certificate) -> None:
        """Raise unless another certificate, made anew, says the same.

        Args:
            other: the one made anew.

        Raises:
            NpiError: naming the fields that differ.
        """
        mine, theirs = (json.loads(json.dumps(c._record())) for c in (self, other))
        if different := sorted(k for k in mine if not _alike(mine[k], theirs[k])):
            raise NpiError(
                f"the certificate of {self.template} does not repeat: {', '.join(different)} differ from what is found"
            )


def right(primitive: Mapping[str, Any]) -> bool:
    """Whether a primitive's check says that it is right everywhere."""
    everywhere = primitive["kind"] in ("exhaustive", "program") and primitive["errors"] == 0
    return bool(everywhere and primitive["least_margin"] >= REQUIRED_MARGIN)


def _alike(a: Any, b: Any) -> bool:
    if isinstance(a, float) and isinstance(b, float):
        return math.isclose(a, b, rel_tol=_TOLERANCE, abs_tol=1e-4)
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_alike(a[k], b[k]) for k in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(_alike(x, y) for x, y in zip(a, b))
    same: bool = type(a) is type(b) and a == b
    return same


def _digest(record: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def read_certificate(path: Path) -> Certificate:
    """Read a certificate file.

    Args:
        path: what `Certificate.to_json` was written to.

    Returns:
        the claim; it proves nothing before `repeats`.

    Raises:
        NpiError: missing, damaged, edited, or of another format.
    """
    try:
        raw = json.loads(path.read_text(), parse_constant=_no_number)
        if raw["format"] != FORMAT:
            raise NpiError(f"{path} is a certificate of format {raw['format']}, this version reads {FORMAT}")
        if raw.pop("digest") != _digest(raw):
            raise ValueError("it was edited since it was written")
        if set(raw) != {f.name for f in fields(Certificate)} - {"made_here"}:
            raise KeyError("fields are missing or unknown")
        return _certificate(raw)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise NpiError(
            f"{path} is not a certificate ({type(error).__name__}: {error}); run `outsize npi verify`"
        ) from error


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number")


#: A primitive's fields beside its check: hash; inputs of its domain without an answer; whether it answers others than
#: the program's; which of those without an answer can occur, in words; whether a wider domain or a test would do.
_OWN = {"weights": str, "refused": int, "wider": bool, "stops": str, "avoidable": bool}


def _certificate(raw: dict[str, Any]) -> Certificate:
    raw["check"] = _typed(ControllerCheck, raw["check"])
    raw["termination"] = _typed(Termination, raw["termination"])
    raw["guard"] = _typed(Guard, raw["guard"])
    for primitive in raw["primitives"].values():
        known = {k: v for k, v in primitive.items() if k not in _OWN}
        _typed(PrimitiveCheck, known)
        if any(type(primitive[k]) is not kind for k, kind in _OWN.items()):
            raise TypeError("a primitive's fields")
    layouts = raw["layouts"]
    raw["layouts"] = None if layouts is None else tuple(tuple(x) for x in layouts)
    certificate: Certificate = _typed(Certificate, raw)
    if certificate.holds and not (
        certificate.controlled
        and certificate.exact
        and certificate.termination.proved
        and certificate.answers
    ):
        raise ValueError("it claims to hold, and what it says was found does not")
    return certificate


_PLAIN = {"int": int, "str": str, "bool": bool, "float": float}


def _typed(kind: Any, raw: Mapping[str, Any]) -> Any:
    """A dataclass of plain fields, each of just its type; lists become tuples."""
    values = dict(raw)
    for f in fields(kind):
        if f.name not in values:
            continue
        wanted = _PLAIN.get(str(f.type))
        if wanted is not None and type(values[f.name]) is not wanted:
            raise TypeError(f"{f.name} is {values[f.name]!r}, not of type {f.type}")
        if isinstance(values[f.name], list):
            values[f.name] = tuple(values[f.name])
    return kind(**values)
