"""Buffers that a forward reads and then updates: no plan reads the next value where the eager step had the first."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import outsize
from outsize import api
from outsize.errors import MutationError

from .training import rebudget, smallest_budget

WIDTH, ROWS = 96, 192


class Queue(nn.Module):
    """A memory of keys, read as a copy and then overwritten in part, as in MoCo."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(WIDTH, 2 * WIDTH), nn.GELU(), nn.Linear(2 * WIDTH, WIDTH))
        self.register_buffer("queue", F.normalize(torch.randn(WIDTH, 4 * ROWS), dim=0))

    def forward(self, x: Tensor) -> Tensor:
        q = F.normalize(self.net(x), dim=1)
        logits = q @ self.queue.clone() / 0.2
        with torch.no_grad():
            self.queue[:, :ROWS] = q.detach().T
        return logits.logsumexp(1).mean() - logits[:, 0].mean()


class Normaliser(nn.Module):
    """Batch renorm: scales by running statistics, then moves them."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.register_buffer("mean", torch.zeros(ROWS, WIDTH))
        self.register_buffer("scale", torch.ones(ROWS, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = torch.tanh((layer(x) - self.mean.mul(1.0)) / self.scale.exp())
            with torch.no_grad():
                self.mean.lerp_(x.detach(), 0.2)
                self.scale.mul_(0.9).add_(x.detach().square(), alpha=0.1)
        return x.square().mean()


class Recurrent(nn.Module):
    """A state that goes from step to step, as a Transformer-XL's memory."""

    def __init__(self) -> None:
        super().__init__()
        self.read, self.write = nn.Linear(2 * WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.register_buffer("state", torch.zeros(ROWS, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.read(torch.cat([x, self.state], 1)))
        h = h + torch.sin(self.write(h))
        self.state.copy_(h.detach())
        return h.square().mean()


class Spectral(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        wide = [nn.utils.parametrizations.spectral_norm(nn.Linear(WIDTH, WIDTH)) for _ in range(3)]
        self.net = nn.Sequential(*(m for layer in wide for m in (layer, nn.GELU())))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x).square().mean()


class Frozen(nn.Module):
    """The same batch norm in training and then with its statistics as they were."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.norm = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH), nn.BatchNorm1d(WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        before = F.batch_norm(
            torch.tanh(self.b(x)), self.norm.running_mean.clone(), self.norm.running_var.clone()
        )
        return (torch.tanh(self.norm(self.a(x))) * torch.tanh(before)).square().mean()


MODULES: list[Callable[[], nn.Module]] = [Queue, Normaliser, Recurrent, Spectral, Frozen]


def train(module: nn.Module, steps: int = 3) -> list[Tensor]:
    torch.manual_seed(5)
    kept = []
    for _ in range(steps):
        loss = module(torch.randn(ROWS, WIDTH))
        loss.backward()
        kept += [loss.detach().clone(), *(p.grad.clone() for p in module.parameters())]
        with torch.no_grad():
            for p in module.parameters():
                p.sub_(p.grad, alpha=0.1)
        module.zero_grad()
    return kept + [b.clone() for b in module.buffers()]


@pytest.mark.parametrize("kind", MODULES, ids=lambda kind: kind.__name__)
def test_every_plan_trains_as_eager_does(kind: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    module = kind()
    start = copy.deepcopy(module.state_dict())
    expected = train(copy.deepcopy(module))
    outsize.compile(module, 2**40)
    train(module, 1)
    top = outsize.report(module).plain_peak_bytes
    acted = 0
    for actions in (("swap",), ("recompute",), ("encode",), ("swap", "recompute", "encode")):
        module.load_state_dict(start)
        low = smallest_budget(module, (torch.randn(ROWS, WIDTH),), planner="search", actions=actions)
        for share in (0.0, 0.5):
            rebudget(module, int(low + share * max(0, top - low)), planner="search", actions=actions)
            module.load_state_dict(start)
            found = train(module)
            assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True)), (actions, share)
            acted += bool(outsize.report(module).decisions)
    assert acted >= 3


def recomputing(module: nn.Module) -> nn.Module:
    outsize.compile(module, 2**40)
    module(torch.ones(ROWS, WIDTH)).backward()
    low = smallest_budget(module, (torch.ones(ROWS, WIDTH),), planner="search", actions=("recompute",))
    rebudget(module, low, planner="search", actions=("recompute",))
    return module


class Gate(nn.Module):
    """A buffer of which the eager step keeps only what it made of it."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.register_buffer("gate", torch.randn(ROWS, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = torch.tanh(layer(x)) * torch.sigmoid(self.gate)
        return x.square().mean()


@pytest.mark.parametrize("how", ["in place", "data", "numpy"])
def test_a_buffer_changed_between_forward_and_backward_is_named(how: str) -> None:
    module = recomputing(Gate())
    loss = module(torch.ones(ROWS, WIDTH))
    assert outsize.report(module).decisions
    if how == "in place":
        module.gate.mul_(0.5)
    elif how == "data":
        module.gate.data.mul_(0.5)
    else:
        module.gate.numpy()[0] = 7
    with pytest.raises(MutationError, match=r"the buffer 'gate' .* leave 'recompute' out of actions="):
        loss.backward()
    module(torch.ones(ROWS, WIDTH)).backward()  # the next step works


def test_a_swapped_step_does_not_mind_what_eager_does_not_mind() -> None:
    module = Gate()
    plain = copy.deepcopy(module)
    outsize.compile(module, 2**40)
    module(torch.ones(ROWS, WIDTH)).backward()
    module.zero_grad()
    rebudget(
        module, smallest_budget(module, (torch.ones(ROWS, WIDTH),), actions=("swap",)), actions=("swap",)
    )
    for each in (plain, module):
        loss = each(torch.ones(ROWS, WIDTH))
        each.gate.mul_(0.5)
        loss.backward()
    assert all(torch.equal(a.grad, b.grad) for a, b in zip(plain.parameters(), module.parameters()))
    assert any(d.action == "swap" for d in api.report(module).decisions)
