"""A case in words: which module, which loop. Drawn from a seed, kept as JSON, made smaller piece by piece."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from . import pieces
from .forms import IMAGE, PIECES, ROWS, SEQUENCE, Form

#: Shapes of about 128 KiB, twice the size below which a storage is left alone where the budget allows it: usual ones, a
#: batch of one, dimensions of size one.
SHAPES = {
    ROWS: ((512, 64, 1), (512, 64, 1), (256, 128, 1), (1024, 32, 1)),
    SEQUENCE: ((16, 32, 64), (16, 32, 64), (4, 64, 128), (1, 512, 64), (512, 1, 64)),
    IMAGE: ((16, 8, 16), (16, 8, 16), (4, 16, 24), (1, 8, 64), (2, 64, 16)),
}
#: Pieces that come often: they make storages worth an action, or what is checked above all.
OFTEN = (
    "Linear",
    "Relu",
    "BatchNormRelu",
    "Convolution",
    "Dropout",
    "State",
    "Normalizer",
    "OtherNorm",
    "Queue",
)
OPTIMIZERS = ("sgd", "momentum", "adam", "adamw", "adamw fused", "adamw each", "rmsprop")
HOOKS = (
    "feature early", "feature late", "changes result", "changes argument", "module backward", "parameter",
    "parameter late", "accumulated", "result",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Loop:
    """How the module is trained; every default is the plainest."""

    steps: int = 3
    optimizer: str = "sgd"
    decay: float = 0.0
    clip: bool = False
    micro: int = 1
    calls: int = 1
    zero: str = "none"
    zero_at: str = "begin"
    backwards: int = 1
    used: str = "all"
    loss: str = "square"
    hooks: tuple[str, ...] = ()
    evaluate: bool = False
    strides: str = "contiguous"
    input_grad: bool = False
    autocast: bool = False
    freeze: bool = False
    short: bool = False
    touch: bool = False
    reload: bool = False


@dataclass(frozen=True, kw_only=True)
class Case:
    """A module and its loop.

    Attributes:
        pieces: name, own seed and whether there is a way past it, of each piece.
        heads: results of the module that are classes.
        given: how the arguments are handed over.
        result: in what the results come.
        extra: further results: a feature, whole numbers, an argument as it came.
    """

    seed: int
    kind: str
    shape: tuple[int, int, int]
    pieces: tuple[tuple[str, int, bool], ...]
    heads: int = 1
    given: str = "tensor"
    result: str = "tensor"
    extra: tuple[str, ...] = ()
    loop: Loop = Loop()

    @property
    def form(self) -> Form:
        batch, a, b = self.shape
        if self.kind == SEQUENCE:
            return Form(kind=self.kind, batch=batch, length=a, width=b)
        return Form(kind=self.kind, batch=batch, width=a, length=b)

    def json(self) -> str:
        return json.dumps(asdict(self))

    def __str__(self) -> str:
        plain, loop = Loop(), self.loop
        told = {f.name: v for f in fields(Loop) if (v := getattr(loop, f.name)) != getattr(plain, f.name)}
        names = " ".join(f"{name}:{seed}{'+' if past else ''}" for name, seed, past in self.pieces)
        form = f"{self.kind}{self.form.shape} heads {self.heads} {self.given}→{self.result} {' '.join(self.extra)}"
        return f"case {self.seed}: {form} | {names} | {told}"


def from_json(text: str) -> Case:
    """A case as `Case.json` wrote it."""

    def tuples(value: Any) -> Any:
        return tuple(map(tuples, value)) if isinstance(value, list) else value

    read = {k: tuples(v) for k, v in json.loads(text).items()}
    loop = Loop(**{k: tuples(v) for k, v in read.pop("loop").items()})
    return Case(loop=loop, **read)


def drawn(seed: int, *, most_pieces: int = 8) -> Case:
    """The case of a seed."""
    assert pieces.__all__
    draw = random.Random(seed)
    kind = draw.choice((ROWS, SEQUENCE, IMAGE))
    names = sorted(name for name, (kinds, _) in PIECES.items() if kind in kinds)
    often = [name for name in OFTEN if name in names]
    chosen = tuple(
        (draw.choice(often if draw.random() < 0.4 else names), draw.randrange(10_000), draw.random() < 0.3)
        for _ in range(draw.randint(3, most_pieces))
    )
    heads = draw.choice((1, 1, 1, 2, 3))
    extra = tuple(
        e for e in ("feature", "whole", "argument", "twice", "detached", "view") if draw.random() < 0.12
    )
    results = ("tuple", "list", "dict", "record", "nested")
    return Case(
        seed=seed,
        kind=kind,
        shape=draw.choice(SHAPES[kind]),
        pieces=chosen,
        heads=heads,
        given=draw.choice(("tensor", "tensor", "keyword", "dict", "tuple")),
        result=draw.choice(results) if heads > 1 or extra else draw.choice(("tensor", "tensor", *results)),
        extra=extra,
        loop=_loop(draw, heads),
    )


def _loop(draw: random.Random, heads: int) -> Loop:
    def rarely(share: float) -> bool:
        return draw.random() < share

    return Loop(
        steps=draw.choice((3, 3, 4)),
        optimizer=draw.choice(OPTIMIZERS),
        decay=draw.choice((0.0, 0.05)),
        clip=rarely(0.25),
        micro=2 if rarely(0.15) else 1,
        calls=2 if rarely(0.15) else 1,
        zero=draw.choice(("none", "none", "zeros")),
        zero_at=draw.choice(("begin", "begin", "before backward", "end")),
        backwards=2 if rarely(0.08) else 1,
        used=draw.choice(("all", "first", "by turns")) if heads > 1 else "all",
        loss=draw.choice(("square", "classes", "absolute", "sum")),
        hooks=tuple(h for h in HOOKS if rarely(0.05)),
        evaluate=rarely(0.1),
        strides=draw.choice(
            ("contiguous",) * 4 + ("transposed", "narrowed", "expanded", "channels_last", "reversed")
        ),
        input_grad=rarely(0.12),
        autocast=rarely(0.12),
        freeze=rarely(0.06),
        short=rarely(0.08),
        touch=rarely(0.04),
        reload=rarely(0.05),
    )


Cut = Callable[[Case], Case]


def cuts(case: Case) -> Iterator[Cut]:
    """What may be left out of a case, the largest cuts first. Each may be made after any of the others."""
    for plain in (Loop(steps=1), Loop(steps=2), Loop()):
        yield lambda c, plain=plain: replace(c, loop=plain)
    yield lambda c: replace(c, extra=(), result="tensor", heads=1, given="tensor")
    for half in (slice(None, len(case.pieces) // 2), slice(len(case.pieces) // 2, None)):
        yield lambda c, half=case.pieces[half]: _without(c, half)
    for one in case.pieces:
        yield lambda c, one=one: _without(c, (one,))
    default = Loop(steps=1)
    for field in fields(Loop):
        value = getattr(default, field.name)
        if getattr(case.loop, field.name) != value:
            yield lambda c, name=field.name, value=value: replace(c, loop=replace(c.loop, **{name: value}))
    for change in ({"heads": 1}, {"given": "tensor"}, {"extra": ()}):
        yield lambda c, change=change: replace(c, **change)
    for name, seed, past in case.pieces:
        if past:
            yield lambda c, one=(name, seed): replace(
                c, pieces=tuple((n, s, p and (n, s) != one) for n, s, p in c.pieces)
            )


def _without(case: Case, gone: tuple[tuple[str, int, bool], ...]) -> Case:
    gone_seeds = {(name, seed) for name, seed, _ in gone}
    return replace(case, pieces=tuple(p for p in case.pieces if p[:2] not in gone_seeds))
