"""Autocast in and around a module gives plain PyTorch's bits, or it is said that it does not."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import outsize
from outsize.errors import CaptureError

from .eager import differing, run


def _autocast(**options: Any) -> torch.autocast:
    return torch.autocast("cpu", torch.bfloat16, **options)


class Island(nn.Module):
    """A layer in float32 between two in bfloat16."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = (nn.Linear(32, 32) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        with _autocast(enabled=False):
            x = self.b(x.float())
        result: Tensor = self.c(x).float()
        return result


class Reused(nn.Module):
    """One weight used in several contexts: the cast is shared where the outermost one is the same."""

    def __init__(self, *contexts: Callable[[], Any]) -> None:
        super().__init__()
        self.layer, self.contexts = nn.Linear(32, 32), contexts

    def forward(self, x: Tensor) -> Tensor:
        for context in self.contexts:
            with context():
                for _ in range(3):
                    x = torch.tanh(self.layer(x.float()))
        return x.float()


class Within(nn.Module):
    def __init__(self, inner: Callable[[], nn.Module], **options: Any) -> None:
        super().__init__()
        self.inner, self.options = inner(), options

    def forward(self, x: Tensor) -> Tensor:
        with _autocast(**self.options):
            result: Tensor = self.inner(x)
        return result


NETS: dict[str, Callable[[], nn.Module]] = {
    "island": Island,
    "reused": lambda: Reused(contextlib.nullcontext, contextlib.nullcontext),
    "nested": lambda: Reused(_autocast, lambda: _autocast(enabled=False), _autocast),
}


@pytest.mark.parametrize(
    ("net", "around"),
    [
        ("island", "outside"),
        ("island", "inside"),
        ("reused", "outside"),
        ("reused", "inside"),
        ("reused", "uncached"),
        ("nested", "outside"),
        ("nested", "none"),
    ],
)
def test_bits_under_autocast(net: str, around: str) -> None:
    def make() -> nn.Module:
        if around == "none":
            return NETS[net]()
        return Within(NETS[net], cache_enabled=around != "uncached") if around != "outside" else NETS[net]()

    def step(module: nn.Module, number: int) -> Tensor:
        with _autocast() if around == "outside" else contextlib.nullcontext():
            loss: Tensor = module(torch.randn(64, 32)).square().mean()
        return loss

    plain = run(make, step, steps=2)
    assert differing(plain, run(make, step, lambda m, o: outsize.meter(m, optimizer=o), steps=2)) == []


def test_two_calls_under_one_autocast_are_said_to_differ() -> None:
    module = outsize.meter(nn.Linear(32, 32))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(2):
            with _autocast():
                module(torch.randn(64, 32)).float().mean().backward()
    with _autocast():
        module(torch.randn(64, 32)).float().mean().backward()
        with pytest.warns(RuntimeWarning, match="again under one autocast"):
            module(torch.randn(64, 32))


def test_a_backward_inside_of_autocast_is_refused_where_it_would_be_cast() -> None:
    module = outsize.meter(Island())
    with _autocast(), pytest.raises(CaptureError, match=r"call backward\(\) after the with block") as caught:
        module(torch.randn(64, 32)).mean().backward()
    assert f'File "{__file__}"' in str(caught.value)


def test_a_backward_inside_of_autocast_that_casts_nothing() -> None:
    def step(module: nn.Module, number: int) -> None:
        with _autocast():
            module(torch.randn(64, 32)).mean().backward()

    def make() -> nn.Module:
        return nn.Sequential(nn.Linear(32, 32), nn.GELU(), nn.Linear(32, 32))

    assert differing(run(make, step), run(make, step, lambda m, o: outsize.meter(m, optimizer=o))) == []


class Grid(nn.Module):
    """Grids of a computed theta and of a weight."""

    def __init__(self, dims: int, corners: bool) -> None:
        super().__init__()
        self.linear, self.weight = (
            nn.Linear(6, dims * (dims + 1)),
            nn.Parameter(torch.randn(2, dims, dims + 1)),
        )
        self.size, self.corners = (2, 3, 7, 5, 4)[: dims + 2], corners

    def forward(self, x: Tensor) -> Tensor:
        with _autocast():
            theta = self.linear(x).view(self.weight.shape)
            one, other = (
                F.affine_grid(t, self.size, align_corners=self.corners) for t in (theta, self.weight)
            )
            return (one.float() * other.float()).sin().sum()


@pytest.mark.parametrize(("dims", "corners"), [(2, False), (2, True), (3, False), (3, True)])
def test_a_grid_is_multiplied_in_low_precision_as_in_eager(dims: int, corners: bool) -> None:
    """The kernel of `affine_grid` calls a product, which autocast casts below the operator that is captured."""
    found = []
    for compiled in (False, True):
        torch.manual_seed(0)
        net, x = Grid(dims, corners), torch.randn(2, 6)
        loss = (outsize.compile(net, "1 GiB") if compiled else net)(x)
        loss.backward()
        found.append([loss.detach(), *(p.grad for p in net.parameters())])
    assert all(torch.equal(a, b) for a, b in zip(*found))
