"""Eigenvalues and singular values whose vectors nobody asks for: eager's last bits, on both doors."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import outsize

FUNCTIONS: tuple[Callable[[Tensor], Tensor], ...] = (
    lambda a: torch.linalg.eigvalsh(a @ a.mT, "U"),
    torch.linalg.svdvals,
    torch.linalg.cond,
    lambda a: a.norm("nuc"),
    lambda a: torch.linalg.svd(a, full_matrices=False)[1],
)


class Spectra(nn.Module):
    """Each function of a constant, of a weight where no gradient is kept, and of a weight for the log only."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.layer = nn.Parameter(torch.randn(33, 33)), nn.Linear(33, 33)
        self.register_buffer("constant", torch.randn(33, 33))

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        found: list[Tensor] = []
        for function in FUNCTIONS:
            with torch.no_grad():
                found.append(function(self.weight))
            found += [function(self.constant), function(self.weight).detach()]
        return self.layer(x).sin(), found


def steps(module: nn.Module, x: Tensor) -> list[Tensor]:
    seen: list[Tensor] = []
    for _ in range(3):  # observed twice, then by the plan
        torch.manual_seed(5)
        module.zero_grad()
        y, found = module(x)
        y.sum().backward()
        seen += [y.detach(), *(v.detach() for v in found), module.layer.weight.grad.clone()]
    return seen


@pytest.mark.parametrize("door", ["captured", "observed"])
def test_values_alone_are_computed_as_in_eager(door: str) -> None:
    torch.manual_seed(0)
    module, x = Spectra(), torch.randn(64, 33)
    expected = steps(module, x)
    outsize.compile(module, 2**30, door=door)
    found = steps(module, x)
    assert [n for n, (a, b) in enumerate(zip(found, expected, strict=True)) if not torch.equal(a, b)] == []
