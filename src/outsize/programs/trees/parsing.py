"""Text to forest: `parse` picks the front end."""

from __future__ import annotations

from pathlib import PurePath

from ...errors import TreesError
from .forest import Forest
from .python_front import parse_python
from .tree_sitter_front import GRAMMARS, parse_tree_sitter

#: File ending → language.
ENDINGS = {
    ".py": "python", ".pyi": "python", ".c": "c", ".h": "c", ".java": "java", ".js": "javascript",
    ".mjs": "javascript", ".cjs": "javascript", ".jsx": "javascript",
}  # fmt: skip


def language_of(path: str | PurePath) -> str:
    """Raises:
    TreesError: an ending that no front end reads.
    """
    ending = PurePath(path).suffix.lower()
    if ending not in ENDINGS:
        raise TreesError(f"{path}: unknown language; known endings are {' '.join(sorted(ENDINGS))}")
    return ENDINGS[ending]


def parse(source: str | bytes, language: str = "python", *, front: str | None = None) -> Forest:
    """The syntax tree of one text.

    Args:
        source: the text; bytes are UTF-8, or for Python's `ast` in the file's declared encoding.
        language: python, c, java or javascript.
        front: `ast` (Python only, and its default; a text that is not valid is an error) or `tree-sitter`
            (any language, broken text included).

    Returns:
        A forest of one tree. `forest.start` and `forest.end` are byte offsets into the UTF-8 text.

    Raises:
        TreesError: an unknown language or front end, text that `ast` cannot read, a grammar that is not
            installed.
    """
    if language not in GRAMMARS:
        raise TreesError(f"unknown language {language!r}; known are {', '.join(sorted(GRAMMARS))}")
    front = front or ("ast" if language == "python" else "tree-sitter")
    if front == "ast":
        if language != "python":
            raise TreesError(f"front end 'ast' reads python only, not {language}; use front='tree-sitter'")
        return parse_python(source)
    if front != "tree-sitter":
        raise TreesError(f"unknown front end {front!r}; there are 'ast' and 'tree-sitter'")
    return parse_tree_sitter(source.encode() if isinstance(source, str) else source, language)
