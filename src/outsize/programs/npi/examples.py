"""Inputs that show what the given examples do not: found by changing those, at random but always the same way.

An example is a layout: tapes with domains, pointers on them. Contents are drawn again (often from few values, so that
equal ones meet), and tapes of one length grow or shrink together. What the program cannot run on is dropped.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence

from ...errors import NpiError
from .calls import Row
from .record import Recorder
from .returns import Reconsider
from .slots import Slots
from .source import Linker
from .symbols import Domain
from .tape import Head, Tape

__all__ = ["find_examples", "standing"]

#: Inputs that are tried, and those in a row that show nothing new; an execution takes about a millisecond.
TRIES, IDLE = 400, 150
#: System calls of an input that is tried: nothing says that it ends.
_STEPS = 20_000

Found = list[tuple[Callable[[], Sequence[Head]], tuple[Row, ...]]]


def find_examples(
    linker: Linker, slots: Slots, examples: Sequence[Callable[[], Sequence[Head]]], missing: Iterable[Row]
) -> Found:
    """Examples whose executions show rows that are missing, with what they show."""
    source, left, found, idle = random.Random(0), set(missing), [], 0
    for attempt in range(TRIES):
        if not left or idle >= IDLE:
            break
        idle += 1
        make = _changed(examples[attempt % len(examples)], source.getrandbits(32))
        recorder = Recorder(linker, slots, steps=_STEPS)
        try:
            recorder.run(tuple(make()))
        except (NpiError, Reconsider):
            continue
        if left & set(recorder.rows):
            left -= set(recorder.rows)
            found.append((make, tuple(recorder.rows)))
            idle = 0
    return found


def _changed(example: Callable[[], Sequence[Head]], seed: int) -> Callable[[], Sequence[Head]]:
    def make() -> Sequence[Head]:
        source, heads = random.Random(seed), example()
        tapes = list({id(h.tape): h.tape for h in heads}.values())
        grow = {n: source.choice((0, 0, 1, 2, 5, -1, -2, -n)) for n in {len(t) for t in tapes}}
        if source.random() < 0.5:  # tapes whose lengths differ by one or two mostly belong together
            grow = dict.fromkeys(grow, source.choice((1, 2, 5, -1, -2)))
        fresh = {id(t): _tape(t, max(0, len(t) + grow[len(t)]), source) for t in tapes}
        return [fresh[id(h.tape)].at(_moved(h, len(fresh[id(h.tape)]))) for h in heads]

    return make


def _tape(tape: Tape, length: int, source: random.Random) -> Tape:
    values = tape.domain or tape.cells or (0,)
    few = source.choices(values, k=source.choice((1, 2, 3, 8)))
    choice = source.choice((tape.cells or values, few, values))
    cells = tape.cells if source.random() < 0.3 else source.choices(choice, k=length)
    cells = (cells + source.choices(choice, k=length))[:length]
    return Tape(cells, domain=tape.domain)


def _moved(head: Head, length: int) -> int:
    """The position in a tape of another length: as far from the nearer end as before."""
    old = len(head.tape)
    from_end = head.position - old
    position = head.position if head.position <= 0 or -from_end > head.position + 1 else length + from_end
    return min(max(position, -1), length)


def standing(examples: Sequence[Callable[[], Sequence[Head]]]) -> list[Domain]:
    """What may stand under each of the entry's pointers, over all examples."""
    found: list[Domain] = []
    for example in examples:
        heads = tuple(example())
        found = found or [()] * len(heads)
        for i, head in enumerate(heads):
            known, more = found[i], head.tape.domain
            found[i] = None if known is None or more is None else tuple(sorted({*known, *more}))
    return found
