"""A trained network as one sealed file: weights in half precision, its sizes, and what else belongs to it.

The sizes in a file are not believed before the arrays agree with them: the network they describe is made without
memory first, and only what has its names and shapes is taken over. Nothing is unpickled.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import torch
from torch import nn

from ...files import AnyPath, Array, Door, Sealed, save_sealed, shown

M = TypeVar("M", bound=nn.Module)


def save_weights(
    path: AnyPath, model: nn.Module, *, format: str, version: int, about: dict[str, Any]
) -> None:
    """Write the weights in half precision, whole or not at all."""
    weights = {name: value.detach().to(torch.float16).numpy() for name, value in model.state_dict().items()}
    save_sealed(path, weights, format=format, version=version, about=about)


def load_weights(found: Sealed, door: Door, make: Callable[[], M]) -> M:
    """The network that `make` describes, with the weights of a file, in single precision and for evaluation.

    Args:
        found: the file.
        door: says what it is where it does not fit.
        make: makes the network; called where tensors take no memory.

    Raises:
        OutsizeError: of the door's class: other names or shapes, another precision, values that are no numbers.
    """
    with torch.device("meta"):
        model = make()
    wanted = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    if odd := sorted(wanted.keys() ^ found.arrays.keys()):
        raise door.fail(found.path, f"it does not fit its own description: {shown(odd[0])} is in one only")
    weights = {}
    for name, array in found.arrays.items():
        if problem := _problem(array, wanted[name]):
            raise door.fail(found.path, f"{name} does not fit its own description: {problem}")
        weights[name] = torch.from_numpy(array.astype(np.float32))
    model.load_state_dict(weights, assign=True)
    return model.eval()


def _problem(array: Array, shape: tuple[int, ...]) -> str:
    if array.dtype != np.float16:
        return f"it holds {array.dtype}, not float16"
    if array.shape != shape:
        return f"it has shape {array.shape}, not {shape}"
    return "" if np.isfinite(array).all() else "it holds values that are no numbers"
