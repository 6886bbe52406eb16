"""Hooks run as they do in plain PyTorch: there from the start, registered between steps, removed again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules import module as all_modules
from torch.utils.hooks import RemovableHandle

import outsize
from outsize.errors import CaptureError

from .eager import differing, run

Register = Callable[[nn.Module, list[Any]], RemovableHandle]


def _net() -> nn.Module:
    return nn.Sequential(*(nn.Sequential(nn.Linear(16, 16), nn.GELU()) for _ in range(2)), nn.Linear(16, 4))


class _Halving:
    def __call__(self, module: nn.Module, args: Any, result: Tensor) -> Tensor | None:
        return None if torch.compiler.is_compiling() else result * 0.5


def _counts(module: nn.Module, seen: list[Any]) -> RemovableHandle:
    number = 0

    def hook(*_: Any) -> None:
        nonlocal number
        number += 1
        seen.append(number)

    return module[1].register_forward_hook(hook)  # type: ignore[index]


def _double(parameter: Tensor) -> None:
    assert parameter.grad is not None
    parameter.grad *= 2


KINDS: dict[str, Register] = {
    "stores a result": lambda m, s: m[1].register_forward_hook(lambda *a: s.append(a[2])),
    "stores the module's result": lambda m, s: m.register_forward_hook(lambda *a: s.append(a[2])),
    "changes an argument": lambda m, s: m[0].register_forward_pre_hook(lambda _, a: (a[0] * 2,)),
    "changes the module's argument": lambda m, s: m.register_forward_pre_hook(lambda _, a: (a[0] * 2,)),
    "of all modules": lambda m, s: all_modules.register_module_forward_hook(
        lambda mod, _, r: r * 1.5 if isinstance(mod, nn.GELU) else None
    ),
    "on the backward": lambda m, s: m.register_full_backward_pre_hook(lambda _, g: (g[0] * 2,)),
    "on a parameter": lambda m, s: m[0][0].weight.register_hook(lambda g: g * 2),
    "after accumulation": lambda m, s: m[0][0].weight.register_post_accumulate_grad_hook(_double),
    "not while compiling": lambda m, s: m[1].register_forward_hook(_Halving()),
    "counts": _counts,
}


@pytest.mark.filterwarnings("ignore:Full backward hook is firing")
@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("kind", KINDS)
def test_hooks_of_every_kind(kind: str, first: int) -> None:
    handles: list[RemovableHandle] = []

    def step(module: nn.Module, number: int) -> Tensor:
        stored: list[Any] = []
        if number == first:
            handles.append(KINDS[kind](module, stored))
        if number == first + 1:
            handles.pop().remove()
        loss: Tensor = module(torch.randn(8, 16)).square().mean()
        return loss + sum(torch.as_tensor(s).float().square().mean() for s in stored)

    results = []
    for prepare in (None, lambda m, o: outsize.meter(m, optimizer=o)):
        try:
            results.append(run(_net, step, prepare))
        finally:
            while handles:
                handles.pop().remove()
    assert differing(*results) == []


def test_a_hook_on_the_backward_of_a_submodule_is_refused_with_its_line() -> None:
    module = outsize.meter(_net())
    module(torch.randn(8, 16)).sum().backward()
    module[1].register_full_backward_hook(lambda *_: None)  # type: ignore[index]
    with pytest.raises(CaptureError, match="register it on the compiled module itself") as caught:
        module(torch.randn(8, 16))
    assert f'File "{__file__}"' in str(caught.value)
    assert "hook of 1" in str(caught.value)
