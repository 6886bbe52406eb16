"""What random modules are put together from: activations of three forms, and pieces that keep the form.

A piece is a small module that maps a tensor to one of the same shape, so any sequence of pieces is a network. Each is
drawn with a random generator of its own: leaving one out, as the search for a smaller case does, changes no other.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

ROWS, SEQUENCE, IMAGE = "rows", "sequence", "image"


@dataclass(frozen=True, kw_only=True)
class Form:
    """Shape of the activations: (batch, width), (batch, length, width) or (batch, width, length, length)."""

    kind: str
    batch: int
    width: int
    length: int = 1

    @property
    def shape(self) -> tuple[int, ...]:
        return {
            ROWS: (self.batch, self.width),
            SEQUENCE: (self.batch, self.length, self.width),
            IMAGE: (self.batch, self.width, self.length, self.length),
        }[self.kind]

    @property
    def last(self) -> int:
        """Elements of the last dimension."""
        return self.shape[-1]


Make = Callable[[Form, random.Random], nn.Module]
#: Name of a piece → the kinds of form that it takes, and how one is made.
PIECES: dict[str, tuple[frozenset[str], Make]] = {}


def piece(*kinds: str) -> Callable[[type[nn.Module]], type[nn.Module]]:
    """Enter a module class, made from a form and a random generator, under its name."""

    def enter(made: type[nn.Module]) -> type[nn.Module]:
        assert made.__name__ not in PIECES, made.__name__
        PIECES[made.__name__] = (frozenset(kinds or (ROWS, SEQUENCE, IMAGE)), made)
        return made

    return enter


class Formula(nn.Module):
    """A piece without parameters: a function of the activation and a drawn number in [0, 1)."""

    def __init__(self, function: Callable[..., torch.Tensor], number: float) -> None:
        super().__init__()
        self.function, self.number = function, number

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x, self.number)


def formula(*kinds: str) -> Callable[[Callable[..., torch.Tensor]], Callable[..., torch.Tensor]]:
    """Enter a function of the activation and a drawn number under its name."""

    def enter(function: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        assert function.__name__ not in PIECES, function.__name__

        def make(form: Form, draw: random.Random) -> nn.Module:
            return Formula(function, draw.random())

        PIECES[function.__name__] = (frozenset(kinds or (ROWS, SEQUENCE, IMAGE)), make)
        return function

    return enter


class Between(nn.Module):
    """A layer for images or sequences with other axes: `there`, the layer, `back`."""

    def __init__(self, layer: nn.Module, axes: tuple[int, ...]) -> None:
        super().__init__()
        self.layer, self.axes = layer, axes
        self.back = tuple(axes.index(i) for i in range(len(axes)))

    def forward(self, x: torch.Tensor, *args: Any) -> torch.Tensor:
        return self.layer(x.permute(self.axes), *args).permute(self.back)
