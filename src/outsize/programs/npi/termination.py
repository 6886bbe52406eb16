"""Does every execution end? Size-change termination (Lee, Jones, Ben-Amram, POPL 2001) over the verification set.

Measures are natural numbers: cells to a pointer's right, cells to its left, the distance between two pointers, and the
number of cells on a tape that hold given marks; and where domains are finite, how far a value or the cell under a
pointer is from the least or the largest. Each call site says which measures of the callee are at most, or less
than, which of the caller's. The program ends if every way to call oneself again, however long, makes some measure
smaller. Nothing is declared by the user; what cannot be shown is said.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .abstract import Analysis, Layout, Outputs, Site, Truths, analyse
from .calls import Row
from .flow import Change, Flow

__all__ = ["Termination", "prove_termination"]

#: A measure: ("right", i) · ("left", i) · ("span", i, j) · ("marks", tape, values) · ("value" or "cell", i, "down" or
#: "up")
Measure = tuple[object, ...]
#: Arcs from the caller's measures to the callee's; True: strictly smaller.
Graph = frozenset[tuple[Measure, Measure, bool]]

#: Composed graphs before giving up. The library's programs end with 11 idempotent ones at most.
_GRAPH_LIMIT = 4096


@dataclass(frozen=True, kw_only=True)
class Termination:
    """What was found.

    Attributes:
        proved: whether every execution that stays on its tapes ends.
        measures: for each recursive call, the measures that shrink.
        open: cycles for which none was found.
        assumes: what it is proved under; `run` checks it.
    """

    proved: bool
    measures: tuple[str, ...]
    open: tuple[str, ...]
    assumes: tuple[str, ...] = ()


def prove_termination(
    arities: Mapping[str, int],
    rows: Sequence[Row],
    layout: Layout,
    truths: Truths,
    outputs: Outputs,
    flow: Flow,
) -> Termination:
    """Decide termination of a template from its verification set.

    Args:
        arities: pointers of each program, the entry first.
        rows: the verification set.
        layout: which of the entry's pointers share a tape.
        truths: for each one-input test of a finite domain, the values that answer no and yes.
        outputs: for each written slot of a finite domain, the values it may leave.
        flow: the values that can occur, for this layout.
    """
    impossible = flow.impossible()
    rows = [row for row in rows if row not in impossible]
    changes = {
        (path.row, call.step): flow.changes(path, call)
        for path in flow.paths
        if path.row not in impossible
        for call in path.calls
    }
    analysis = analyse(arities, rows, layout, truths, outputs, flow.shapes)
    if analysis is None:
        return Termination(proved=False, measures=(), open=tuple(arities))
    marks = _marks(analysis)
    graphs: dict[tuple[str, str], set[Graph]] = defaultdict(set)
    told: dict[str, None] = {}
    for site in analysis.sites:
        graph = _graph(site, arities, marks, changes[site.row, site.step])
        graphs[site.caller, site.callee].add(graph)
        if _recursive(site, analysis):
            told[f"{site.caller} → {site.action}: {_strict(graph)}"] = None
    found = _closure(graphs)
    stuck = sorted({name for name, graph in found if not any(a == b and s for a, b, s in graph)})
    return Termination(proved=not stuck, measures=tuple(told), open=tuple(stuck))


def _marks(analysis: Analysis) -> list[tuple[int, frozenset[int]]]:
    """(tape, values) whose count no write can raise: what every write to that tape leaves is known and outside."""
    spent = {item for site in analysis.sites for item in site.spent}
    return [
        (tape, values)
        for tape, values in sorted(spent, key=str)
        if all(left is not None and not left & values for _, t, left in analysis.writes if t == tape)
    ]


def _graph(
    site: Site,
    arities: Mapping[str, int],
    marks: Sequence[tuple[int, frozenset[int]]],
    changes: Sequence[Change],
) -> Graph:
    z, n = site.zone, arities[site.caller]
    arguments = [o for o in site.action.operands if o[0] == "p"]
    arcs: set[tuple[Measure, Measure, bool]] = set()

    def arc(a: Measure, b: Measure, change: float, least: float) -> None:
        """The callee's measure exceeds the caller's by at most `change`; the caller's is at least `least`."""
        if change <= -1 and least >= 1:
            arcs.add((a, b, True))
        elif change <= 0:
            arcs.add((a, b, False))

    for k, p in enumerate(arguments):
        for i in range(n):
            if site.tapes[int(p[1:])] == i:
                arc(("right", i), ("right", k), z.difference(f"e{i}", p), -z.difference(f"e{i}", f"n{i}"))
            arc(("left", i), ("left", k), z.difference(p, f"e{i}"), 1 - z.difference("0", f"e{i}"))
        for m, q in enumerate(arguments):
            for i in range(n):
                for j in range(n):
                    if k != m and i != j:
                        change = z.difference(q, f"e{j}") + z.difference(f"e{i}", p)
                        arc(("span", i, j), ("span", k, m), change, -z.difference(f"e{i}", f"e{j}"))
    for mark in marks:
        measure: Measure = ("marks", *mark)
        arcs.add((measure, measure, any(t == mark[0] and v <= mark[1] for t, v in site.spent)))
    for (kind, i), (other, k), least, largest in changes:
        if largest <= 0:
            arcs.add(((kind, i, "down"), (other, k, "down"), largest < 0))
        if least >= 0:
            arcs.add(((kind, i, "up"), (other, k, "up"), least > 0))
    strict = {(a, b) for a, b, s in arcs if s}
    return frozenset((a, b, s) for a, b, s in arcs if s or (a, b) not in strict)


def _recursive(site: Site, analysis: Analysis) -> bool:
    """Whether the callee can reach the caller."""
    reached, queue = {site.callee}, [site.callee]
    while queue:
        name = queue.pop()
        for other in analysis.sites:
            if other.caller == name and other.callee not in reached:
                reached.add(other.callee)
                queue.append(other.callee)
    return site.caller in reached


def _strict(graph: Graph) -> str:
    names = sorted({_say(a) for a, b, s in graph if s and (a == b)})
    return ", ".join(names) if names else "none alone"


def _say(measure: Measure) -> str:
    match measure:
        case (("value" | "cell") as kind, i, way):
            what = f"value v{i}" if kind == "value" else f"the value under p{i}"
            return what if way == "down" else f"distance of {what} to its largest"
        case ("right", i):
            return f"cells right of p{i}"
        case ("left", i):
            return f"cells left of p{i}"
        case ("span", i, j):
            return f"distance p{i} to p{j}"
        case ("marks", tape, frozenset() as values):
            return f"cells of tape {tape} in {sorted(values)}"
    raise AssertionError(measure)


def _compose(first: Graph, second: Graph) -> Graph:
    onward: dict[Measure, list[tuple[Measure, bool]]] = defaultdict(list)
    for a, b, s in second:
        onward[a].append((b, s))
    arcs: dict[tuple[Measure, Measure], bool] = {}
    for a, b, s in first:
        for c, t in onward[b]:
            arcs[a, c] = arcs.get((a, c), False) or s or t
    return frozenset((a, c, s) for (a, c), s in arcs.items())


def _closure(graphs: Mapping[tuple[str, str], set[Graph]]) -> list[tuple[str, Graph]]:
    """All compositions; of those that lead back to where they began and equal their own square, the graph."""
    found = {pair: set(known) for pair, known in graphs.items()}
    work = [(pair, g) for pair, known in found.items() for g in known]
    while work:
        (a, b), first = work.pop()
        for (c, d), seconds in list(graphs.items()):
            if b != c:
                continue
            for second in seconds:
                graph = _compose(first, second)
                known = found.setdefault((a, d), set())
                if graph not in known:
                    known.add(graph)
                    work.append(((a, d), graph))
        if sum(map(len, found.values())) > _GRAPH_LIMIT:
            return [(a, frozenset()) for a, b in found if a == b]
    return [(a, g) for (a, b), known in found.items() if a == b for g in known if _compose(g, g) == g]
