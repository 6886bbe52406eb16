"""An injected bug is what an editor would have typed: writing into the packed arrays equals parsing the
edited text.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from outsize.programs.trees.batch import collate
from outsize.programs.trees.evaluate import rewrite_probabilities
from outsize.programs.trees.functions import Functions
from outsize.programs.trees.grammar import ATTRIBUTE, LITERAL, OPERATION, OPERATORS, SWAP, VARIABLE
from outsize.programs.trees.inject import KINDS, allowed, inject
from outsize.programs.trees.model import Detector, DetectorConfig
from outsize.programs.trees.python_front import python_functions
from outsize.programs.trees.rewrites import candidates
from outsize.programs.trees.words import WordTable

from .samples import MODULES, functions, replacement, spliced, token_texts

EVERY = (*KINDS, ATTRIBUTE)


def outline(drawn: Functions, index: int) -> list[tuple[object, ...]]:
    """A function as its nodes in reading order, names resolved: what must not depend on how it came about."""
    one = drawn.select([index])
    order = np.argsort(one.order)
    symbol_at = {}
    for node, symbol, role in zip(one["occurrence_node"], one["occurrence_symbol"], one["occurrence_role"]):
        name = one.forest.tokens[one["symbol_token"][symbol]]
        symbol_at[int(node)] = (name, int(one["symbol_group"][symbol] > 0), int(role))
    texts = token_texts(one)
    return [
        (int(one.forest.kind[n]), int(one.forest.field[n]), int(one.forest.pos[n]), texts[n],
         int(one.last[n] - one.order[n]), symbol_at.get(int(n)))
        for n in order
    ]  # fmt: skip


@pytest.mark.parametrize("name", MODULES)
def test_packed_bug_equals_parsed_bug(name: str) -> None:
    source, original = functions(name)
    _, changed = functions(name)
    bugs = inject(changed, np.random.default_rng(3), share=1.0, kinds=EVERY)
    for index in np.flatnonzero(bugs.kind >= 0):
        edits = replacement(original, source.text, int(bugs.place[index]), int(bugs.wrong[index]))
        parsed = python_functions(spliced(source.text, edits))
        assert parsed.count == original.count
        assert outline(changed, index) == outline(parsed, index), (name, index, edits)


def test_the_detector_sees_no_trace_of_the_injection() -> None:
    """Same probabilities for a function with an injected bug and for its text parsed anew (nothing leaks).

    Left out: a name changed inside a call so that two arguments became the same text or different ones; the
    parsed text then has one pair of arguments less or more, which no other candidate's score depends on.
    """
    torch.manual_seed(0)
    model = Detector(DetectorConfig(width=16, layers=2, rows=512, inner=8, head=8)).double().eval()
    source, original = functions("textwrap")
    _, changed = functions("textwrap")
    bugs = inject(changed, np.random.default_rng(5), share=1.0)
    assert set(KINDS) == set(bugs.kind.tolist()) - {-1}
    compared = 0
    for index in np.flatnonzero(bugs.kind >= 0):
        edits = replacement(original, source.text, int(bugs.place[index]), int(bugs.wrong[index]))
        parsed = python_functions(spliced(source.text, edits))
        one, other = spectrum(model, changed.select([index])), spectrum(model, parsed.select([index]))
        if bugs.kind[index] == VARIABLE and len(one) != len(other):
            continue
        np.testing.assert_allclose(one, other, rtol=1e-5)  # scores are float32
        compared += 1
    assert compared >= 0.9 * (bugs.kind >= 0).sum()


def spectrum(model: Detector, drawn: Functions) -> np.ndarray:
    batch = collate(drawn, WordTable(drawn.forest.tokens, model.config.rows), kinds=KINDS)
    with torch.no_grad():
        share, _ = rewrite_probabilities(batch, model(batch)[1])
    return np.sort(share)


def test_every_bug_has_its_repair_among_the_candidates() -> None:
    for name in MODULES:
        _, drawn = functions(name)
        bugs = inject(drawn, np.random.default_rng(1), share=1.0, kinds=EVERY)
        table = candidates(drawn)
        for index in np.flatnonzero(bugs.kind >= 0):
            here = (table.place == bugs.place[index]) & ~table.current
            assert bugs.right[index] in table.value[here]


def options(text: str, kind: int) -> set[str]:
    """What may be injected at places of one kind, spelled out."""
    drawn = python_functions(text)
    table = candidates(drawn, (kind,))
    rows = np.flatnonzero(allowed(drawn, table))
    if kind == OPERATION:
        return {OPERATORS[v] for v in table.value[rows]}
    if kind == LITERAL:
        return {drawn.forest.tokens[v] for v in table.value[rows]}
    if kind == SWAP:
        return {"swap"} if len(rows) else set()
    return {drawn.forest.tokens[drawn["symbol_token"][v]] for v in table.value[rows]}


@pytest.mark.parametrize(
    ("text", "kind", "never"),
    [
        ("def f(x):\n return x + 0", OPERATION, {"-"}),
        ("def f(x):\n return x * 1", OPERATION, {"/", "//"}),
        ("def f(x):\n return len(x) > 0", OPERATION, {"!="}),
        ("def f(x):\n return len(x) == 0", OPERATION, {"<="}),
        ("def f(x):\n return x and x", OPERATION, {"or"}),
        ("def f():\n return 2 < 3", OPERATION, {"<=", "!="}),
        ("def f(a, b):\n return max(a, b)", SWAP, {"swap"}),
        ("def f(a):\n return g(a, a)", SWAP, {"swap"}),
        ("def f(a):\n b = a\n return b", VARIABLE, {"a", "b"}),
        ("def f(a):\n return 57", LITERAL, {"0", "1", "2", "-1"}),
    ],
)
def test_changes_that_change_nothing_are_never_injected(text: str, kind: int, never: set[str]) -> None:
    assert options(text, kind) & never == set()


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("def f(a, b, c):\n return a + b * c", {"-", "/", "//", "%"}),  # regrouping is excluded
        ("def f(a, b, c):\n return (a + b) * c", {"-", "/", "//", "%", "+"} | {"*"}),
        ("def f(a, b):\n a += b", {"-", "*", "/", "//", "%"}),
        ("def f(a, b, c):\n return a and b or c", set()),
        ("def f(a, b, c):\n return a and (b or c)", {"or", "and"}),
        ("def f(a):\n return a not in 'xy'", {"in"}),
    ],
)
def test_only_operators_that_keep_the_grouping_are_proposed(text: str, fits: set[str]) -> None:
    found = options(text, OPERATION)
    assert found <= fits
    assert bool(found) == bool(fits)


def test_injection_is_reproducible_and_leaves_the_rest_alone() -> None:
    first, second = functions("heapq")[1], functions("heapq")[1]
    a = inject(first, np.random.default_rng(9), share=0.5)
    b = inject(second, np.random.default_rng(9), share=0.5)
    np.testing.assert_array_equal(a.place, b.place)
    np.testing.assert_array_equal(first.forest.token, second.forest.token)
    untouched = functions("heapq")[1]
    for index in np.flatnonzero(a.kind < 0):
        assert outline(first, index) == outline(untouched, index)
