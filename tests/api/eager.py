"""The same steps in plain PyTorch and compiled, compared in every bit: losses, gradients or their absence, state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

Step = Callable[[nn.Module, int], Tensor | None]
Prepare = Callable[[nn.Module, torch.optim.Optimizer], Any]


def adam(module: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(module.parameters(), 1e-2)


def run(
    make: Callable[[], nn.Module],
    step: Step,
    prepare: Prepare | None = None,
    *,
    steps: int = 3,
    optimizer: Callable[[nn.Module], torch.optim.Optimizer] = adam,
) -> dict[str, Tensor | None]:
    """Everything that `steps` steps leave behind, by name; `step` runs the backward itself or returns a loss."""
    torch.manual_seed(0)
    module = make()
    opt = optimizer(module)
    if prepare is not None:
        prepare(module, opt)
    seen: dict[str, Tensor | None] = {}
    for number in range(steps):
        opt.zero_grad()
        if (loss := step(module, number)) is not None:
            loss.backward()
            seen[f"loss {number}"] = loss.detach().clone()
            del loss
        for name, parameter in module.named_parameters():
            seen[f"gradient {number} {name}"] = None if parameter.grad is None else parameter.grad.clone()
        opt.step()
    seen |= {f"state {name}": value.clone() for name, value in module.state_dict().items()}
    seen |= {
        f"optimizer {place} {name}": value.clone()
        for place, state in opt.state_dict()["state"].items()
        for name, value in state.items()
        if isinstance(value, Tensor)
    }
    seen["random"] = torch.get_rng_state()
    return seen


def differing(one: dict[str, Tensor | None], other: dict[str, Tensor | None]) -> list[str]:
    """Names that are missing on one side or differ in any bit."""
    return sorted(n for n in {*one, *other} if not _same(one.get(n), other.get(n)))


def _same(a: Tensor | None, b: Tensor | None) -> bool:
    if a is None or b is None:
        return a is b
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    return a.contiguous().reshape(-1).view(torch.uint8).equal(b.contiguous().reshape(-1).view(torch.uint8))


def of_three_dimensions(_: nn.Module, x: Tensor) -> Tensor:
    """An assertion that fails for others. It stands here because pytest writes those of test files anew."""
    assert x.dim() == 3, "three dimensions"
    return x
