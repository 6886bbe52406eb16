"""Codecs that lose bits: only where they are asked for, and only as much as was allowed."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import outsize


class Dense(nn.Module):
    """Nothing here is zero: no lossless codec helps."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(256, 256) for _ in range(8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = F.gelu(layer(x))
        return x


def made() -> Dense:
    torch.manual_seed(0)
    return Dense()


def train(module: nn.Module) -> tuple[float, list[torch.Tensor]]:
    generator = torch.Generator().manual_seed(1)
    for _ in range(2):
        module.zero_grad()
        loss = module(torch.randn(2048, 256, generator=generator)).square().mean()
        loss.backward()
    return loss.item(), [p.grad.clone() for p in module.parameters()]


def test_bf16_is_used_only_where_it_is_allowed() -> None:
    plain = outsize.meter(made())
    expected, gradients = train(plain)
    budget = int(0.85 * outsize.report(plain, timelines=False).plain_peak_bytes)
    with pytest.raises(outsize.BudgetError):
        train(outsize.compile(made(), budget, actions=("encode",)))
    torch.set_grad_enabled(True)  # the error left the forward pass before it could
    module = outsize.compile(made(), budget, actions=("encode",), lossy={"bf16": 2**-8})
    loss, others = train(module)
    record = outsize.report(module, timelines=False)
    assert {d.codec for d in record.decisions} == {"bf16"}
    assert record.measured_peak_bytes <= budget
    assert record.encoded_bytes == sum(d.encoded_bytes for d in record.decisions)
    assert loss == expected  # what the forward reads is whole
    assert any(not torch.equal(a, b) for a, b in zip(others, gradients))
    for mine, theirs in zip(others, gradients):
        assert (mine - theirs).norm() <= 2**-8 * theirs.norm()


def test_what_a_step_cannot_keep_is_refused() -> None:
    with pytest.raises(outsize.OutsizeError, match=r"'fp8'.*a step has 'bf16' only"):
        outsize.compile(made(), "1 GiB", lossy={"fp8": 0.1})
    with pytest.raises(outsize.OutsizeError, match=r"up to 0\.00390625"):
        outsize.plan(made(), (torch.ones(1, 256),), budget="1 GiB", lossy={"bf16": 0.001})
