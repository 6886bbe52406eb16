"""oneDNN's LSTM layer, which an eager LSTM runs on a CPU, as operators that a graph can hold.

Torch's own operator keeps what its backward needs only where gradients are enabled when it runs, and a compiled forward
runs without. And what oneDNN keeps has a size that only oneDNN knows, while a plan needs it before the step: the layer is
run once on zeros to see it.

Private names used: `torch._C._AutoDispatchBelowAutograd`, `_disable_current_modes` of `torch.utils._python_dispatch`.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

_MODE = 2  # ideep::rnn_kind::LSTM
_LIBRARY = torch.library.Library("outsize", "FRAGMENT")
_TENSORS = "Tensor input, Tensor w0, Tensor w1, Tensor b0, Tensor b1, Tensor state, Tensor cell"
_FLAGS = "bool reverse, bool has_biases"
_LIBRARY.define(f"lstm_layer({_TENSORS}, {_FLAGS}) -> (Tensor, Tensor, Tensor, Tensor)")
_LIBRARY.define(
    f"lstm_layer_backward({_TENSORS}, Tensor result, Tensor last_state, Tensor last_cell, Tensor? result_grad, "
    f"Tensor? state_grad, Tensor? cell_grad, {_FLAGS}, Tensor kept) "
    "-> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)"
)


def lstm_layer(
    input: Tensor, hidden: Sequence[Tensor], params: Sequence[Tensor], has_biases: bool, reverse: bool = False
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """One direction of one layer, as ATen's `mkldnn_rnn` calls it.

    Args:
        input: `[time, batch, features]`.
        hidden: first state and cell, `[batch, size]` each.
        params: two weights and, with `has_biases`, two biases.

    Returns:
        The result, `[time, batch, size]`, and the last state and cell.
    """
    weights = list(params[:2])
    biases = list(params[2:4]) if has_biases else [torch.zeros_like(weight) for weight in weights]
    tensors = (input.contiguous(), *weights, *biases, *(tensor.contiguous() for tensor in hidden))
    if torch.is_autocast_enabled("cpu"):  # torch casts what its own operator is given
        lower = torch.get_autocast_dtype("cpu")
        tensors = tuple(t.to(lower) if t.dtype == torch.float32 else t for t in tensors)
    # Measured here: where torch asks for the shapes of an operator, no other can be run.
    _KEPT[_described(tensors)] = _kept_bytes(_described(tensors), reverse, has_biases)
    result, state, cell, _ = torch.ops.outsize.lstm_layer(*tensors, reverse, has_biases)
    return result, (state, cell)


#: By the layer's tensors: bytes that oneDNN keeps between forward and backward.
_KEPT: dict[tuple[Any, ...], int] = {}


def _described(tensors: Iterable[Tensor]) -> tuple[Any, ...]:
    return tuple((tuple(tensor.shape), tensor.dtype) for tensor in tensors)


@functools.cache
def _kept_bytes(described: tuple[Any, ...], reverse: bool, has_biases: bool) -> int:
    """From one run on zeros."""
    from torch.utils._python_dispatch import _disable_current_modes

    with _disable_current_modes():
        tensors = [torch.zeros(shape, dtype=dtype) for shape, dtype in described]
        return _forward(*tensors, reverse, has_biases)[3].numel()


def _forward(*args: Any) -> tuple[Tensor, ...]:
    *tensors, reverse, has_biases = args
    size = tensors[-1].size(1)
    with torch._C._AutoDispatchBelowAutograd(), torch.enable_grad():
        made: tuple[Tensor, ...] = torch.ops.aten.mkldnn_rnn_layer(
            *tensors, reverse, [], _MODE, size, 1, has_biases, False, False, True
        )
    return made


def _backward(*args: Any) -> tuple[Tensor, ...]:
    *tensors, reverse, has_biases, kept = args
    size = tensors[6].size(1)
    with torch._C._AutoDispatchBelowAutograd(), torch.enable_grad():
        made: tuple[Tensor, ...] = torch.ops.aten.mkldnn_rnn_layer_backward(
            *tensors, reverse, _MODE, size, 1, has_biases, True, False, [], False, kept
        )
    return made


def _shapes(*args: Any) -> tuple[Tensor, ...]:
    tensors = args[:7]
    input, state, cell = tensors[0], *tensors[5:]
    result = input.new_empty((*input.shape[:2], state.size(1)))
    kept = input.new_empty(_KEPT[_described(tensors)], dtype=torch.uint8)
    return result, torch.empty_like(state), torch.empty_like(cell), kept


def _gradient_shapes(*args: Any) -> tuple[Tensor, ...]:
    return tuple(torch.empty(t.shape, dtype=torch.float32, device=t.device) for t in args[:7])


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*inputs[:7], *output)
    ctx.flags = inputs[7:]


def _differentiate(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:
    *saved, kept = ctx.saved_tensors
    given = torch.ops.outsize.lstm_layer_backward(*saved, *grads[:3], *ctx.flags, kept)
    return (*given, None, None)


_LIBRARY.impl("lstm_layer", _forward, "CPU")
_LIBRARY.impl("lstm_layer", _shapes, "Meta")
_LIBRARY.impl("lstm_layer_backward", _backward, "CPU")
_LIBRARY.impl("lstm_layer_backward", _gradient_shapes, "Meta")
torch.library.register_autograd("outsize::lstm_layer", _differentiate, setup_context=_save, lib=_LIBRARY)
