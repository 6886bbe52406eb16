"""Recurrent layers: torch's own with dropout between layers, cells, and state that goes from step to step."""

from __future__ import annotations

import random

import torch
from torch import Tensor, nn

from ..forms import SEQUENCE, Form, piece


@piece(SEQUENCE)
class Recurrent(nn.Module):
    """nn.RNN, nn.LSTM or nn.GRU with one or two layers, in one or both directions, dropout between them."""

    def __init__(self, form: Form, draw: random.Random) -> None:
        super().__init__()
        layer, layers, both = (
            draw.choice((nn.RNN, nn.LSTM, nn.GRU)),
            draw.choice((1, 2, 3)),
            draw.random() < 0.3,
        )
        self.layer = layer(
            form.width, form.width // (2 if both else 1), layers, batch_first=draw.random() < 0.7,
            dropout=draw.choice((0.0, 0.2, 0.5)) if layers > 1 else 0.0, bidirectional=both,
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)[0]


@piece(SEQUENCE)
class LastState(nn.Module):
    """Only the final state is read, the outputs are not."""

    def __init__(self, form: Form, draw: random.Random) -> None:
        super().__init__()
        self.layer = draw.choice((nn.LSTM, nn.GRU))(form.width, form.width, 2, batch_first=True, dropout=0.3)

    def forward(self, x: Tensor) -> Tensor:
        _, state = self.layer(x)
        state = state[0] if isinstance(state, tuple) else state
        return x + state[-1].unsqueeze(1)


@piece(SEQUENCE)
class Cells(nn.Module):
    """A cell called in a loop over a few positions, the state kept in Python."""

    def __init__(self, form: Form, draw: random.Random) -> None:
        super().__init__()
        self.cell = draw.choice((nn.GRUCell, nn.RNNCell))(form.width, form.width)
        self.gate = nn.LSTMCell(form.width, form.width) if draw.random() < 0.4 else None

    def forward(self, x: Tensor) -> Tensor:
        state, memory, outputs = x[:, 0].tanh(), x.new_zeros(x.shape[0], x.shape[2]), []
        for i in range(min(4, x.shape[1])):
            if self.gate is not None:
                state, memory = self.gate(x[:, i], (state, memory))
            state = self.cell(x[:, i], state)
            outputs.append(state)
        return torch.cat([torch.stack(outputs, 1), x[:, len(outputs) :]], 1)


@piece(SEQUENCE)
class GivenState(nn.Module):
    """The state of the previous step begins this one, detached (truncated backpropagation through time)."""

    def __init__(self, form: Form, draw: random.Random) -> None:
        super().__init__()
        self.layer = nn.GRU(form.width, form.width, batch_first=True)
        self.register_buffer("state", torch.zeros(1, 1, form.width))

    def forward(self, x: Tensor) -> Tensor:
        y, state = self.layer(x, self.state.expand(1, x.shape[0], -1).contiguous())
        with torch.no_grad():
            self.state.copy_(state.mean(1, keepdim=True))
        return y
