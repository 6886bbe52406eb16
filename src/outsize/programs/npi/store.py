"""Templates by name: learn one from the library, or take the trained one that ships with the package."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping
from math import prod
from pathlib import Path

from ...errors import NpiError
from .controller import ControllerSettings
from .fitting import PrimitiveCheck, PrimitiveSettings, train_primitive
from .guard import Sample
from .library import find
from .primitive import Primitive
from .tape import cell_value
from .template import Template, parameterize, trace
from .trained import Trained, train
from .weights_file import load

__all__ = ["WEIGHTS", "learn", "read_pairs", "sample_of", "shipped", "swap", "template_of"]

WEIGHTS = Path(__file__).parent / "weights"


def template_of(name: str) -> Template:
    """The template of a library program: traced on its examples, parameterized, closed."""
    entry = find(name)
    return parameterize(trace(entry.program, entry.examples()))


def sample_of(name: str) -> Sample:
    """Random valid inputs of a library program, for the trial in `verify`."""
    entry = find(name)
    return lambda source: entry.encode(*entry.sample(source, source.randint(1, 6)))


def learn(
    name: str,
    *,
    seed: int = 0,
    controller: ControllerSettings | None = None,
    primitives: PrimitiveSettings | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> Trained:
    """Train a library template. One that shares another's controller trains that one first and keeps its weights."""
    like = find(name).like
    reuse = (
        None
        if like is None
        else learn(like, seed=seed, controller=controller, primitives=primitives, tell=tell)
    )
    return train(
        template_of(name), seed=seed, controller=controller, primitives=primitives, reuse=reuse, tell=tell
    )


def shipped(name: str, path: Path | None = None) -> Trained:
    """The trained template that ships with the package, or one from a file.

    Raises:
        NpiError: no such template; a damaged file; a file of another template.
    """
    name = find(name).name
    trained = load(path or WEIGHTS / f"{name}.safetensors", ours=path is None)
    if trained.name != name:
        raise NpiError(f"{path} holds {trained.name}, {name} was asked")
    return trained


def read_pairs(path: Path, arity: int) -> dict[tuple[int, ...], int]:
    """Input/output pairs from a CSV file: the inputs, then the output, all integers; a header line is skipped.

    Raises:
        NpiError: unreadable; a row of another width or not of integers; two outputs for one input.
    """
    pairs: dict[tuple[int, ...], int] = {}
    try:
        with path.open(newline="") as file:
            rows = list(csv.reader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise NpiError(f"{path} cannot be read as CSV: {error}") from error
    for line, row in enumerate(rows, 1):
        if not row:
            continue
        try:
            numbers = [int(cell) for cell in row]
        except ValueError:
            if line == 1:
                continue
            raise NpiError(f"{path}, line {line}: {','.join(row)[:40]!r} is not all integers") from None
        if len(numbers) != arity + 1:
            raise NpiError(
                f"{path}, line {line}: {len(numbers)} columns; {arity} inputs and one output are needed"
            )
        if any(abs(n) >= 1 << 63 for n in numbers):
            raise NpiError(f"{path}, line {line}: an integer of more than 64 bits; cells have 64")
        key = tuple(numbers[:-1])
        if pairs.setdefault(key, numbers[-1]) != numbers[-1]:
            raise NpiError(f"{path}, line {line}: {key} has the outputs {pairs[key]} and {numbers[-1]}")
    if not pairs:
        raise NpiError(f"{path} holds no input/output pair")
    return pairs


def swap(
    trained: Trained,
    slot: str,
    pairs: Mapping[tuple[int, ...], int],
    *,
    settings: PrimitiveSettings | None = None,
    seed: int = 0,
) -> Trained:
    """Train a new primitive for a slot from pairs; the controller stays as it is.

    If the pairs cover the product of their columns' values they are its whole domain, else a fifth is held out.

    Raises:
        NpiError: no such slot, or pairs of another arity.
    """
    if slot not in trained.primitives:
        raise NpiError(
            f"{trained.name} has no primitive {slot!r}; it has {', '.join(sorted(trained.primitives)) or 'none'}"
        )
    arity = len(trained.primitives[slot].domains)
    if any(len(key) != arity for key in pairs):
        raise NpiError(f"primitive {slot} of {trained.name} takes {arity} inputs, the pairs have others")
    pairs = {
        tuple(cell_value(x, f"an input of {slot}") for x in key): cell_value(y, f"an answer of {slot}")
        for key, y in pairs.items()
    }
    domains = [tuple(sorted({key[i] for key in pairs})) for i in range(arity)]
    whole = len(pairs) == prod(map(len, domains))
    model: tuple[Primitive, PrimitiveCheck] = train_primitive(
        slot, pairs, domains=domains, exhaustive=whole, settings=settings, seed=seed
    )
    return trained.fill(slot, *model)
