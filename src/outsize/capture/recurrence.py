"""Recurrent layers as the eager step runs them.

Torch traces `nn.LSTM`, `nn.GRU` and `nn.RNN` through Python stand-ins, and three things in them are not what the eager
step does:

- the dropout between layers never happens (torch 2.13 asks `num_layers < i - 1`, which is never so);
- on a CPU the eager LSTM is oneDNN's fused layer. The stand-in takes it apart step by step, which rounds differently, or
  picks oneDNN's inference kernel, which has no backward;
- the GRU rounds differently, the single cell too.

Here the dropout stands between the layers, and where the eager LSTM is oneDNN's the captured one is too, forward and
backward (`onednn_lstm.py`).

Private names used: `torch._decomp.decompositions` (`_rnn_helper`, `params_hiddens`, `select_one_layer_lstm_function`,
`one_layer_lstm`, `gru_cell`), `py_kernels` and `_dispatch_cache` of an operator, `torch._C` (`DispatchKey`,
`_get_mkldnn_enabled`).
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from .onednn_lstm import lstm_layer


@contextlib.contextmanager
def eager_recurrence() -> Iterator[None]:
    """Trace recurrent layers with the operators of the eager step."""
    from torch._decomp import decompositions as stand_ins

    before = stand_ins._rnn_helper, stand_ins.select_one_layer_lstm_function
    stand_ins._rnn_helper = functools.partial(_layers, stand_ins)
    stand_ins.select_one_layer_lstm_function = functools.partial(_lstm, stand_ins.one_layer_lstm)
    cell, keys = torch.ops.aten.gru_cell.default, torch._C.DispatchKey
    kernels = dict(cell.py_kernels)
    cell.py_kernels.update({keys.Autograd: _gru_cell, keys.CompositeImplicitAutograd: _gru_cell})
    cell._dispatch_cache.clear()
    try:
        yield
    finally:
        stand_ins._rnn_helper, stand_ins.select_one_layer_lstm_function = before
        cell.py_kernels.clear()
        cell.py_kernels.update(kernels)
        cell._dispatch_cache.clear()


def _layers(
    stand_ins: Any,
    input: Tensor,
    hidden: Any,
    params: Any,
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
    layer: Callable[..., Any],
) -> tuple[Tensor, list[Any]]:
    """The layers of a recurrent network one after the other, with a dropout after each but the last."""
    if getattr(layer, "keywords", {}).get("hidden_fn") is stand_ins.gru_cell:
        layer = _gru_layer
    value = input.transpose(0, 1) if batch_first else input
    final: list[Any] = []
    for number in range(num_layers):
        forward, forward_hidden, backward, backward_hidden = stand_ins.params_hiddens(
            params, hidden, number, bidirectional
        )
        result, last = layer(value, forward_hidden, forward, has_biases)
        final.append(last)
        if bidirectional:
            reverse, last = layer(value, backward_hidden, backward, has_biases, reverse=True)
            final.append(last)
            result = torch.cat([result, reverse], -1)
        value = result
        if train and dropout != 0 and number < num_layers - 1:
            value = torch.dropout(value, dropout, train=True)
    return (value.transpose(0, 1) if batch_first else value), final


def _gru_layer(
    value: Tensor, hidden: Tensor, params: Any, has_biases: bool, reverse: bool = False
) -> tuple[Tensor, Tensor]:
    """One direction of one layer."""
    biases = params[2:4] if has_biases else (None, None)
    steps = functional.linear(value, params[0], biases[0]).unbind(0)
    results = []
    for step in reversed(steps) if reverse else steps:
        hidden = _gru_step(step, hidden, params[1], biases[1])
        results.append(hidden)
    return torch.stack(results[::-1] if reverse else results), hidden


def _gru_cell(
    input: Tensor,
    hidden: Tensor,
    weight: Tensor,
    hidden_weight: Tensor,
    bias: Tensor | None = None,
    hidden_bias: Tensor | None = None,
) -> Tensor:
    return _gru_step(functional.linear(input, weight, bias), hidden, hidden_weight, hidden_bias)


def _gru_step(step: Tensor, hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """ATen's `GRUCell`: the next state.

    Traced as it is, the cell takes its sigmoids over dense tensors, where ATen takes them in place over a part of each
    row: a processor's vector and scalar sigmoids differ, and rows would end elsewhere. Torch's stand-in for the whole
    layer also sums gradients in another order.
    """
    size = hidden.size(1)
    step_gates, step_new = step.split([2 * size, size], 1)
    hidden_gates, hidden_new = functional.linear(hidden, weight, bias).split([2 * size, size], 1)
    reset, update = (part.sigmoid() for part in (hidden_gates + step_gates).chunk(2, 1))
    new = (step_new + hidden_new * reset).tanh()
    state: Tensor = (hidden - new) * update + new
    return state


def _lstm(step_by_step: Callable[..., Any], input: Tensor, hidden: Any, params: Any) -> Callable[..., Any]:
    """The layer that an eager LSTM on these tensors runs (`use_mkldnn` in ATen's RNN.cpp)."""
    tensors = [input, *hidden, *(t for weights in params for t in weights)]
    known = input.dtype == torch.float32 or (
        input.dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    )
    fused = (
        torch.backends.mkldnn.is_available()
        and torch._C._get_mkldnn_enabled()
        and all(tensor.device.type == "cpu" for tensor in tensors)
        and known
        and input.numel() > 0
        and hidden[0].size(2) == hidden[1].size(2)  # no projections
    )
    return lstm_layer if fused else step_by_step
