"""What programs return, found while they are recorded or explored.

A loop's function returns what the one around it returns, and a path that returns nothing is a no where another returns
True. So how a return is recorded depends on other paths; where these come to light too late, the recording starts anew.
"""

from __future__ import annotations

from typing import Literal, final

__all__ = ["Kind", "Reconsider", "Returns"]

#: What a function returns: nothing, a yes or no that its caller observes, or a value that its caller keeps.
Kind = Literal["nothing", "bit", "value"]


class Reconsider(Exception):
    """A function was found to return otherwise than it was taken to: what was recorded until now is void."""


@final
class Returns:
    """The kinds of return of each program. A program that ends by calling another returns what that one does."""

    def __init__(self) -> None:
        self._kinds: dict[str, set[Kind]] = {}

    def __getitem__(self, name: str) -> set[Kind]:
        return self._kinds.setdefault(name, set())

    def add(self, name: str, kind: Kind) -> Kind:
        """How a return is to be recorded: as a value if any path returns one, else as a bit if any does.

        Raises:
            Reconsider: earlier returns of this program were recorded otherwise.
        """
        known = self[name]
        if kind not in known:
            known.add(kind)
            if len(known) > 1:
                raise Reconsider
        return "value" if "value" in known else "bit" if "bit" in known else "nothing"

    def join(self, name: str, other: str) -> None:
        """Learn that a program ends by calling another.

        Raises:
            Reconsider: they were taken to return differently.
        """
        one, two = self[name], self[other]
        if one is two:
            return
        differ = bool(one and two and one != two)
        one |= two
        for known in [n for n, kinds in self._kinds.items() if kinds is two]:
            self._kinds[known] = one
        if differ:
            raise Reconsider
