"""Tensors that somebody else can change between a forward and the backward that reads them."""

from __future__ import annotations

from typing import Any, final

import torch
import xxhash
from torch import Tensor

from ..errors import MutationError


@final
class Watched:
    """One tensor as it was when the forward ended.

    Args:
        name: for the error.
        tensor: what the backward reads.
        repeated: an operator that runs again reads it, where the plain step keeps what the operator made.
        by_bytes: notice changes of which torch keeps no account as well, by a digest of the bytes (on the processor).
    """

    def __init__(self, name: str, tensor: Tensor, *, repeated: bool = False, by_bytes: bool = False) -> None:
        self._name, self._tensor, self._version = name, tensor, tensor._version
        self._digest = _digest(tensor) if by_bytes and tensor.device.type == "cpu" else None
        self._way_out = (
            ", or leave 'recompute' out of actions=: the plan makes again from it what the plain step keeps"
            if repeated
            else ", or clone it first"
        )

    def check(self) -> None:
        """Raise unless the tensor is as it was.

        Raises:
            MutationError: it was changed since.
        """
        if self._tensor._version != self._version:
            how = f"version {self._tensor._version}, expected {self._version}"
        elif self._digest is not None and self._digest != _digest(self._tensor):
            how = "its bytes differ, by way of .data or NumPy"
        else:
            return
        raise MutationError(
            f"{self._name} (shape {tuple(self._tensor.shape)}) was changed in place after the forward and before the "
            f"backward that reads it ({how}): change it after backward(){self._way_out}"
        )


def _digest(tensor: Tensor) -> int:
    """Of the whole storage behind the tensor."""
    content: Any = torch.empty(0, dtype=torch.uint8).set_(tensor.untyped_storage()).numpy()
    return int(xxhash.xxh3_64_intdigest(content))
