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


@torch.library.custom_op("outsize_tests::gram", mutates_args=())
def gram(x: Tensor) -> Tensor:
    return (x.T @ x).float()


def _keep(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


gram.register_fake(lambda x: x.new_empty(x.shape[1], x.shape[1]))
gram.register_autograd(lambda ctx, grad: ctx.saved_tensors[0] @ (grad + grad.T), setup_context=_keep)
INSIDE: dict[str, Callable[[nn.Bilinear, Tensor], Tensor]] = {
    "bilinear": lambda layer, y: layer(y, y),
    "least squares": lambda layer, y: torch.linalg.lstsq(y[:16] + 3 * torch.eye(16), y[:16]).solution,
    "custom operator": lambda layer, y: gram(y),
}


class Inside(nn.Module):
    """An operator whose kernel multiplies, under the autocast around it, in one of its own, or in an island without."""

    def __init__(self, name: str, where: str) -> None:
        super().__init__()
        self.linear, self.layer = nn.Linear(16, 16), nn.Bilinear(16, 16, 16)
        self.operator, self.where = INSIDE[name], where

    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(x).float()
        if self.where == "around":
            return self.linear(self.operator(self.layer, y))
        with _autocast(enabled=self.where == "own"):
            y = self.operator(self.layer, y)
        return self.linear(y)


def _inside(name: str, where: str, *, compiled: bool) -> list[Tensor]:
    around = contextlib.nullcontext() if where == "own" else _autocast()
    torch.manual_seed(0)
    net, x = Inside(name, where), torch.randn(64, 16)
    if compiled:
        outsize.compile(net, "1 GiB")
    with around:
        loss = net(x).float().square().mean()
    loss.backward()
    return [loss.detach(), *(p.grad for p in net.parameters() if p.grad is not None)]


#: That one is not captured, and an observed step cannot tell what autocast is inside of the module.
REFUSED = [*((name, "own") for name in INSIDE), ("least squares", "island")]
TRAINED = [(n, where) for n in INSIDE for where in ("around", "island") if (n, where) not in REFUSED]


@pytest.mark.parametrize(("name", "where"), TRAINED)
def test_a_kernel_that_multiplies_is_cast_as_in_eager(name: str, where: str) -> None:
    plain, planned = (_inside(name, where, compiled=compiled) for compiled in (False, True))
    assert all(torch.equal(a, b) for a, b in zip(plain, planned, strict=True))


@pytest.mark.parametrize(("name", "where"), REFUSED)
def test_a_kernel_that_multiplies_in_an_autocast_of_the_module_is_refused(name: str, where: str) -> None:
    _inside(name, where, compiled=False)
    with pytest.raises(CaptureError, match="enter autocast around"):
        _inside(name, where, compiled=True)
