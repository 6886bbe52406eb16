"""What an optimizer keeps of one parameter, as far as it may rest on a tier between two updates."""

from __future__ import annotations

from dataclasses import dataclass

from .ranges import Count


@dataclass(frozen=True, kw_only=True)
class StateUnit:
    """The state of one parameter: it comes and goes as a whole.

    Attributes:
        name: of the parameter.
        nbytes: of its tensors, those too small to be worth a transfer left out.
    """

    name: str
    nbytes: Count
