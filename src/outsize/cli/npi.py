"""`outsize npi`: train, run, verify, trace and re-equip neural programmer-interpreters."""

from __future__ import annotations

import json
import sys
import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ..programs.npi import Filler, Trained

app = typer.Typer(
    help="Learn programs from their traces, run them at any length, prove them.", no_args_is_help=True
)

Template = Annotated[str, typer.Argument(help="A template's name; see `outsize npi list`.")]
Words = Annotated[
    list[str] | None,
    typer.Argument(metavar="ARG…", help="Its arguments; `-` reads them from stdin, one a line."),
]
Weights = Annotated[Path | None, typer.Option(help="A trained file instead of the one that ships.")]
Engine = Annotated[str, typer.Option(help="auto, network, tables (numpy) or native (the tables in C).")]
MaxSteps = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="System calls before an execution is stopped. Default: none where the model is proved to end (those "
        "that ship are), else as many as take about half a minute.",
        show_default=False,
    ),
]
MaxDepth = Annotated[int, typer.Option(min=1, help="Frames before an execution is stopped.")]
_DEPTH = 1_000_000


@app.command()
def run(
    template: Template,
    args: Words = None,
    engine: Engine = "auto",
    weights: Weights = None,
    strict: Annotated[
        float | None,
        typer.Option(help="Least margin of a decision: a smaller one is an error (runs the network)."),
    ] = None,
    max_steps: MaxSteps = None,
    max_depth: MaxDepth = _DEPTH,
    as_json: Annotated[
        bool, typer.Option("--json", help="Also print the steps, as JSON, on stderr.")
    ] = False,
) -> None:
    """Run a trained template; the result is printed alone on the last line."""
    from ..programs.npi import Limits, shipped
    from ..programs.npi.library import find

    template = template if weights is not None else find(template).wide or template
    model = shipped(template, weights)
    _print_result(template, model, args, engine, strict, Limits(steps=max_steps, depth=max_depth), as_json)


def _print_result(
    template: str,
    model: Trained,
    args: list[str] | None,
    engine: str,
    strict: float | None,
    limits: Any,
    as_json: bool,
) -> None:
    from ..errors import NpiError
    from ..programs.npi import run as execute
    from ..programs.npi.library import find

    engines = ("auto", "network", "tables", "native")
    if engine not in engines:
        raise NpiError(f"there is no engine {engine!r}; there are {', '.join(engines)}")
    if strict is not None and engine not in ("auto", "network"):
        raise NpiError(
            f"--strict looks at the network's margins, --engine {engine} has none: use --engine network"
        )
    chosen: Any = "network" if strict is not None else model.fastest if engine == "auto" else engine
    entry = find(template)
    arguments = entry.read(_words(args))
    entry.check(model.primitives, arguments)
    heads = entry.encode(*arguments)
    with warnings.catch_warnings(record=True) as caught:
        stats = execute(model, [heads], engine=chosen, strict=strict, limits=limits)
    if model.ends != model.fingerprint():
        print(f"warning: these weights are not proved; see `outsize npi verify {template}`", file=sys.stderr)
    for warning in caught:
        print(f"warning: {warning.message}", file=sys.stderr)
    if as_json:
        print(json.dumps({"template": template, "engine": chosen, **vars(stats)}), file=sys.stderr)
    print(_text(entry.decode(heads)))


def _words(args: list[str] | None) -> list[str]:
    if args != ["-"]:
        return list(args or ())
    from ..errors import NpiError

    try:
        text = sys.stdin.read()
    except UnicodeDecodeError as error:
        raise NpiError(f"standard input is not text: {error}") from error
    lines = text.removeprefix("\ufeff").removesuffix("\n").split("\n") if text else []
    return [line.removesuffix("\r") for line in lines]


def _text(result: Any) -> str:
    """Digits stand for themselves; everything else is JSON, with integers of any number of digits."""
    from ..programs.npi.library.entry import spell

    if isinstance(result, list) and all(type(v) is int for v in result):
        return f"[{', '.join(map(spell, result))}]"
    return result if isinstance(result, str) else json.dumps(result)


@app.command()
def train(
    template: Annotated[str, typer.Argument(help="A template's name, or `all`.")],
    out: Annotated[
        Path | None, typer.Option(help="File (for `all`: folder) to write; default TEMPLATE.safetensors.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of all weights.")] = 0,
) -> None:
    """Trace the program, train its primitives and its controller, verify, save."""
    from ..programs.npi import LIBRARY, learn, sample_of, save, template_of, verify

    failed = False
    for name in LIBRARY if template == "all" else [template]:
        with _progress(name) as tell:
            model = learn(name, seed=seed, tell=tell)
            tell("verification")
            certificate = verify(template_of(name), model, sample=sample_of(name))
            model = model.certified(certificate)
        folder = out if out is not None and template == "all" else Path()
        path = out if out is not None and template != "all" else folder / f"{name}.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        save(model, path)
        failed |= not certificate.holds
        word = "proved" if certificate.holds else "NOT proved"
        print(
            f"{path}: {word}; {certificate.sequences} sequences, least margin {certificate.check.least_margin:.2f}"
        )
    raise typer.Exit(int(failed))


@contextmanager
def _progress(name: str) -> Iterator[Callable[[str], None]]:
    with Console(stderr=True).status(name) as status:
        yield lambda stage: status.update(f"{name}: {stage}")


@app.command()
def verify(
    template: Template,
    json_file: Annotated[Path | None, typer.Option("--json", help="Where to write the certificate.")] = None,
    weights: Weights = None,
    python: Annotated[
        Path | None, typer.Option(help="Where to write the decisions as Python source.")
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option(help="A certificate that must be about these weights and say what is found now."),
    ] = None,
) -> None:
    """Check the verification set, the primitives and termination, and run model and program side by side.

    Exit 1 if the certificate does not hold.
    """
    from ..programs.npi import read_certificate, sample_of, shipped, template_of, to_python
    from ..programs.npi import verify as certify

    model, reference = shipped(template, weights), template_of(template)
    claimed = None if against is None else read_certificate(against)
    if claimed is not None:
        claimed.match(model, reference)
    with _progress(template) as tell:
        tell("verification")
        certificate = certify(reference, model, sample=sample_of(template))
    if claimed is not None:
        claimed.repeats(certificate)
    if json_file is not None:
        _write(json_file, certificate.to_json())
    if python is not None:
        _write(python, to_python(model.controller))
    c = certificate
    print(f"{c.template}: {'the certificate holds' if c.holds else 'the certificate does NOT hold'}")
    print(
        f"  {c.sequences} observation sequences ({c.sequences_before} before minimisation), {c.decisions} decisions"
    )
    print(f"  {c.check.errors} wrong, least margin {c.check.least_margin:.2f} at {c.check.worst}")
    for fact in c.proved:
        print(f"  proved: {fact}")
    for fact in c.not_proved:
        print(f"  not proved: {fact}")
    raise typer.Exit(0 if c.holds else 1)


def _write(path: Path, text: str) -> None:
    from ..errors import NpiError

    try:
        path.write_text(text + "\n")
    except OSError as error:
        raise NpiError(f"{path} cannot be written: {error}") from error


@app.command("list")
def list_(as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False) -> None:
    """The templates, their arguments and their primitives."""
    from ..programs.npi import LIBRARY, shipped

    rows = [
        {
            "name": e.name,
            "arguments": list(e.arguments),
            "summary": e.summary,
            "primitives": sorted(shipped(e.name).primitives),
        }
        for e in LIBRARY.values()
    ]
    if as_json:
        print(json.dumps(rows))
        return
    for row in rows:
        print(f"{row['name']:22} {row['summary']}  [{', '.join(row['primitives'])}]")


@app.command()
def trace(
    template: Template,
    args: Words = None,
    limit: Annotated[int, typer.Option(min=1, help="Lines to print.")] = 200,
    weights: Weights = None,
) -> None:
    """Run the networks step by step and say which network decided or computed what; the result comes last."""
    from ..programs.npi import run as execute
    from ..programs.npi import shipped
    from ..programs.npi.library import find

    model, entry = shipped(template, weights), find(template)
    arguments = entry.read(_words(args))
    entry.check(model.primitives, arguments)
    heads = entry.encode(*arguments)
    lines = _Lines(limit, model)
    stats = execute(model, [heads], engine="network", hear=lines.hear)
    if lines.count > limit:
        print(f"… {lines.count - limit} more")
    print(f"{stats.steps} system calls, {stats.depth} frames at most")
    print(_text(entry.decode(heads)))


class _Lines:
    """Prints system calls as they happen, indented by depth."""

    def __init__(self, limit: int, model: Trained) -> None:
        self.limit, self.count, self.depth = limit, 0, 0
        self.networks = model.primitives

    def hear(self, action: Any, execution: int, seen: int) -> None:
        self.count += 1
        if self.count <= self.limit:
            answer = ("", " = no", " = yes")[seen]
            source = f"   (data: network {action.slot})" if action.slot in self.networks else ""
            print(
                f"{self.count:6} {'  ' * self.depth}{action}{answer if action.key[:6] != 'return' else ''}{source}"
            )
        self.depth += action.key.startswith("call ")
        self.depth -= action.key.startswith("return")


@app.command()
def swap(
    template: Template,
    args: Words = None,
    primitive: Annotated[
        list[str] | None,
        typer.Option(
            help="NAME=FILE: a slot and a CSV of inputs and output; NAME=TEMPLATE: a program for it."
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Where to save the template with its new primitives.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the new primitives' weights.")] = 0,
    max_steps: MaxSteps = None,
    prove: Annotated[
        bool, typer.Option("--verify", help="Prove it before it runs; error if that fails.")
    ] = False,
) -> None:
    """Train primitives from CSV files, or take certified templates, and run the frozen controller with them."""
    from ..errors import NpiError
    from ..programs.npi import LIBRARY, Limits, filler_of, read_pairs, save, shipped
    from ..programs.npi import swap as fill

    model = shipped(template)
    programs: dict[str, Filler] = {}
    if not primitive:
        raise NpiError(
            f"name a primitive: --primitive NAME=FILE, NAME one of {', '.join(sorted(model.primitives))}"
        )
    for item in primitive:
        slot, equals, file = item.partition("=")
        if not equals:
            raise NpiError(f"--primitive takes NAME=FILE or NAME=TEMPLATE, not {item!r}")
        if file in LIBRARY and not Path(file).exists():
            programs[slot] = filler_of(file)
            model = fill(model, slot, programs[slot])
            print(f"{slot}: the program {file}")
            continue
        arity = len(model.primitives[slot].domains) if slot in model.primitives else 0
        with _progress(slot):
            model = fill(model, slot, read_pairs(Path(file), arity) if arity else {(): 0}, seed=seed)
        check = model.checks[slot]
        print(
            f"{slot}: {check.errors} of {check.inputs} {check.kind} inputs wrong, e <= {check.error_bound:.3g} per call"
        )
    if prove:
        model = _proved(template, model, programs)
    if out is not None:
        save(model, out)
    if args:
        _print_result(template, model, args, "auto", None, Limits(steps=max_steps), False)


def _proved(template: str, model: Trained, programs: dict[str, Filler]) -> Trained:
    """The model, certified against the template with these programs in its slots.

    Raises:
        NpiError: the certificate does not hold.
    """
    from ..errors import NpiError
    from ..programs.npi import compose, sample_of, template_of
    from ..programs.npi import verify as certify

    reference = template_of(template)
    with _progress(template) as tell:
        tell("verification")
        for slot, filler in programs.items():
            reference = compose(reference, slot, filler)
        certificate = certify(reference, model, sample=sample_of(template))
    if not certificate.holds:
        raise NpiError(f"the certificate does not hold: {certificate.not_proved[0]}")
    for fact in certificate.proved:
        print(f"  proved: {fact}")
    return model.certified(certificate)
