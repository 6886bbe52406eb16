"""Every single change that could be a repair: the table that the detector scores and the injector draws from.

One function, given which a bug is injected and by which it is found again. For each place the table lists
what could
stand there, the current content included: the names in sight, the operators that fit, nearby whole numbers,
the other order of two arguments. A repair is a candidate that is not current. Exchanges are symmetric: if B
may replace A, then in the changed function A may replace B, so an injected bug always has its repair in the
table.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from .forest import Ints, expand
from .functions import Functions
from .grammar import (
    ATTRIBUTE,
    FALSE_TOKEN,
    INT_HIGH,
    INT_LOW,
    INT_TOKEN,
    LITERAL,
    OPERATION,
    OPERATORS,
    SWAP,
    TRUE_TOKEN,
    VARIABLE,
)

#: Whole numbers that are likely mistakes for any other.
COMMON_INTS = (-1, 0, 1, 2)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Candidates:
    """What could stand at each place of some functions.

    Attributes:
        place: `[c]` the row of the place table.
        value: `[c]` what would stand there: a symbol (counted over all functions), an operator's number, a
            token; for a swap 0 (as it is) and 1 (exchanged).
        current: `[c]` bool, whether it stands there now.
        kind: `[c]` the place's kind.
    """

    place: Ints
    value: Ints
    current: npt.NDArray[np.bool_]
    kind: Ints

    @property
    def count(self) -> int:
        return len(self.place)


def candidates(functions: Functions, kinds: tuple[int, ...] = (0, 1, 2, 3, 4)) -> Candidates:
    """All candidates of all places that have two or more, ordered by family and place."""
    kind = functions["place_kind"]
    tables = []
    names = np.flatnonzero(np.isin(kind, [k for k in (VARIABLE, ATTRIBUTE) if k in kinds]))
    tables.append(_names(functions, names))
    if OPERATION in kinds:
        tables.append(_operators(functions, np.flatnonzero(kind == OPERATION)))
    if LITERAL in kinds:
        tables.append(_literals(functions, np.flatnonzero(kind == LITERAL)))
    if SWAP in kinds:
        rows = np.flatnonzero(kind == SWAP)
        tables.append((np.repeat(rows, 2), np.tile([0, 1], len(rows)), np.tile([True, False], len(rows))))
    place, value, current = (np.concatenate(columns) for columns in zip(*tables))
    enough = np.bincount(place, minlength=len(kind))[place] > 1
    place, value, current = place[enough], value[enough], current[enough]
    return Candidates(place=place, value=value, current=current, kind=kind[place])


Table = tuple[Ints, Ints, npt.NDArray[np.bool_]]


def _names(functions: Functions, rows: Ints) -> Table:
    """Symbols of the same group that the place sees, in pairs (place, symbol)."""
    owner = functions.owner("place")[rows]
    base = np.asarray(functions["symbol_ptr"])
    count = base[owner + 1] - base[owner]
    place = np.repeat(np.arange(len(rows)), count)
    symbol = expand(base[owner], count)
    own = base[owner] + functions["place_a"][rows]
    at = functions.order[np.asarray(functions.forest.ptr)[owner] + functions["place_node"][rows]]
    group = functions["symbol_group"]
    fits = (group[symbol] == group[own][place]) & (functions["symbol_low"][symbol] <= at[place])
    fits &= (at[place] < functions["symbol_high"][symbol]) | (symbol == own[place])
    place, symbol = place[fits], symbol[fits]
    return rows[place], symbol, symbol == own[place]


def _operators(functions: Functions, rows: Ints) -> Table:
    bits = functions["place_b"][rows]
    fits = (bits[:, None] >> np.arange(len(OPERATORS))[None]) & 1
    place, operator = np.nonzero(fits)
    return rows[place], operator, operator == functions["place_a"][rows][place]


def _literals(functions: Functions, rows: Ints) -> Table:
    truth = functions["place_b"][rows] == 1
    tokens = functions["place_a"][rows]
    booleans = rows[truth]
    tables = [_crossed(booleans, np.array([TRUE_TOKEN, FALSE_TOKEN]))]
    whole = rows[~truth]
    number = tokens[~truth] - INT_TOKEN
    near = (number[:, None] + np.array([-1, 0, 1])[None]).ravel()
    tables.append((np.repeat(whole, 3), near + INT_TOKEN))
    tables.append(_crossed(whole, np.array(COMMON_INTS) + INT_TOKEN))
    tables.append(_others(functions, whole))
    place = np.concatenate([table[0] for table in tables])
    token = np.concatenate([table[1] for table in tables])
    low, high = INT_TOKEN + INT_LOW, INT_TOKEN + INT_HIGH
    allowed = ((token >= low) & (token <= high)) | (token == TRUE_TOKEN) | (token == FALSE_TOKEN)
    unique = np.unique(place[allowed] * 2**20 + token[allowed])
    place, token = unique >> 20, unique & (2**20 - 1)
    return place, token, token == functions["place_a"][place]


def _crossed(rows: Ints, values: Ints) -> tuple[Ints, Ints]:
    return np.repeat(rows, len(values)), np.tile(values, len(rows))


def _others(functions: Functions, rows: Ints) -> tuple[Ints, Ints]:
    """Whole numbers elsewhere in the same function."""
    owner = functions.owner("place")[rows]
    first = np.searchsorted(owner, np.arange(functions.count))
    count = np.searchsorted(owner, np.arange(functions.count), side="right") - first
    other = expand(first[owner], count[owner])
    return np.repeat(rows, count[owner]), functions["place_a"][rows[other]]
