"""Python, C, Java and JavaScript to a forest through tree-sitter, broken code included.

The grammars come in one wheel per language and are loaded from them; nothing is downloaded. The walk follows
a cursor, so depth costs no recursion; named nodes become nodes, and so do the anonymous ones that carry
meaning (operators and keywords), while brackets, commas and other punctuation are left out. Where the text
does not parse, tree-sitter leaves `ERROR` and missing nodes and goes on; they are nodes like others.
"""

from __future__ import annotations

import functools
import importlib
from typing import Any

import numpy as np

from ...errors import TreesError
from .forest import Forest

#: Language → the wheel's module. File endings are in `parsing.ENDINGS`.
GRAMMARS = {
    "python": "tree_sitter_python", "c": "tree_sitter_c", "java": "tree_sitter_java",
    "javascript": "tree_sitter_javascript",
}  # fmt: skip
#: Longer leaf texts are cut; they are literals and comments.
_LONGEST = 60
_PUNCTUATION = frozenset("()[]{},;:.\"'`")


@functools.cache
def _grammar(language: str) -> tuple[Any, Any, tuple[str, ...], tuple[str, ...]]:
    """Parser, language, kind names and field names.

    Raises:
        TreesError: the extra is not installed.
    """
    try:
        import tree_sitter

        grammar = tree_sitter.Language(importlib.import_module(GRAMMARS[language]).language())
    except ImportError as error:
        raise TreesError(
            f"the tree-sitter grammar for {language} is not installed: pip install 'outsize[trees]' ({error})"
        ) from error
    kinds = tuple(grammar.node_kind_for_id(i) or "ERROR" for i in range(grammar.node_kind_count))
    fields = tuple(grammar.field_name_for_id(i) or "" for i in range(grammar.field_count + 1))
    return tree_sitter.Parser(grammar), grammar, (*kinds, "ERROR"), ("", *fields[1:])


def parse_tree_sitter(text: bytes, language: str) -> Forest:
    """One tree for the whole text, in reading order turned breadth-first.

    Raises:
        TreesError: an unknown language, or its grammar is not installed.
    """
    if language not in GRAMMARS:
        raise TreesError(f"unknown language {language!r}; known are {', '.join(sorted(GRAMMARS))}")
    parser, _, kinds, fields = _grammar(language)
    rows, tokens = _walk(parser.parse(text).walk(), text, len(kinds) - 1)
    kind, field, parent, start, end, token = (np.asarray(column) for column in zip(*rows))
    return Forest.from_parents(
        [parent],
        kind=kind,
        field=field,
        start=start,
        end=end,
        token=token,
        kinds=kinds,
        fields=fields,
        tokens=tokens,
    )


def _walk(cursor: Any, text: bytes, error: int) -> tuple[list[tuple[int, ...]], list[str]]:
    """`(kind, field, parent, start, end, token)` of every kept node, in reading order, and the tokens'
    texts.
    """
    rows: list[tuple[int, ...]] = []
    numbers: dict[str, int] = {"": 0}
    above = [-1]
    while True:
        node = cursor.node
        kept = node.is_named or not _PUNCTUATION.issuperset(node.type)
        if kept or above[-1] < 0:
            kind = node.kind_id if node.kind_id < error else error
            token = ""
            if node.child_count == 0:
                token = text[node.start_byte : min(node.end_byte, node.start_byte + _LONGEST)].decode(
                    errors="replace"
                )
            number = numbers.setdefault(token, len(numbers))
            rows.append((kind, cursor.field_id or 0, above[-1], node.start_byte, node.end_byte, number))
        if cursor.goto_first_child():
            above.append(len(rows) - 1 if kept or len(above) == 1 else above[-1])
            continue
        while not cursor.goto_next_sibling():
            if not cursor.goto_parent():
                return rows, list(numbers)
            above.pop()
