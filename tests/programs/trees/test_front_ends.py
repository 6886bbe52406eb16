"""Text to forest and back: every span slices to its text, whatever the language, and bad text is a clear
error.
"""

from __future__ import annotations

import ast

import numpy as np
import pytest

from outsize.errors import TreesError
from outsize.programs.trees import parse
from outsize.programs.trees.grammar import OPERATION, PLACES
from outsize.programs.trees.python_front import Source, python_functions

from .samples import MODULES, functions, module, token_texts

TRICKY = '''\
# -*- coding: utf-8 -*-
def größe(a, b=-1, *c, d: int = 4, **e):
    """docstring"""
    x = (a  # + not this one
         + b) * 2 if not \\
        in_(a) else a is  not b
    x -= self.y(i, 'ä', -1); f"{x!r:>{b}}"
    for i in range(0, len(c)):
        del c[i]
    with open(a) as g, h: pass
    try: return [k + x for k in c if k]
    except (E, F) as q: raise q from None
    return lambda z: z * a and (yield)
'''


def test_every_place_slices_back_to_what_it_says() -> None:
    source = Source(TRICKY)
    found = python_functions(TRICKY)
    forest = found.forest.check()
    texts = token_texts(found)
    for node in range(forest.nodes):
        said = source.text[forest.start[node] : forest.end[node]].decode()
        kind = forest.kinds[forest.kind[node]]
        if kind in ("Name", "NameStore", "Identifier") and "{" not in said:
            assert said == texts[node]
        elif kind in ("Attribute", "AttributeStore"):
            assert said.endswith(texts[node])
        elif kind in ("Int", "Str") and "{" not in said:
            assert ast.literal_eval(said) == (int(texts[node]) if kind == "Int" else texts[node])
    for node, place in zip(found["place_node"], found["place_kind"]):
        said = source.text[forest.start[node] : forest.end[node]].decode()
        if place == OPERATION:
            assert "".join(said.split()).rstrip("=") in (texts[node].replace(" ", ""), "")


@pytest.mark.parametrize("name", MODULES)
def test_spans_nest_and_agree_with_ast(name: str) -> None:
    source, found = functions(name)
    forest = found.forest.check()
    roots = forest.ptr[:-1]
    wanted = {
        source.offset(n.lineno, n.col_offset)
        for n in ast.walk(ast.parse(source.text))
        if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert set(forest.start[roots].tolist()) <= wanted
    assert (forest.start <= forest.end).all()
    inner = np.flatnonzero(forest.parent >= 0)
    above = forest.absolute_parent[inner]
    decorated = forest.fields.index("decorator_list")
    tight = forest.field[inner] != decorated
    argument = forest.kind[inner] != 0
    default = np.isin(
        forest.field[inner], [forest.fields.index(n) for n in ("default", "type", "annotation")]
    )
    inside = tight & argument & ~default
    assert (forest.start[above[inside]] <= forest.start[inner[inside]]).all()


def test_scopes() -> None:
    text = (
        "def f(a, b):\n    global g\n    g = [a for a in b]\n    def h(a, c=b):\n        nonlocal b\n"
        "        b = c\n        return a\n    class K:\n        b = 3\n"
        "    return lambda b: b + a, os.path, os.sep\n"
    )
    found = python_functions(text)
    names = [found.forest.tokens[t] for t in found["symbol_token"]]
    local = [n for n, g in zip(names, found["symbol_group"]) if g == 0]
    # a and b of f; a of the comprehension; a and c of h; h and K; b of the lambda. The class's b is no local.
    assert sorted(local) == sorted(["a", "b", "a", "a", "c", "h", "K", "b"])
    assert [n for n, g in zip(names, found["symbol_group"]) if g] == ["path", "sep"]
    outer_b = names.index("b")
    uses = found["occurrence_symbol"] == outer_b
    assert uses.sum() == 4  # parameter, iterated, default of c, set in h


def test_f_strings_are_read_and_never_suspected() -> None:
    found = python_functions("def f(a, b):\n    return f'{a + b:{a}} {a > 1}'\n")
    assert found["occurrence_symbol"].tolist() == [0, 0, 0, 1, 1]
    assert found["place_node"].tolist() == []


def test_kinds_of_places() -> None:
    found = python_functions("def f(a, b):\n    if a < 1:\n        return g(a, b.x), b.y, True\n")
    assert {PLACES[k] for k in found["place_kind"]} == set(PLACES)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("def f(:", "not valid Python"),
        ("(" * 10_000 + "1" + ")" * 10_000, "nested"),
        ("x = " + "-" * 200_000 + "1", "gave up"),
        (b"\xff\xfe\x00", "not readable"),
        (b"# coding: nonsense\n", "not readable"),
        ("a\x00b", "not valid Python|gave up"),
    ],
)
def test_text_that_is_no_python(text: str | bytes, match: str) -> None:
    with pytest.raises(TreesError, match=match):
        parse(text)


def test_declared_encoding_line_ends_and_empty_text() -> None:
    assert parse("").nodes == parse(b"").nodes == 1
    latin = "# coding: latin-1\r\ndef f(é):\r\n    return é + 1\r\n".encode("latin-1")
    found = python_functions(latin)
    source = Source(latin)
    last = int(found["place_node"][-1])
    assert source.text[found.forest.start[last] : found.forest.end[last]].decode() == "é"


def test_what_cannot_be_asked() -> None:
    for args, match in (
        ({"language": "cobol"}, "unknown language 'cobol'; known are c, java"),
        ({"language": "c", "front": "ast"}, "reads python only"),
        ({"front": "yacc"}, "unknown front end"),
    ):
        with pytest.raises(TreesError, match=match):
            parse("x", **args)  # type: ignore[arg-type]


def test_a_huge_function_is_left_out_with_all_its_rows() -> None:
    long = "def big():\n" + "".join(f"    x{i} = {i} + 1\n" for i in range(300))
    small = "def small(a, b):\n    return a + b\n"
    both = python_functions(long + small, max_nodes=200)
    alone = python_functions(small, max_nodes=200)
    assert both.count == alone.count == 1
    for name, column in alone.columns.items():
        if name != "symbol_token":
            np.testing.assert_array_equal(both[name], column, err_msg=name)


BROKEN = {
    "python": b"def f(x):\n  return x +* 1\n\xff'ok'",
    "c": b"int main(void { int a = 1; return a << 2 }",
    "java": b"class A { int f(int x) { return x % ; } ",
    "javascript": b"const f = (a, b => a === b ? 1 : [2",
}


@pytest.mark.parametrize("language", BROKEN)
def test_tree_sitter_takes_broken_text_and_slices_back(language: str) -> None:
    text = BROKEN[language]
    forest = parse(text, language, front="tree-sitter").check()
    assert (forest.start[0], forest.end[0]) == (min(forest.start), len(text))
    children = np.bincount(forest.parent[1:], minlength=forest.nodes)
    for node in np.flatnonzero(children == 0):
        said = text[forest.start[node] : forest.end[node]].decode(errors="replace")
        assert said.startswith(forest.tokens[forest.token[node]])
    inner = np.arange(1, forest.nodes)
    assert (forest.start[forest.parent[inner]] <= forest.start[inner]).all()
    assert (forest.end[forest.parent[inner]] >= forest.end[inner]).all()


@pytest.mark.parametrize("language", BROKEN)
def test_tree_sitter_has_no_limit_of_depth(language: str) -> None:
    deep = "(" * 10_000 + "1" + ")" * 10_000
    forest = parse(deep, language, front="tree-sitter")
    assert forest.nodes > 10_000
    assert parse("", language, front="tree-sitter").nodes == 1


def test_both_front_ends_find_the_same_names() -> None:
    text = module("bisect")
    with_ast = parse(text)
    with_sitter = parse(text, front="tree-sitter")
    named = [k in ("Name", "NameStore", "arg") for k in np.array(with_ast.kinds, object)[with_ast.kind]]
    ours = {(int(s), with_ast.tokens[t]) for s, t, n in zip(with_ast.start, with_ast.token, named) if n}
    identifier = np.array(with_sitter.kinds, object)[with_sitter.kind] == "identifier"
    theirs = {
        (int(s), with_sitter.tokens[t])
        for s, t, n in zip(with_sitter.start, with_sitter.token, identifier)
        if n
    }
    assert ours <= theirs
