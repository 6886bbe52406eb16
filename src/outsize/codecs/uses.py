"""What a backward operation reads of a saved tensor: its values, its sign pattern, or only its shape.

A storage can be encoded as the weakest codec that serves all of its uses. The backward of a ReLU asks only
where the activation is above zero; a max-pooling's asks for the winners' indices and, of its input, for
nothing but the shape. So a ReLU before a pooling, or before nothing that reads its values, is kept as one bit
per element, and a ReLU before a convolution as its nonzeros, whose bitmap then serves the ReLU as well.

Names and positions are those of the ATen operations in a joint graph (`aten.threshold_backward`, argument 1).
"""

from __future__ import annotations

import enum
from collections.abc import Iterable

__all__ = ["Need", "choose_codec", "need_of"]


@enum.unique
class Need(enum.IntEnum):
    """In increasing order of what must be kept."""

    SHAPE = 0
    MASK = 1
    INDICES = 2
    VALUES = 3


_NEEDS: dict[tuple[str, int], Need] = {
    ("threshold_backward", 1): Need.MASK,
    ("native_dropout_backward", 1): Need.MASK,
    ("max_pool2d_with_indices_backward", 1): Need.SHAPE,
    ("max_pool2d_with_indices_backward", 7): Need.INDICES,
    ("max_pool3d_with_indices_backward", 1): Need.SHAPE,
    ("max_pool3d_with_indices_backward", 7): Need.INDICES,
    ("_adaptive_avg_pool2d_backward", 1): Need.SHAPE,
    ("_adaptive_avg_pool3d_backward", 1): Need.SHAPE,
    ("avg_pool2d_backward", 1): Need.SHAPE,
    ("avg_pool3d_backward", 1): Need.SHAPE,
}


def need_of(operation: str, argument: int) -> Need:
    """What an operation reads of its argument.

    Args:
        operation: the ATen name, with or without `aten.` and overload, such as
            `aten.threshold_backward.default`.
        argument: its position. For `threshold_backward` the answer holds for a threshold of zero, a ReLU's.

    Returns:
        The need; VALUES for whatever is not known to need less.
    """
    name = operation.removeprefix("aten::").removeprefix("aten.").split(".")[0]
    return _NEEDS.get((name, argument), Need.VALUES)


def choose_codec(needs: Iterable[Need]) -> str | None:
    """The codec that serves all uses of one storage: "relu" for values, "mask", "pool"; None if only shapes
    are read.

    Args:
        needs: what each use reads of the storage.

    Returns:
        a key of `CODECS`, or None.
    """
    most = max(needs, default=Need.SHAPE)
    return {Need.VALUES: "relu", Need.INDICES: "pool", Need.MASK: "mask", Need.SHAPE: None}[most]
