"""What in the text speaks for a finding, counted and not learned.

A probability convinces nobody. For each place there is something to count: how often the two names are read elsewhere
in the function, which operators and numbers stand beside, what the parameters of the called function are called.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping

import numpy as np

from .forest import Ints
from .functions import Functions
from .grammar import (
    ATTRIBUTE,
    CALLED,
    KIND,
    LITERAL,
    LOAD,
    OPERATION,
    OPERATORS,
    PARAMETER,
    STORE,
    SWAP,
    VARIABLE,
)

#: Name of a function or method → its positional parameters, `self` and `cls` left out.
Signatures = Mapping[str, tuple[str, ...]]
_NAME, _ATTRIBUTE = KIND["Name"], KIND["Attribute"]


def signatures(tree: ast.Module) -> dict[str, tuple[str, ...]]:
    """Of the functions and methods of a file; a name that is defined in two ways is left out."""
    found: dict[str, tuple[str, ...] | None] = {}
    stack: list[tuple[ast.AST, bool]] = [(node, False) for node in tree.body]
    while stack:
        node, method = stack.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            plain = any(getattr(d, "id", "") == "staticmethod" for d in node.decorator_list)
            given = [arg.arg for arg in (*node.args.posonlyargs, *node.args.args)]
            own = tuple(given[1:] if method and not plain else given)
            found[node.name] = own if found.get(node.name, own) == own else None
        elif isinstance(node, ast.stmt):
            stack.extend((child, isinstance(node, ast.ClassDef)) for child in ast.iter_child_nodes(node))
    return {name: own for name, own in found.items() if own is not None}


def settled(functions: Functions, known: Signatures) -> Ints:
    """`[place rows]`: two arguments that are called as the parameters at their places, so their order is right."""
    result = np.zeros(len(functions["place_kind"]), np.bool_)
    if known:
        for row in np.flatnonzero(functions["place_kind"] == SWAP).tolist():
            result[row] = _order(functions, row, known) == 1
    return result


def _order(functions: Functions, row: int, known: Signatures) -> int:
    """1 where the two arguments are called as their parameters, -1 where as each other's, else 0."""
    called, pair, names = _call(functions, row, known)
    if not called or not all(names):
        return 0
    parameters = known[called]
    if max(pair) >= len(parameters):
        return 0
    first, second = parameters[pair[0]], parameters[pair[1]]
    return 1 if names == (first, second) else -1 if names == (second, first) else 0


def _call(functions: Functions, row: int, known: Signatures) -> tuple[str, tuple[int, int], tuple[str, str]]:
    """The known function that is called, the places of the two arguments, and their names where they have one."""
    forest, owner = functions.forest, functions.owner_of("place", row)
    base, end = int(forest.ptr[owner]), int(forest.ptr[owner + 1])
    nodes = [base + int(functions["place_a"][row]), base + int(functions["place_b"][row])]
    # Children follow their parents in breadth-first order: the first of the call's is what is called.
    callee = base + int(np.searchsorted(forest.parent[base:end], functions["place_node"][row]))
    kind, name = int(forest.kind[callee]), forest.tokens[int(forest.token[callee])]
    if kind not in (_NAME, _ATTRIBUTE) or name not in known:
        return "", (0, 0), ("", "")
    names = [
        forest.tokens[int(forest.token[n])] if forest.kind[n] in (_NAME, _ATTRIBUTE) else "" for n in nodes
    ]
    places = [int(forest.pos[n]) - 1 for n in nodes]
    return name, (places[0], places[1]), (names[0], names[1])


def evidence(functions: Functions, row: int, value: int, known: Signatures) -> str:
    """One sentence on the place of a row and what is proposed for it; empty where nothing speaks."""
    kind = int(functions["place_kind"][row])
    if kind in (VARIABLE, ATTRIBUTE):
        return _names(functions, row, value, kind)
    if kind == SWAP:
        called, _, _ = _call(functions, row, known)
        return f"the parameters of `{called}` are ({', '.join(known[called])})" if called else ""
    return _beside(functions, row, value, kind)


def _names(functions: Functions, row: int, value: int, kind: int) -> str:
    owner = functions.owner_of("place", row)
    first = int(functions["symbol_ptr"][owner])
    low, high = (int(p) for p in functions["occurrence_ptr"][owner : owner + 2])
    symbol, role = functions["occurrence_symbol"][low:high], functions["occurrence_role"][low:high]
    own, other = int(functions["place_a"][row]), value - first
    tokens, names = functions.forest.tokens, functions["symbol_token"]
    here, there = tokens[int(names[first + own])], tokens[int(names[value])]
    reads = np.isin(role, (LOAD, CALLED))
    mine, theirs = int((reads & (symbol == own)).sum()) - 1, int((reads & (symbol == other)).sum())
    if kind == ATTRIBUTE:
        return f"`{there}` is read {_times(theirs)} of the same object in this function, `{here}` {_elsewhere(mine)}"
    what = "parameter " if (role[symbol == other] == PARAMETER).any() else ""
    if not theirs and ((role == STORE) | (role == PARAMETER))[symbol == other].any():
        return f"the {what or 'variable '}`{there}` is read nowhere in this function"
    return f"`{there}` is read {_times(theirs)} in this function, `{here}` {_elsewhere(mine)}"


def _beside(functions: Functions, row: int, value: int, kind: int) -> str:
    """How often the function has the present and the proposed operator or number."""
    owner = functions.owner_of("place", row)
    low, high = (int(p) for p in functions["place_ptr"][owner : owner + 2])
    alike = functions["place_a"][low:high][functions["place_kind"][low:high] == kind]
    own = int(functions["place_a"][row])
    texts = functions.forest.tokens
    here, there = (OPERATORS[v] if kind == OPERATION else texts[v] for v in (own, value))
    word = "operator" if kind == OPERATION else "value"
    assert kind in (OPERATION, LITERAL)
    mine, theirs = int((alike == own).sum()) - 1, int((alike == value).sum())
    if not theirs:
        return ""
    return f"the {word} `{there}` stands {_times(theirs)} in this function, `{here}` {_elsewhere(mine)}"


def _times(count: int) -> str:
    return "nowhere" if not count else "once" if count == 1 else f"{count} times"


def _elsewhere(count: int) -> str:
    return "nowhere else" if not count else "once more" if count == 1 else f"{count} times more"
