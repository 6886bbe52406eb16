"""The library of templates, by name. To add one: write the program, an `Entry` for it, and list it here
(docs/npi.md).
"""

from __future__ import annotations

from ....errors import NpiError
from . import arithmetic, graphs, integers, lists, sorting
from .entry import Entry

__all__ = ["LIBRARY", "Entry", "find"]

LIBRARY: dict[str, Entry] = {
    entry.name: entry
    for entry in (
        *arithmetic.ENTRIES,
        *lists.ENTRIES,
        *sorting.ENTRIES,
        *graphs.ENTRIES,
        *integers.ENTRIES,
    )
}


def find(name: str) -> Entry:
    """The template of that name.

    Raises:
        NpiError: there is none; the message names the nearest.
    """
    import difflib

    if name not in LIBRARY:
        near = difflib.get_close_matches(name.replace("-", "_"), LIBRARY, 1, 0.0)
        raise NpiError(
            f"there is no template {name!r}; the nearest is {near[0]}. All: {', '.join(sorted(LIBRARY))}"
        )
    return LIBRARY[name]
