"""What an optimizer keeps of one parameter, as far as it may rest on a tier between two updates."""

from __future__ import annotations

from dataclasses import dataclass

from .ranges import Count, MaybeIndex


@dataclass(frozen=True, kw_only=True)
class StateUnit:
    """The state of one parameter: it comes and goes as a whole.

    Attributes:
        name: of the parameter.
        nbytes: of its tensors, those too small to be worth a transfer left out.
        place: of the parameter among the inputs of the captured step, where its update may run in the backward; else -1.
    """

    name: str
    nbytes: Count
    place: MaybeIndex = -1
