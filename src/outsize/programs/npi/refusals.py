"""Where a certified model stops with an error and the program might not: said in the certificate, or it does not hold.

A primitive has no answer where the program's own expression fails, and where the result does not fit the tape that it
is written to. Inputs that the tests in front of a site keep away are no matter. Of the others, two kinds are told
apart. Where a wider domain or a test would do, the certificate does not hold until the program has it. Where a result
goes back into what it was made from (a histogram, a sum, a count in a variable) no finite domain is closed; the
certificate then holds up to there, and says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from .flow import Flow
from .paths import Path, Use
from .slots import UNDEFINED, Site
from .symbols import Node, unanswered

__all__ = ["Refusal", "refusals"]


@dataclass(frozen=True)
class Refusal:
    """Inputs that a primitive can be given and has no answer to.

    Attributes:
        inputs: how many.
        first: the least of them.
        why: `raises` (the expression fails), `narrow` (a wider tape would hold the result) or `grows` (no finite domain
            would).
    """

    inputs: int
    first: tuple[int, ...]
    why: str

    def __str__(self) -> str:
        shown = ", ".join(map(str, self.first))
        about = {
            "raises": "the program's expression fails there",
            "narrow": "the result does not fit the tape that it is written to",
            "grows": "the result is beyond what is held, and it goes back into what it was made from",
        }[self.why]
        such = f" of {self.inputs} inputs" if self.inputs > 1 else ""
        return f"({shown}){such}: {about}"


def refusals(
    flow: Flow,
    sites: Mapping[str, Site],
    pairs: Mapping[str, Mapping[tuple[int, ...], int]],
    layouts: Iterable[Sequence[int]],
) -> dict[str, Refusal]:
    """The sites that can be asked for what they have no answer to.

    Args:
        flow: of all pointers on one tape: what cannot occur there cannot occur at all.
        sites: by slot.
        pairs: each site's answers.
        layouts: which of the entry's pointers share tapes.
    """
    asked: dict[str, set[tuple[int, ...]]] = {}
    uses: dict[str, list[Use]] = {}
    for path in flow.paths:
        if not flow.possible(path):
            continue
        for use in path.uses:
            uses.setdefault(use.slot, []).append(use)
            known = unanswered(flow.meaning, Node(use.slot, use.inputs), path.tests[: use.tests])
            if known is None:
                known = {k for k, v in pairs[use.slot].items() if v == UNDEFINED}
            asked.setdefault(use.slot, set()).update(known)
    grown = _growing(flow.paths, layouts)
    return {
        slot: Refusal(len(found), min(found), _why(flow, sites[slot], uses[slot], found, grown))
        for slot, found in asked.items()
        if found
    }


def _why(
    flow: Flow, site: Site, uses: Sequence[Use], found: set[tuple[int, ...]], grown: frozenset[int]
) -> str:
    if any(_fails(site, inputs) for inputs in found):
        return "raises"
    if site.kind != "write":
        return "grows"
    direct = [use for use in uses if None not in use.read_from and use.written is not None]
    return "narrow" if any(not grown & (use.written or set()) for use in direct) else "grows"


def _fails(site: Site, inputs: tuple[int, ...]) -> bool:
    try:
        site(inputs)
    except Exception:
        return True
    return False


def _growing(paths: Sequence[Path], layouts: Iterable[Sequence[int]]) -> frozenset[int]:
    """The tapes whose cells are made from what stands on the same tape, directly or by way of others."""
    same = _together(layouts)
    everywhere = frozenset(t for path in paths for use in path.uses for t in use.written or ())
    flows: dict[int, set[int]] = {}

    def link(sources: Iterable[int], targets: Iterable[int]) -> None:
        for source in sources:
            flows.setdefault(same[source], set()).update(same[t] for t in targets)

    for path in paths:
        for use in path.uses:
            for read in use.read_from:
                link(everywhere if read is None else read, use.written or everywhere)
        for read, written in path.moved:
            link(everywhere if read is None else read, written)
    while True:
        before = sum(map(len, flows.values()))
        for targets in flows.values():
            targets |= {t for middle in tuple(targets) for t in flows.get(middle, ())}
        if sum(map(len, flows.values())) == before:
            return frozenset(t for t, one in same.items() if one in flows.get(one, ()))


def _together(layouts: Iterable[Sequence[int]]) -> dict[int, int]:
    """For each of the entry's pointers, the first one that shares its tape in some layout, directly or by others."""
    same: dict[int, int] = {}
    for layout in layouts:
        for i, first in enumerate(layout):
            one, two = sorted((same.setdefault(i, i), same.setdefault(first, first)))
            same = {k: one if v == two else v for k, v in same.items()}
    return same
