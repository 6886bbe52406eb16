"""The plain tensors that hold a tensor's bytes."""

from __future__ import annotations

import torch

__all__ = ["parts"]


def parts(tensor: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """What holds a tensor's bytes on this process: of a sparse one, its indices and its values; of a sharded or quantized
    one, the tensors that it wraps; of one that is in a tier, nothing.

    Args:
        tensor: of any kind.
    """
    if tensor.layout is torch.sparse_coo:
        return tensor._indices(), tensor._values()
    if tensor.layout is not torch.strided or getattr(tensor, "is_away", False):
        return ()
    if hasattr(tensor, "__tensor_flatten__"):  # the protocol of subclasses that wrap others
        inner = [getattr(tensor, name) for name in tensor.__tensor_flatten__()[0]]
        return tuple(part for one in inner if isinstance(one, torch.Tensor) for part in parts(one))
    return (tensor,)
