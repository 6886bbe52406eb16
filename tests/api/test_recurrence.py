"""Recurrent layers train as in eager PyTorch: oneDNN's LSTM, the GRU's rounding, the dropout between layers."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import outsize


class Sequence(nn.Module):
    def __init__(self, kind: type[nn.RNNBase], size: int, **settings: Any) -> None:
        super().__init__()
        self.layer = kind(24, size, **settings)

    def forward(self, x: Tensor) -> Tensor:
        result, state = self.layer(x)
        last = state if isinstance(state, tuple) else (state,)
        return result.square().mean() + sum(part.sin().mean() for part in last)


class Cells(nn.Module):
    def __init__(self, kind: type[nn.RNNCellBase], size: int, **settings: Any) -> None:
        super().__init__()
        self.cell = kind(24, size, **settings)

    def forward(self, x: Tensor) -> Tensor:
        state, total = None, x.new_zeros(())
        for step in x:
            state = self.cell(step, state)
            total = total + (state[0] if isinstance(state, tuple) else state).square().mean()
        return total


def train(module: nn.Module, shape: tuple[int, ...], compiled: bool) -> list[Tensor]:
    torch.manual_seed(3)
    optimizer = torch.optim.SGD(module.parameters(), 0.3)
    if compiled:
        outsize.compile(module, 2**40, optimizer=optimizer)
    kept = []
    for _ in range(2):
        x = torch.randn(shape, requires_grad=True)
        optimizer.zero_grad()
        loss = module(x)
        loss.backward()
        optimizer.step()
        kept += [loss.detach().clone(), x.grad]
    return [*kept, *(p.detach().clone() for p in module.parameters()), torch.get_rng_state()]


DEEP = {"num_layers": 3, "dropout": 0.3}
WIDE = {"num_layers": 2, "dropout": 0.4, "bidirectional": True, "batch_first": True}
BARE = {"num_layers": 2, "bias": False}


@pytest.mark.parametrize("settings", [DEEP, WIDE, BARE], ids=["deep", "bidirectional", "no bias"])
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_a_recurrent_network_trains_as_in_eager(kind: type[nn.RNNBase], settings: dict[str, Any]) -> None:
    for size, shape in ((33, (9, 4, 24)), (16, (5, 1, 24))):
        torch.manual_seed(0)
        plain, planned = Sequence(kind, size, **settings), Sequence(kind, size, **settings)
        planned.load_state_dict(plain.state_dict())
        expected, found = train(plain, shape, False), train(planned, shape, True)
        assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))


@pytest.mark.parametrize("kind", [nn.LSTMCell, nn.GRUCell, nn.RNNCell])
def test_a_cell_trains_as_in_eager(kind: type[nn.RNNCellBase]) -> None:
    torch.manual_seed(0)
    plain, planned = Cells(kind, 33), Cells(kind, 33)
    planned.load_state_dict(plain.state_dict())
    expected, found = train(plain, (4, 6, 24), False), train(planned, (4, 6, 24), True)
    assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))


def test_the_dropout_between_layers_happens() -> None:
    torch.manual_seed(0)
    module = outsize.meter(Sequence(nn.LSTM, 8, num_layers=2, dropout=0.5))
    x = torch.ones(3, 2, 24)
    first, second = module(x), module(x)
    assert first.item() != second.item()


def test_half_precision() -> None:
    torch.manual_seed(0)
    plain, planned = (Sequence(nn.LSTM, 32, num_layers=2) for _ in range(2))
    planned.load_state_dict(plain.state_dict())
    outsize.compile(planned, 2**40)
    for _ in range(2):
        x = torch.randn(6, 4, 24)
        for module in (plain, planned):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                loss = module(x)
            loss.backward()
        assert all(torch.equal(a.grad, b.grad) for a, b in zip(plain.parameters(), planned.parameters()))
