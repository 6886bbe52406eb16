"""Templates by name: learn one from the library, or take the trained one that ships with the package."""

from __future__ import annotations

import csv
import functools
from collections.abc import Callable, Mapping, Sequence
from math import prod
from pathlib import Path

from ...errors import NpiError
from .controller import ControllerSettings
from .filler import Filler, ProgramPrimitive, as_filler
from .fitting import SURE, PrimitiveCheck, PrimitiveSettings, train_primitive
from .guard import Sample
from .library import find
from .primitive import Primitive
from .tape import Head, cell_value
from .template import Template, parameterize, trace
from .trained import Trained, train
from .weights_file import load

__all__ = ["WEIGHTS", "filler_of", "learn", "read_pairs", "sample_of", "shipped", "swap", "template_of"]

WEIGHTS = Path(__file__).parent / "weights"


def template_of(name: str) -> Template:
    """The template of a library program: traced on its examples, parameterized, closed.

    Args:
        name: of a library program (`LIBRARY`).

    Returns:
        the template.

    Raises:
        NpiError: there is no such program.
    """
    entry = find(name)
    return parameterize(trace(entry.program, entry.examples()))


def sample_of(name: str) -> Sample:
    """Random valid inputs of a library program, for the trial in `verify`.

    Args:
        name: of a library program (`LIBRARY`).

    Returns:
        what makes one input from a `random.Random`.

    Raises:
        NpiError: there is no such program.
    """
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
    """Train a library template. One that shares another's controller trains that one first and keeps its weights.

    Args:
        name: of a library program (`LIBRARY`).
        seed: of all weights.
        controller: how the LSTM is trained.
        primitives: how the primitives are trained.
        tell: called with the name of each stage.

    Returns:
        the model, not yet verified.

    Raises:
        NpiError: there is no such program; a primitive or the controller cannot be learned.
    """
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

    Args:
        name: of a library program (`LIBRARY`).
        path: a file that `save` wrote; None takes the package's own.

    Returns:
        the model.

    Raises:
        NpiError: no such template; a damaged file; a file of another template.
    """
    name = find(name).name
    trained = load(path or WEIGHTS / f"{name}.safetensors", ours=path is None)
    if trained.name != name:
        raise NpiError(f"{path} holds {trained.name}, {name} was asked for")
    return trained


def read_pairs(path: Path, arity: int) -> dict[tuple[int, ...], int]:
    """Input/output pairs from a CSV file: the inputs, then the output, all integers; a header line is skipped.

    Args:
        path: the file.
        arity: input columns.

    Returns:
        the output by inputs.

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


def filler_of(name: str) -> Filler:
    """A library program as what can fill a slot: it is asked as on the command line, with a value for each argument.

    Args:
        name: of a library program (`LIBRARY`).

    Returns:
        what `swap` and `compose` take.

    Raises:
        NpiError: no such template, or its result is not one integer, yes or no.
    """
    encode, decode = _as_asked(find(name).name)
    return as_filler(
        template_of(name),
        shipped(name),
        encode,
        decode,
        way=f"library {name}",
        arity=len(find(name).parse),
        sample=sample_of(name),
    )


@functools.cache
def _as_asked(name: str) -> tuple[Callable[..., Sequence[Head]], Callable[[Sequence[Head]], int]]:
    """The way from values to a library program's tapes, and back; the same functions each time."""
    entry = find(name)

    def encode(*values: int) -> Sequence[Head]:
        return entry.encode(*entry.read([str(value) for value in values]))

    def decode(heads: Sequence[Head]) -> int:
        found = entry.decode(tuple(heads))
        if isinstance(found, str) and found.isascii() and found.isdigit():
            return _number(found)
        if type(found) not in (int, bool):
            raise NpiError(f"{name} answers {str(found)[:40]}: a slot takes an integer, yes or no")
        return int(found)

    return encode, decode


def _number(digits: str) -> int:
    if len(digits) > 19:
        raise NpiError(f"an answer of {len(digits)} digits: cells have 64 bits")
    return int(digits)


def swap(
    trained: Trained,
    slot: str,
    pairs: Mapping[tuple[int, ...], int] | Filler,
    *,
    settings: PrimitiveSettings | None = None,
    seed: int = 0,
) -> Trained:
    """Fill a slot anew; the controller stays as it is.

    From pairs a primitive is trained: if they cover the product of their columns' values they are its whole domain,
    else a fifth is held out. A certified program (`as_filler`, `filler_of`) is taken as it is; `verify` against
    `compose(template, slot, program)` then proves the whole.

    Args:
        trained: the model; it stays as it is.
        slot: which of its primitives.
        pairs: the output by inputs, or a certified program.
        settings: how a primitive is trained.
        seed: of its weights.

    Returns:
        another model with the same controller, not yet verified.

    Raises:
        NpiError: no such slot, or pairs or a program of another arity.
    """
    if slot not in trained.primitives:
        raise NpiError(
            f"{trained.name} has no primitive {slot!r}; it has {', '.join(sorted(trained.primitives)) or 'none'}"
        )
    arity = len(trained.primitives[slot].domains)
    if isinstance(pairs, Filler):
        if pairs.arity != arity:
            raise NpiError(
                f"primitive {slot} of {trained.name} takes {arity} inputs, {pairs.name} {pairs.arity}"
            )
        known = PrimitiveCheck(kind="program", inputs=0, errors=0, least_margin=SURE, error_bound=0.0)
        return trained.fill(slot, ProgramPrimitive(slot, pairs), known)
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
