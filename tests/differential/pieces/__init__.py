"""The pieces by subject; importing this enters all of them."""

from . import attention, autograd, buffers, elementwise, layers, moving, randomness, recurrent, reductions

__all__ = [
    "attention", "autograd", "buffers", "elementwise", "layers", "moving", "randomness", "recurrent", "reductions",
]  # fmt: skip
