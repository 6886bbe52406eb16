"""Bugs of four kinds, put into packed functions so that the meaning changes and the tree stays.

A drawn function gets one bug: another local variable in sight, two arguments exchanged, another operator that
fits, or another small number. Each is one write into integer columns (an exchange of arguments swaps two
`pos`), so bugs are drawn anew for every batch. What would mean the same is never drawn: a name that is a
plain copy of the other, `+ 0` for `- 0`, `len(x) > 0` for `len(x) != 0`, arguments of `max`; see
`python_places`.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from .forest import Ints
from .functions import Functions
from .grammar import ATTRIBUTE, INT_TOKEN, LITERAL, OPERATION, OPERATOR_TOKEN, SWAP, VARIABLE
from .likely import weights as by_likeness
from .rewrites import COMMON_INTS, Candidates, candidates

#: The four kinds of the task; `wrong-attribute` can be asked for as well.
KINDS = (VARIABLE, SWAP, OPERATION, LITERAL)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bugs:
    """What was injected.

    Attributes:
        kind: `[functions]` a place's kind, -1 where nothing was injected.
        place: `[functions]` the row of the place table, -1.
        right: `[functions]` the candidate value that repairs it, -1.
        wrong: `[functions]` the value that now stands there, -1.
    """

    kind: Ints
    place: Ints
    right: Ints
    wrong: Ints


def inject(
    functions: Functions, rng: np.random.Generator, *, share: float = 0.5, kinds: tuple[int, ...] = KINDS,
    weights: tuple[float, ...] | None = None, likely: float = 0.0,
) -> Bugs:  # fmt: skip
    """Write one bug into each of a `share` of the functions, in place.

    The kind is drawn first (uniformly, or by `weights`), then a place of that kind, then what to put there; a
    function that has no place of the drawn kind draws again among the kinds it has.

    Args:
        functions: copies that may be changed (`Functions.select` copies).
        rng: the source of every choice.
        share: probability that a function gets a bug.
        kinds: which kinds may be drawn.
        weights: their probabilities, up to a factor.
        likely: share of the bugs whose content is drawn by how often people mistake it (see `likely`), not evenly.
    """
    table = candidates(functions, kinds)
    draws = np.flatnonzero(allowed(functions, table))
    owner = functions.owner("place")[table.place[draws]]
    order = np.argsort(owner, kind="stable")
    draws, owner = draws[order], owner[order]
    first = np.searchsorted(owner, np.arange(functions.count + 1))
    factor = np.zeros(8)
    factor[list(kinds)] = 1.0 if weights is None else weights
    bugs = Bugs(**{name: np.full(functions.count, -1) for name in ("kind", "place", "right", "wrong")})
    for function in np.flatnonzero(rng.random(functions.count) < share).tolist():
        options = draws[first[function] : first[function + 1]]
        if not len(options):
            continue
        options = _place(options, table, factor, rng)
        if likely and rng.random() < likely:
            weight = np.cumsum(by_likeness(functions, table, options))
            drawn = int(options[np.searchsorted(weight, rng.random() * weight[-1], side="right")])
        else:
            drawn = int(options[rng.integers(len(options))])
        _write(functions, table, drawn, function, bugs)
    return bugs


def _place(options: Ints, table: Candidates, factor: Ints, rng: np.random.Generator) -> Ints:
    """The options of one place of one kind."""
    there = np.unique(table.kind[options])
    weight = factor[there]
    kind = there[int(np.searchsorted(np.cumsum(weight), rng.random() * weight.sum(), side="right"))]
    options = options[table.kind[options] == kind]
    places = np.unique(table.place[options])
    return np.asarray(options[table.place[options] == places[rng.integers(len(places))]])


def allowed(functions: Functions, table: Candidates) -> Ints:
    """`[candidates]` bool: changes that alter the meaning and can be undone by one candidate."""
    place, value, kind = table.place, table.value, table.kind
    fine = ~table.current
    operation = kind == OPERATION
    fine &= ~operation | (((functions["place_c"][place] >> np.where(operation, value, 0)) & 1) == 1)
    fine &= (kind != SWAP) | (functions["place_c"][place] == 1)
    fine &= ~_copies(functions, table)
    fine &= _undone(functions, table)
    return fine


def _copies(functions: Functions, table: Candidates) -> Ints:
    """Names one of which is assigned from the other as it stands."""
    base = np.asarray(functions["symbol_ptr"][:-1])
    pair_base = base[functions.owner("alias")]
    a, b = pair_base + functions["alias_a"], pair_base + functions["alias_b"]
    known = np.concatenate([a << 32 | b, b << 32 | a])
    named = (table.kind == VARIABLE) | (table.kind == ATTRIBUTE)
    own = base[functions.owner("place")[table.place]] + functions["place_a"][table.place]
    return np.asarray(named & np.isin((own << 32) | table.value, known))


def _undone(functions: Functions, table: Candidates) -> Ints:
    """Whether the present number would be a candidate again once the other one stands there."""
    literal = table.kind == LITERAL
    whole = literal & (functions["place_b"][table.place] == 0)
    if not whole.any():
        return np.ones(table.count, np.bool_)
    own = functions["place_a"][table.place]
    common = np.isin(own - INT_TOKEN, COMMON_INTS)
    near = np.abs(own - table.value) == 1
    rows = np.flatnonzero((functions["place_kind"] == LITERAL) & (functions["place_b"] == 0))
    key = functions.owner("place")[rows] * 2**20 + functions["place_a"][rows]
    seen, times = np.unique(key, return_counts=True)
    wanted = functions.owner("place")[table.place] * 2**20 + own
    index = np.minimum(np.searchsorted(seen, wanted), len(seen) - 1)
    twice = (seen[index] == wanted) & (times[index] > 1)
    return np.asarray(~whole | common | near | twice)


def _write(functions: Functions, table: Candidates, drawn: int, function: int, bugs: Bugs) -> None:
    row, value, kind = int(table.place[drawn]), int(table.value[drawn]), int(table.kind[drawn])
    base = int(functions.forest.ptr[function])
    node = base + int(functions["place_node"][row])
    own = int(functions["place_a"][row])
    bugs.kind[function], bugs.place[function], bugs.wrong[function] = kind, row, value
    token = functions.forest.token
    if kind == SWAP:
        bugs.right[function] = 1
        swap_siblings(functions, function, base + own, base + int(functions["place_b"][row]))
    elif kind == OPERATION:
        bugs.right[function] = own
        token[node] = OPERATOR_TOKEN + value
        functions["place_a"][row] = value
    elif kind == LITERAL:
        bugs.right[function] = own
        token[node] = value
        functions["place_a"][row] = value
    else:
        first = int(functions["symbol_ptr"][function])
        bugs.right[function] = first + own
        token[node] = functions["symbol_token"][value]
        functions["place_a"][row] = value - first
        low, high = functions["occurrence_ptr"][function : function + 2]
        mine = functions["occurrence_node"][low:high] == node - base
        mine &= functions["occurrence_symbol"][low:high] == own
        functions["occurrence_symbol"][low:high][mine] = value - first


def swap_siblings(functions: Functions, function: int, one: int, two: int) -> None:
    """Exchange two siblings' subtrees in reading order; nothing moves in memory."""
    pos, order, last = functions.forest.pos, functions.order, functions.last
    if order[one] > order[two]:
        one, two = two, one
    pos[one], pos[two] = pos[two], pos[one]
    first, second = (int(order[one]), int(last[one])), (int(order[two]), int(last[two]))
    low, high = functions.forest.ptr[function : function + 2]
    nodes = slice(int(low), int(high))
    size = last[nodes] - order[nodes]
    order[nodes] = _moved(order[nodes], first, second)
    last[nodes] = order[nodes] + size
    symbols = slice(*map(int, functions["symbol_ptr"][function : function + 2]))
    span = functions["symbol_high"][symbols] - functions["symbol_low"][symbols]
    functions["symbol_low"][symbols] = _moved(functions["symbol_low"][symbols], first, second)
    functions["symbol_high"][symbols] = functions["symbol_low"][symbols] + span


def _moved(rank: Ints, first: tuple[int, int], second: tuple[int, int]) -> Ints:
    grown = (second[1] - second[0]) - (first[1] - first[0])
    to_right = second[1] - first[1]
    to_left = first[0] - second[0]
    shift = np.where(
        (rank >= first[0]) & (rank < first[1]), to_right,
        np.where((rank >= second[0]) & (rank < second[1]), to_left,
                 np.where((rank >= first[1]) & (rank < second[0]), grown, 0)),
    )  # fmt: skip
    return np.add(rank, shift, dtype=rank.dtype, casting="unsafe")
