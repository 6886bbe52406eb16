"""What may rest on a tier: what an optimizer keeps of a parameter, between updates; a frozen one, between its uses."""

from __future__ import annotations

from dataclasses import dataclass

from .ranges import Count, Index, MaybeIndex


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


@dataclass(frozen=True, kw_only=True)
class ParameterUnit:
    """A parameter that nobody trains.

    Attributes:
        name: in the module.
        nbytes: of its storage, which is its own.
        place: among the inputs of the captured step.
    """

    name: str
    nbytes: Count
    place: Index
