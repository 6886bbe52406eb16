"""Which values each variable, each result and each primitive's input can take, over all executions.

The rows of the verification set are walked with symbols (`paths.py`), and what tests let through is enumerated
(`symbols.py`), to a fixed point over all calls. A count that no test bounds has no fixed point; it is taken to hold
what the tapes may hold, and a primitive has no answer beyond, so that running out of it is an error and never wrong.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, final

from .calls import Row
from .paths import Call, Path, Shape, shapes, walk
from .slots import Site
from .symbols import Base, Domain, Meaning, Node, Symbol, feasible, gap, image

__all__ = ["Change", "Flow"]

#: (kind and number of the caller's value or cell, those of the callee's, least and largest difference)
Change = tuple[tuple[str, int], tuple[str, int], int, int]

#: Sweeps before what still grows is capped: a loop of up to this many rounds is followed value by value.
_PATIENCE = 64
#: Sweeps after widening: what a test bounds settles in a few.
_AFTER = 16
#: Rounds of capping: each caps what the ones before did not.
_CAPPINGS = 4
#: What a count that no test bounds may hold, at least.
_COUNT = 256
#: A tape whose domain has holes is filled up to this size when it caps a count.
_CAP_LIMIT = 1 << 16


@final
class Flow:
    """The fixed point.

    Args:
        arities: pointers of each program, the entry first.
        rows: the verification set.
        sites: primitives by slot.
        layout: which of the entry's pointers share a tape (equal numbers).
        tapes: what may stand under each of the entry's pointers.
        caps: beyond which a slot has no answer; None: found here.
    """

    def __init__(
        self,
        arities: Mapping[str, int],
        rows: Sequence[Row],
        sites: Mapping[str, Site],
        layout: Sequence[int],
        tapes: Sequence[Domain],
        caps: Mapping[str, Domain] | None = None,
    ) -> None:
        self.sites, self.tapes = sites, tapes
        self.shapes: dict[str, Shape] = shapes(arities, rows)
        self.paths: list[Path] = [walk(self.shapes, row, i, layout) for i, row in enumerate(rows)]
        self.entry = next(iter(arities))
        self.fresh: dict[tuple[Any, ...], Domain] | None = None
        self.caps, self.given = self._targets() if caps is None else dict(caps), caps is not None
        expressions = {s.name: s.expression for s in sites.values()}
        self.meaning = Meaning(self.domain, expressions, lambda slot: self.caps.get(slot))
        self._solve()

    def _targets(self) -> dict[str, Domain]:
        """What the tapes may hold that each slot writes to."""
        found: dict[str, Domain] = {}
        for use in (use for path in self.paths for use in path.uses):
            if use.written is not None:
                found[use.slot] = _union([found.get(use.slot, ()), self._tape(use.written)])
        return {slot: domain for slot, domain in found.items() if domain is not None}

    # -- what a base can be

    def domain(self, base: Base) -> Domain:
        match base.source:
            case ("read", tapes, *_):
                return self._tape(tapes)
            case ("result", callee, *_):
                return self.held.get(("result", callee), ())
            case source:
                return self.held.get(source, ())

    def _tape(self, tapes: frozenset[int]) -> Domain:
        return _union([self.tapes[t] for t in tapes])

    # -- the fixed point

    def _solve(self) -> None:
        """Follow values one by one; what still grows is widened, for a test may bound it; what grows beyond is capped."""
        self._start()
        settled = self._settle(_PATIENCE)
        for _ in range(_CAPPINGS):
            if settled:
                break
            self._widen(self._hull())
            settled = self._settle(_AFTER)
            if not settled and not self._cap():
                break
            if not settled:
                self._start()
                settled = self._settle(_AFTER)
        while not settled:  # nothing bounds it: any integer
            self._widen(None)
            settled = self._settle(_PATIENCE)
        self._narrow()

    def _start(self) -> None:
        #: Domains of values, cells and results by name; absent: not reached.
        self.held: dict[tuple[Any, ...], Domain] = {}
        self.growing: set[tuple[Any, ...]] = set()
        self.versions: dict[tuple[Any, ...], int] = {}
        self.done: dict[int, tuple[Any, ...]] = {}
        for k, tapes in enumerate(self.shapes[self.entry].tapes):
            self.held["cell", self.entry, k] = self._tape(frozenset(tapes))
        self.reached = {self.entry}

    def _settle(self, sweeps: int) -> bool:
        for _ in range(sweeps):
            self.growing = set()
            for i, path in enumerate(self.paths):
                if path.row.program in self.reached and self._stale(i, path):
                    self._step(path)
            if not self.growing:
                return True
        return False

    def _stale(self, i: int, path: Path) -> bool:
        """Whether anything that a path depends on has changed since it was looked at."""
        name = path.row.program
        keys = [k for k in self.held if k[1] == name or k[0] == "result"]
        now = (len(self.reached), *((k, self.versions.get(k, 0)) for k in keys))
        old, self.done[i] = self.done.get(i), now
        return old != now

    def _step(self, path: Path) -> None:
        for call in path.calls:
            tests = path.tests[: call.tests]
            if not feasible(self.meaning, tests) or not self._came_back(path, call):
                continue
            if call.callee not in self.reached:
                self.reached.add(call.callee)
                self.growing.add(("reached", call.callee))
            for i, value in enumerate(call.values):
                self._add(("value", call.callee, i), image(self.meaning, value, tests))
            for k, content in enumerate(call.contents):
                known = self._tape(call.tapes[k]) if content is None else image(self.meaning, content, tests)
                self._add(("cell", call.callee, k), known)
        if path.returned is not None and feasible(self.meaning, path.tests):
            self._add(("result", path.row.program), image(self.meaning, path.returned, path.tests))

    def _came_back(self, path: Path, call: Call) -> bool:
        """Whether every earlier call that gives a value is known to give one."""
        earlier = [c for c in path.calls if c.step < call.step and self.shapes[c.callee].valued]
        return all(("result", c.callee) in self.held for c in earlier)

    def _add(self, key: tuple[Any, ...], more: Domain) -> None:
        if more == ():
            return
        held = self.held if self.fresh is None else self.fresh
        old = held.get(key, ())
        new = _union([old, more])
        if new != old:
            held[key] = new
            self.versions[key] = self.versions.get(key, 0) + 1
            self.growing.add(key)

    # -- what has no fixed point

    def _hull(self) -> Domain:
        """What a count may hold that no test bounds: what the tapes hold, and a byte at least."""
        finite = [d for d in self.tapes if d]
        if not finite:
            return None
        grown = [d[0] for key in self.growing & self.held.keys() if (d := self.held[key])]
        low = min(0, *(d[0] for d in finite), *(-_COUNT for v in grown if v < 0))
        high = max(_COUNT - 1, *(d[-1] for d in finite))
        return tuple(range(low, high + 1)) if high - low < _CAP_LIMIT else _union(finite)

    def _cap(self) -> bool:
        """Cap what is computed for the values that still grow; whether that is anything new."""
        hull = None if self.given else self._hull()
        slots = {
            value.slot
            for path in self.paths
            for key, value in self._passed(path)
            if key in self.growing and isinstance(value, Node) and self.sites[value.slot].kind == "compute"
        }
        new = slots - self.caps.keys() if hull is not None else set()
        self.caps |= dict.fromkeys(new, hull)
        return bool(new)

    def _passed(self, path: Path) -> Iterator[tuple[tuple[Any, ...], Symbol]]:
        for call in path.calls:
            yield from ((("value", call.callee, i), value) for i, value in enumerate(call.values))
            yield from ((("cell", call.callee, k), c) for k, c in enumerate(call.contents) if c is not None)
        if path.returned is not None:
            yield ("result", path.row.program), path.returned

    def _widen(self, cap: Domain) -> None:
        for key in self.growing & self.held.keys():
            self._add(key, cap)

    def _narrow(self) -> None:
        """One more look from above: a test in the loop may bound what widening let in."""
        for _ in range(2):
            self.fresh = {k: d for k, d in self.held.items() if k[:2] == ("cell", self.entry)}
            for path in self.paths:
                if path.row.program in self.reached:
                    self._step(path)
            self.held, self.fresh = self.fresh, None

    # -- what follows

    def possible(self, path: Path) -> bool:
        """Whether a row can happen."""
        if path.row.program not in self.reached:
            return False
        return feasible(self.meaning, path.tests)

    def impossible(self) -> frozenset[Row]:
        return frozenset(path.row for path in self.paths if not self.possible(path))

    def inputs(self) -> dict[str, list[Domain]]:
        """The domain of each input of each primitive that can be reached."""
        found: dict[str, list[Domain]] = {}
        for path in self.paths:
            if path.row.program not in self.reached:
                continue
            for use in path.uses:
                tests = path.tests[: use.tests]
                if not feasible(self.meaning, tests):
                    continue
                domains = found.setdefault(use.slot, [()] * len(use.inputs))
                for i, (symbol, tapes) in enumerate(zip(use.inputs, use.read_from)):
                    declared = None if tapes is None else self._tape(tapes)
                    more = image(self.meaning, symbol, tests) if declared is None else declared
                    domains[i] = _union([domains[i], more])
        return found

    def changes(self, path: Path, call: Call) -> list[Change]:
        """How what a call passes differs from what its caller was given."""
        tests = path.tests[: call.tests]
        mine = [
            Base((kind, path.row.program, i))
            for kind, n in (
                ("value", self.shapes[path.row.program].values),
                ("cell", self.shapes[path.row.program].pointers),
            )
            for i in range(n)
        ]
        theirs: list[tuple[str, int, Symbol]] = [("value", i, s) for i, s in enumerate(call.values)]
        theirs += [("cell", k, s) for k, s in enumerate(call.contents) if s is not None]
        out = []
        for old in (b for b in mine if self.domain(b)):
            for kind, i, new in theirs:
                if (found := gap(self.meaning, new, old, tests)) is not None:
                    out.append(((old.source[0], old.source[2]), (kind, i), *found))
        return out


def _union(domains: Sequence[Domain]) -> Domain:
    if None in domains:
        return None
    return tuple(sorted({v for d in domains for v in d or ()}))
