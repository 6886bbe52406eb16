"""Encode and masks at run time, buffers that the step updates, and Inductor between our operators."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import outsize


class Stack(nn.Module):
    """Convolutions whose ReLU outputs are read again by their backward alone: a pooling stands behind each."""

    def __init__(self, norm: bool = True) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(nn.Conv2d(16 if i else 3, 16, 3, padding=1) for i in range(4))
        self.norms = nn.ModuleList(nn.BatchNorm2d(16) if norm else nn.GroupNorm(4, 16) for _ in range(4))
        self.head = nn.Linear(16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for convolution, norm in zip(self.convolutions, self.norms):
            x = F.avg_pool2d(F.relu(norm(convolution(x))), 3, 1, 1)
        return self.head(x.mean((2, 3)))


def train(module: nn.Module, steps: int = 3) -> tuple[list[float], list[torch.Tensor]]:
    """Losses, then gradients and buffers of the last step."""
    generator = torch.Generator().manual_seed(7)
    losses = []
    for _ in range(steps):
        module.zero_grad()
        loss = module(torch.randn(4, 3, 64, 64, generator=generator)).square().mean()
        loss.backward()
        losses.append(loss.item())
    return losses, [*(p.grad.clone() for p in module.parameters()), *(b.clone() for b in module.buffers())]


def made(norm: bool = True) -> Stack:
    torch.manual_seed(0)
    return Stack(norm)


@pytest.fixture(scope="module")
def plain() -> tuple[list[float], list[torch.Tensor], int]:
    module = outsize.meter(made())
    losses, tensors = train(module)
    return losses, tensors, outsize.report(module).plain_peak_bytes


@pytest.mark.parametrize("actions", [("encode", "recompute"), ("swap", "recompute", "encode")])
@pytest.mark.parametrize("share", [0.9, 0.75])
def test_bitwise_with_encode_and_recomputed_norms(plain, actions: tuple[str, ...], share: float) -> None:
    losses, tensors, peak = plain
    module = outsize.compile(made(), int(peak * share), actions=actions)
    found, others = train(module)
    record = outsize.report(module)
    assert found == losses
    assert all(torch.equal(a, b) for a, b in zip(tensors, others))
    assert record.measured_peak_bytes <= record.budget_bytes
    assert record.decisions


# Inductor imports torch modules that still use TorchScript.
@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_inductor_keeps_the_budget_and_the_numbers(plain) -> None:
    reference = outsize.meter(made(norm=False))
    losses, tensors = train(reference, steps=2)
    budget = int(outsize.report(reference).plain_peak_bytes * 0.85)
    module = outsize.compile(made(norm=False), budget, actions=("swap",), inner="inductor")
    found, others = train(module, steps=2)
    record = outsize.report(module)
    assert found == pytest.approx(losses, rel=1e-5)
    for mine, theirs in zip(others, tensors):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-6)
    assert record.swapped_in_bytes > 0
    assert record.measured_peak_bytes <= budget


def test_unknown_inner_or_effort_is_refused() -> None:
    with pytest.raises(outsize.OutsizeError, match="inductor"):
        outsize.compile(made(), "1 GiB", inner="xla")
    for effort in (0, 9, 2.5, "high"):
        with pytest.raises(
            outsize.OutsizeError, match=f"effort={effort!r} is not known: give a whole number"
        ):
            outsize.compile(made(), "1 GiB", effort=effort)


def test_a_frame_is_let_go_when_its_backward_has_run() -> None:
    module = made()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.0, momentum=0.9)
    outsize.compile(module, "1 GiB", optimizer=optimizer)
    resident = []
    for _ in range(3):  # the optimizer never steps: gradients accumulate
        module(torch.ones(1, 3, 32, 32)).sum().backward()
        resident.append(outsize.report(module).resident_bytes)
    assert resident[1] == resident[2]
