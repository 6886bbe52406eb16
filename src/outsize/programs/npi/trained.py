"""Train, keep and run: the parts put together.

train(template)            primitives first, each on its own data; then the controller, on traces made with them
run(trained, executions)   the network, or the tables read off it, in numpy or in C
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

from ...errors import NpiError, NpiWarning
from .brains import NetworkBrain, PrimitiveCaller, TableBrain
from .calls import COPY, Action, Row
from .compiled import Compiled, can_compile
from .controller import Controller, ControllerSettings, train_controller
from .fitting import PrimitiveCheck, PrimitiveSettings, train_primitive
from .machine import UNPROVED_STEPS, Limits, Machine, Stats
from .primitive import Filling, Primitive
from .rounding import plain_arithmetic
from .sound import Registers, check_decisions
from .tables import Tables, compile_tables
from .tape import Head
from .template import Template, Vocabulary, retrace

if TYPE_CHECKING:
    from .certificate import Certificate

__all__ = ["Engine", "Trained", "layout_of", "run", "started", "train", "train_site"]

Engine = Literal["auto", "network", "tables", "native"]


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A controller and the primitives that fill its slots.

    Attributes:
        name: the template's name.
        controller: the LSTM.
        primitives: by slot, networks or certified programs.
        checks: what was found when they were trained.
        traces: how many executions the controller was trained on.
        pointers: how many pointers the entry takes.
        ends: fingerprint of the weights that a certificate proved to end on every input, or "".
        layouts: which of the entry's pointers share a tape, in the arrangements that this was proved for; None: any.
    """

    name: str
    controller: Controller
    primitives: Mapping[str, Filling]
    checks: Mapping[str, PrimitiveCheck]
    traces: int
    pointers: int
    ends: str = ""
    layouts: tuple[tuple[int, ...], ...] | None = None
    _made: dict[str, tuple[str, Any]] = field(default_factory=dict, repr=False, compare=False)

    def _keep(self, what: str, fingerprint: str, make: Callable[[], Any]) -> Any:
        """What was made of these very weights; made anew when they are others."""
        made = self._made.get(what)
        if made is None or made[0] != fingerprint:
            made = self._made[what] = (fingerprint, make())
        return made[1]

    @property
    def tables(self) -> Tables:
        """The controller's tables, read off at the first use of these weights."""
        found: Tables = self._keep(
            "tables", self.controller.fingerprint(), lambda: compile_tables(self.controller)
        )
        return found

    @property
    def registers(self) -> Registers:
        """What its calls need, checked at the first use.

        Raises:
            NpiError: a decision that cannot be carried out.
        """
        slots = {slot: len(p.domains) for slot, p in self.primitives.items()}
        key = f"{self.controller.fingerprint()} {self.pointers} {sorted(slots.items())}"
        found: Registers = self._keep(
            "registers", key, lambda: check_decisions(self.tables, self.pointers, slots)
        )
        return found

    @property
    def compiled(self) -> Compiled:
        """Tables and primitives laid out for the C machine, at the first use of these weights."""
        found: Compiled = self._keep(
            "compiled", self.fingerprint(), lambda: Compiled(self.tables, self.registers, self.primitives)
        )
        return found

    @property
    def fastest(self) -> Engine:
        """What `auto` takes: `native` where the C machine can run this, else `tables`."""
        return "native" if can_compile(self.primitives) else "tables"

    def callers(self) -> dict[str, PrimitiveCaller]:
        """What the machine calls, for one run."""
        return {slot: PrimitiveCaller(model) for slot, model in self.primitives.items()}

    def fingerprint(self) -> str:
        """SHA-256 of everything that a run depends on: controller, primitives, slots, the entry's pointers."""
        parts = [
            f"{self.name} {self.pointers}",
            self.controller.fingerprint(),
            *(f"{s} {p.fingerprint()}" for s, p in sorted(self.primitives.items())),
        ]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def certified(self, certificate: Certificate) -> Trained:
        """The same, known to end where the certificate proves it: `run` then needs no step limit.

        Args:
            certificate: from `verify`, made in this process.

        Returns:
            a model with the same weights.

        Raises:
            NpiError: the certificate is about other weights, or was read from a file, which anybody can write.
        """
        certificate.match(self)
        if not certificate.made_here:
            raise NpiError(
                f"a certificate of {self.name} that was read from a file proves nothing: make it with npi.verify"
            )
        ends = self.fingerprint() if certificate.ends else ""
        return replace(self, ends=ends, layouts=certificate.layouts, _made=self._made)

    def fill(self, slot: str, model: Filling, check: PrimitiveCheck) -> Trained:
        """The same controller with another primitive in a slot.

        Args:
            slot: which of its primitives.
            model: what answers there.
            check: what was found of it.

        Returns:
            another model, not certified.

        Raises:
            NpiError: there is no such slot.
        """
        if slot not in self.primitives:
            raise NpiError(
                f"{self.name} has no primitive {slot!r}; it has {', '.join(sorted(self.primitives))}"
            )
        made = {"tables": self._made["tables"]} if "tables" in self._made else {}
        return replace(
            self,
            primitives={**self.primitives, slot: model},
            checks={**self.checks, slot: check},
            ends="",
            _made=made,
        )


def train_site(
    template: Template, slot: str, settings: PrimitiveSettings | None = None, seed: int = 0
) -> tuple[Primitive, PrimitiveCheck]:
    """Train the primitive of one site on its own data set (claim 10)."""
    settings, site = settings or PrimitiveSettings(), template.sites[slot]
    data, whole = site.pairs(settings.domain_limit)
    domains = [None if d is None else tuple(sorted(d)) for d in site.domains]
    return train_primitive(slot, data, domains=domains, exhaustive=whole, settings=settings, seed=seed)


def train(
    template: Template,
    *,
    seed: int = 0,
    controller: ControllerSettings | None = None,
    primitives: PrimitiveSettings | None = None,
    reuse: Trained | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> Trained:
    """Train a template's primitives and its controller.

    Args:
        template: from `parameterize`.
        seed: of all weights.
        controller, primitives: settings.
        reuse: a trained template with the same higher-order function: its controller is taken as it is, and
            only the primitives are trained.
        tell: told of each stage.

    Returns:
        the model; `verify` says whether it is right.

    Raises:
        NpiError: a primitive or the controller cannot be learned; programs fill slots of the template.
    """
    if template.references:
        raise NpiError(
            f"programs fill {', '.join(sorted(template.references))} of {template.name}: train the template that they "
            "were put into, then `swap` them into its model"
        )
    models, checks = {}, {}
    for slot in template.sites:
        tell(f"primitive {slot}")
        models[slot], checks[slot] = train_site(template, slot, primitives, seed)
    tell("traces")
    # What no example shows is learned from the exploration of the program's text.
    rows = tuple(dict.fromkeys(retrace(template, models) + template.explored))
    tell("controller")
    if reuse is None:
        learned = train_controller(template.vocabulary, rows, controller, seed)
    else:
        learned = adopt(reuse.controller, template.closure.rows)
    return Trained(
        name=template.name,
        controller=learned,
        primitives=models,
        checks=checks,
        traces=len(template.traces.examples),
        pointers=template.arities[template.name],
    )


def adopt(controller: Controller, rows: Sequence[Row]) -> Controller:
    """The same weights under the names of another program, if that program is the same higher-order function.

    Names are paired by walking the controller's decisions along the other program's rows; `certify` then checks
    them all.

    Raises:
        NpiError: the controller acts otherwise on these rows.
    """
    tables = compile_tables(controller)
    names: dict[str, str] = {"": "", COPY: COPY}
    programs: dict[str, str] = {rows[0].program: controller.vocabulary.programs[0]}
    for row in rows:
        mine = Row(programs.get(row.program, row.program), row.steps)
        if mine.program not in tables.programs:
            break
        for (_, theirs), ours in zip(row.steps, tables.walk(mine)):
            names.setdefault(theirs.slot, ours.slot)
            verb, _, called = theirs.key.partition(" ")
            if verb in ("call", "tail"):
                programs.setdefault(called, ours.key.partition(" ")[2])
    v = controller.vocabulary
    back, slots = {old: new for new, old in programs.items()}, {old: new for new, old in names.items()}
    keys = [k.partition(" ") for k in v.keys]
    try:
        vocabulary = Vocabulary(
            tuple(back[p] for p in v.programs),
            tuple(f"{a} {back[b]}" if a in ("call", "tail") else a + c + b for a, c, b in keys),
            v.tuples,
            tuple(slots[s] for s in v.slots),
        )
    except KeyError as error:
        raise NpiError(
            f"the controller is of another higher-order function: nothing corresponds to {error}"
        ) from error
    adopted = Controller(vocabulary, hidden=controller.hidden, embedding=controller.embedding)
    adopted.load_state_dict(controller.state_dict())
    return adopted


def run(
    trained: Trained,
    executions: Sequence[Sequence[Head]],
    *,
    engine: Engine = "auto",
    limits: Limits | None = None,
    strict: float | None = None,
    hear: Callable[[Action, int, int], None] | None = None,
) -> Stats:
    """Run a trained template on pointers; tapes and positions change in place.

    Args:
        trained: controller and primitives.
        executions: the entry's pointers, for each input of the batch.
        engine: `network` asks the LSTM at every step; `tables` walks the automaton that was read off it, and
            calls the primitives' networks; `native` does so in C, with the primitives tabulated. `auto` is the
            fastest of the last two that can run this, or the network where `strict` or `hear` needs it.
        limits: steps and depth; a model that is not proved to end is stopped after `UNPROVED_STEPS`.
        strict: least margin of a decision (network only).
        hear: told of each system call (not native).

    Returns:
        what the batch took.

    Raises:
        NpiError: see `Machine.run`; a decision that cannot be carried out (an untrained controller).

    Warns:
        NpiWarning: a primitive may err.
    """
    if engine == "auto":
        engine = trained.fastest if strict is None and hear is None else "network"
    _check_run(trained, executions, engine, strict, hear)
    _ = trained.registers  # no engine runs decisions that cannot be carried out
    limits = limits or Limits()
    if limits.steps is None and not _ends(trained, executions):
        limits = replace(limits, steps=UNPROVED_STEPS[engine])
    with plain_arithmetic():
        if engine == "native":
            return trained.compiled.run(executions, limits)
        brain = (
            NetworkBrain(trained.controller, strict) if engine == "network" else TableBrain(trained.tables)
        )
        return Machine(brain, trained.callers(), limits, hear).run(executions)


def started(trained: Trained) -> Callable[[Sequence[Sequence[Head]]], None]:
    """What runs a model again and again while its weights stay as they are: they are looked at once.

    Args:
        trained: a certified model. Pointers have to share tapes as its proof says.
    """
    _ = trained.registers
    engine = trained.fastest
    limits = Limits(steps=None if trained.ends == trained.fingerprint() else UNPROVED_STEPS[engine])
    if engine == "native":
        compiled = trained.compiled
        return lambda executions: _none(compiled.run(executions, limits))
    machine = Machine(TableBrain(trained.tables), trained.callers(), limits)
    return lambda executions: _none(machine.run(executions))


def _none(_: Stats) -> None:
    """The steps of an inner program are not those of the outer one."""


def layout_of(heads: Sequence[Head]) -> tuple[int, ...]:
    """For each pointer, the first one that is on the same tape."""
    tapes = [id(head.tape) for head in heads]
    return tuple(tapes.index(t) for t in tapes)


def _ends(trained: Trained, executions: Sequence[Sequence[Head]]) -> bool:
    """Whether these executions are proved to end: the weights are, and the pointers share tapes as the proof assumed."""
    if trained.ends != trained.fingerprint():
        return False
    return trained.layouts is None or all(layout_of(heads) in trained.layouts for heads in executions)


def _check_run(
    trained: Trained, executions: Sequence[Sequence[Head]], engine: Engine, strict: float | None, hear: object
) -> None:
    if engine not in get_args(Engine):
        raise NpiError(f"there is no engine {engine!r}; there are {', '.join(get_args(Engine))}")
    if strict is not None and engine != "network":
        raise NpiError(
            f"strict looks at the network's margins, engine {engine} has none: use engine='network'"
        )
    if hear is not None and engine == "native":
        raise NpiError("engine='native' does not call hear=: use engine='network' or 'tables'")
    owner: dict[int, int] = {}
    for b, heads in enumerate(executions):
        if any(owner.setdefault(id(h.tape), b) != b for h in heads):
            raise NpiError(
                f"execution {b} is on a tape of execution {next(owner[id(h.tape)] for h in heads)}: executions of a "
                "batch run side by side, so each needs tapes of its own; run them one after the other"
            )
        if len(heads) != trained.pointers or len({id(h) for h in heads}) < len(heads):
            raise NpiError(
                f"{trained.name} takes {trained.pointers} different pointers, execution {b} has {len({*map(id, heads)})}"
            )
    erring = {slot: c.error_bound for slot, c in trained.checks.items() if c.error_bound > 0}
    if erring:
        slot = max(erring, key=erring.__getitem__)
        warnings.warn(
            f"primitive {slot} may answer wrongly: e <= {erring[slot]:.3g} per call, so m calls are right with "
            f"probability >= (1 - {erring[slot]:.3g})^m",
            NpiWarning,
            stacklevel=3,
        )
