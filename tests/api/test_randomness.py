"""Planning, measuring and the disk's first use leave training's random stream alone."""

import torch
from torch import nn

import outsize
from outsize.links import forget_links


def test_preparing_a_plan_draws_nothing() -> None:
    module = nn.Sequential(
        *[nn.Sequential(nn.Linear(64, 512), nn.Tanh(), nn.Linear(512, 64)) for _ in range(3)]
    )
    x = torch.randn(512, 64)
    plain = outsize.meter(module)
    plain(x).sum().backward()
    peak = outsize.report(plain).plain_peak_bytes
    forget_links()
    outsize.compile(module, int(peak * 0.92), actions=("swap",))
    torch.manual_seed(3)
    module(x).sum().backward()
    drawn = torch.rand(4)
    torch.manual_seed(3)
    assert torch.equal(drawn, torch.rand(4))
    assert outsize.report(module).decisions
