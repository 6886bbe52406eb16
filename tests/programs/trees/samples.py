"""Real functions to test on: modules of the standard library that exercise most of the syntax."""

from __future__ import annotations

import functools
import importlib.util
from pathlib import Path

import numpy as np

from outsize.programs.trees.functions import Functions
from outsize.programs.trees.grammar import ATTRIBUTE, KIND, LITERAL, OPERATION, OPERATORS, SWAP, VARIABLE
from outsize.programs.trees.python_front import Source, python_functions

MODULES = ("bisect", "calendar", "textwrap", "heapq", "fractions", "statistics", "configparser", "shutil")


@functools.cache
def module(name: str) -> bytes:
    spec = importlib.util.find_spec(name)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).read_bytes()


def functions(name: str) -> tuple[Source, Functions]:
    """Fresh arrays on every call: tests write bugs into them."""
    return Source(module(name)), python_functions(module(name))


def replacement(functions: Functions, text: bytes, row: int, value: int) -> list[tuple[int, int, bytes]]:
    """The edits of the text that put candidate `value` at place `row` of unchanged functions."""
    forest = functions.forest
    function = int(functions.owner("place")[row])
    base = int(forest.ptr[function])
    node, kind = base + int(functions["place_node"][row]), int(functions["place_kind"][row])
    start, end = int(forest.start[node]), int(forest.end[node])
    if kind == SWAP:
        a, b = sorted(
            (base + int(functions["place_a"][row]), base + int(functions["place_b"][row])),
            key=lambda n: int(forest.start[n]),
        )
        (s1, e1), (s2, e2) = ((int(forest.start[n]), int(forest.end[n])) for n in (a, b))
        return [(s1, e1, text[s2:e2]), (s2, e2, text[s1:e1])]
    if kind == OPERATION:
        suffix = "=" if forest.kind[base + int(forest.parent[node])] == KIND["AugAssign"] else ""
        return [(start, end, (OPERATORS[value] + suffix).encode())]
    if kind == LITERAL:
        return [(start, end, forest.tokens[value].encode())]
    assert kind in (VARIABLE, ATTRIBUTE)
    name = forest.tokens[int(functions["symbol_token"][value])].encode()
    if kind == ATTRIBUTE:
        start = end - len(forest.tokens[int(forest.token[node])].encode())
    return [(start, end, name)]


def spliced(text: bytes, edits: list[tuple[int, int, bytes]]) -> bytes:
    for start, end, new in sorted(edits, reverse=True):
        text = text[:start] + new + text[end:]
    return text


def token_texts(functions: Functions) -> np.ndarray:
    return np.array(functions.forest.tokens, object)[functions.forest.token]
