"""Do the tables of some functions belong to their trees? Whatever is read from a file is held against this once.

Layers, candidates and bugs follow indices from table to table without looking, some of them in C. Here each index is
held against the list that it points into, in array operations whose cost is that of the arrays, whatever they hold.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ...errors import TreesError
from .columns import Ints, check_ptr, check_within
from .grammar import (
    FALSE_TOKEN,
    FIELDS,
    INT_HIGH,
    INT_LOW,
    INT_TOKEN,
    KINDS,
    LITERAL,
    OPERATION,
    OPERATORS,
    PLACES,
    RESERVED,
    ROLES,
    SWAP,
    TRUE_TOKEN,
)

if TYPE_CHECKING:
    from .functions import Functions

#: Nodes of one function: the front end stops at 8,192, and what one function costs grows with the square.
MOST_NODES = 16384
#: Rows of a table for each node of a function: a call has six pairs of arguments, any other node fewer.
MOST_ROWS = 8


def check_functions(functions: Functions) -> None:
    """Raise where a table does not fit the forest, which was checked before (`Forest.check`).

    Raises:
        TreesError: naming table, row and number.
    """
    _vocabulary(functions)
    size = np.diff(functions.forest.ptr)
    if size.max(initial=0) > MOST_NODES:
        raise TreesError(f"a function has {int(size.max()):,} nodes, at most {MOST_NODES:,} are read")
    for name, column in (("order", functions.order), ("last", functions.last)):
        if len(column) != functions.forest.nodes:
            raise TreesError(f"{name} has {len(column)} rows for {functions.forest.nodes} nodes")
    _tables(functions, size)
    _ranks(functions, size)
    _symbols(functions, size)
    _places(functions)


def _vocabulary(functions: Functions) -> None:
    """Kinds, fields and the first tokens are known by number, to a model and to `rewrites`."""
    forest = functions.forest
    for name, texts, known in (("kinds", forest.kinds, KINDS), ("fields", forest.fields, FIELDS)):
        if not texts or tuple(texts) != known[: len(texts)]:
            raise TreesError(f"its {name} are not those of this version")
    if tuple(forest.tokens[: len(RESERVED)]) != RESERVED:
        raise TreesError("its first tokens are not those of this version")


def _tables(functions: Functions, size: Ints) -> None:
    from .functions import TABLES

    for table, names in TABLES.items():
        ptr, rows = functions[f"{table}_ptr"], {len(functions[name]) for name in names}
        if len(rows) != 1:
            raise TreesError(f"the columns of the table {table} differ in length")
        check_ptr(f"{table}_ptr", ptr, functions.count, rows.pop())
        check_within(f"the number of rows of {table}", np.diff(ptr), 0, MOST_ROWS * size + 1)
    if len(functions.columns.get("distribution", size)) != functions.count:
        raise TreesError(f"distribution has not one number for each of {functions.count} functions")


def _ranks(functions: Functions, size: Ints) -> None:
    """`order` and `last` are those of a walk from left to right: each node begins where its left sibling ends."""
    forest = functions.forest
    order, last = (np.asarray(c, np.int64) for c in (functions.order, functions.last))
    parent = forest.absolute_parent
    inner = np.flatnonzero(parent >= 0)
    count = np.bincount(parent[inner], minlength=forest.nodes)
    first = np.cumsum(count) - count
    node = np.empty(len(inner), np.int64)  # those with a parent, by parent and place
    node[first[parent[inner]] + forest.pos[inner]] = inner
    begins = np.empty(len(inner), np.int64)
    begins[1:] = last[node[:-1]]
    leftmost = forest.pos[node] == 0
    begins[leftmost] = order[parent[node[leftmost]]] + 1
    end = order + 1
    some = count > 0
    end[some] = last[node[(first + count - 1)[some]]]
    root = np.asarray(forest.ptr[:-1], np.int64)
    fits = (order[node] == begins).all() and (last == end).all()
    if not fits or (order[root] != 0).any() or (last[root] != size).any():
        raise TreesError("order and last are not the ranks of a walk through the trees")


def _symbols(functions: Functions, size: Ints) -> None:
    """Symbols, their occurrences and copies."""
    symbols = np.diff(functions["symbol_ptr"])
    check_within("symbol_token", functions["symbol_token"], 0, len(functions.forest.tokens))
    check_within("symbol_group", functions["symbol_group"], 0, 2**31)
    span = size[functions.owner("symbol")]
    check_within("symbol_low", functions["symbol_low"], 0, span)
    check_within("symbol_high", functions["symbol_high"], functions["symbol_low"], span + 1)
    owner = functions.owner("occurrence")
    check_within("occurrence_node", functions["occurrence_node"], 0, size[owner])
    check_within("occurrence_symbol", functions["occurrence_symbol"], 0, symbols[owner])
    check_within("occurrence_role", functions["occurrence_role"], 0, ROLES)
    for name in ("alias_a", "alias_b"):
        check_within(name, functions[name], 0, symbols[functions.owner("alias")])


def _places(functions: Functions) -> None:
    """What each place says in `place_a`, `_b` and `_c` depends on its kind (the table in `functions`)."""
    kind, owner = functions["place_kind"], functions.owner("place")
    size, symbols = np.diff(functions.forest.ptr)[owner], np.diff(functions["symbol_ptr"])[owner]
    check_within("place_node", functions["place_node"], 0, size)
    check_within("place_kind", kind, 0, len(PLACES))
    a, b, c = (functions[f"place_{letter}"] for letter in "abc")
    swap, operation, literal = kind == SWAP, kind == OPERATION, kind == LITERAL
    named = ~(swap | operation | literal)
    high = np.where(swap, size, np.where(operation, len(OPERATORS), np.where(named, symbols, len(RESERVED))))
    check_within("place_a", a, 0, high)
    sets = 1 << len(OPERATORS)
    check_within("place_b", b, 0, np.where(swap, size, np.where(operation, sets, np.where(literal, 2, 1))))
    check_within("place_c", c, 0, np.where(operation, sets, 2))
    number = (a >= INT_TOKEN + INT_LOW) & (a <= INT_TOKEN + INT_HIGH)
    truth = (a == TRUE_TOKEN) | (a == FALSE_TOKEN)
    if (literal & ~number & ~truth).any():
        raise TreesError("place_a of a literal is not the token of a number or truth value")
    if (operation & ((b >> np.minimum(a, len(OPERATORS))) & 1 == 0)).any() or (
        operation & (c & ~b != 0)
    ).any():
        raise TreesError("place_b of an operator is not a set that it is in, or place_c no part of that")
    _swaps(functions, np.flatnonzero(swap))


def _swaps(functions: Functions, rows: Ints) -> None:
    """An exchange is one of two siblings."""
    base = np.asarray(functions.forest.ptr, np.int64)[functions.owner("place")[rows]]
    parent = functions.forest.absolute_parent
    one, two = base + functions["place_a"][rows], base + functions["place_b"][rows]
    if (one == two).any() or (parent[one] != parent[two]).any() or (parent[one] < 0).any():
        raise TreesError("place_a and place_b of an exchange are not two children of one node")
