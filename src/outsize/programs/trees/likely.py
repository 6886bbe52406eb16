"""Which of the things that could be put in a place is the mistake that a person would make.

A bug that is drawn evenly is mostly an absurd one: `a // b` for `a + b`, a name with nothing in common
with the right one. People write `<` for `<=`, 1 for 0, `start_line` for `end_line`. Training draws a part of its
bugs by these weights, so that the detector also learns the narrow choices; the evaluation draws evenly unless it is
told otherwise.
"""

from __future__ import annotations

import itertools

import numpy as np

from .forest import Ints
from .functions import Functions
from .grammar import INT_TOKEN, LITERAL, OPERATION, OPERATOR, SWAP
from .rewrites import Candidates
from .words import words

#: Operators that are taken for one another: a bound that is off by one, a condition turned round, a sign.
CONFUSED = frozenset(
    pair
    for one, other in (
        ("<", "<="), (">", ">="), ("==", "!="), ("<", ">"), ("<=", ">="), ("+", "-"), ("*", "/"), ("/", "//"),
        ("and", "or"), ("is", "is not"), ("in", "not in"), ("&", "|"), ("<<", ">>"), ("%", "//"),
    )
    for pair in ((OPERATOR[one], OPERATOR[other]), (OPERATOR[other], OPERATOR[one]))
)  # fmt: skip
#: How many times as often a confused pair is drawn as any other, and a name that shares all its words as one that
#: shares none.
FACTOR = 8.0


def weights(functions: Functions, table: Candidates, options: Ints) -> Ints:
    """`[options]` relative weights of candidates of one place."""
    row = int(table.place[options[0]])
    kind, own = int(table.kind[options[0]]), int(functions["place_a"][row])
    values = table.value[options].tolist()
    if kind == OPERATION:
        return np.array([FACTOR if (own, value) in CONFUSED else 1.0 for value in values])
    if kind == LITERAL:
        near = [abs(value - own) == 1 or {value, own} <= {INT_TOKEN, INT_TOKEN + 1} for value in values]
        return np.where(near, FACTOR, 1.0)
    if kind == SWAP:
        return np.ones(len(values))
    first = int(functions["symbol_ptr"][functions.owner_of("place", row)])
    tokens, names = functions.forest.tokens, functions["symbol_token"]
    mine = tokens[int(names[first + own])]
    return np.array([1 + (FACTOR - 1) * likeness(mine, tokens[int(names[value])]) for value in values])


def likeness(one: str, other: str) -> float:
    """0 to 1: the larger of the shares of common words and of common beginning and end."""
    a, b = set(words(one)[1:]), set(words(other)[1:])
    common = len(a & b) / max(len(a | b), 1)
    begin, end = _alike(one, other), _alike(one[::-1], other[::-1])
    return max(common, min(begin + end, min(len(one), len(other))) / max(len(one), len(other), 1))


def _alike(one: str, other: str) -> int:
    """Length of the common beginning."""
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(one, other)))
