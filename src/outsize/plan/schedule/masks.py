"""Where only the sign pattern is read from here on, one bit per element serves: the mask in place of the nonzeros.

A ReLU's backward asks of its saved result only where it is above zero. When a decision would keep the nonzeros of
such a storage over a span after which nothing else reads it, the mask is smaller (32 times, for float32) and costs
less to make. No region that runs again may read the storage afterwards, since its values are gone.  (Method 1.)
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from ...values import Decision, Profile, StepGraph

_ITEMSIZE = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2}
#: The mask codec pads its bitmap to whole lines of this many bytes.
_LINE = 16


def with_masks(graph: StepGraph, profile: Profile, decisions: Iterable[Decision]) -> tuple[Decision, ...]:
    """The decisions, encoded as masks where that is enough."""
    made = tuple(decisions)
    if "mask" not in profile.codecs:
        return made
    repeated = [(d.fetch_before, graph.ops[p].reads) for d in made for p in d.region]
    return tuple(_as_mask(graph, d) if _mask_is_enough(graph, d, repeated) else d for d in made)


def mask_bytes(graph: StepGraph, storage: int) -> int:
    """Bytes of the storage's mask."""
    kept = graph.storages[storage]
    lines = -(-kept.nbytes // (8 * _ITEMSIZE[kept.dtype] * _LINE))
    return lines * _LINE


def _mask_is_enough(graph: StepGraph, d: Decision, repeated: list[tuple[int, tuple[int, ...]]]) -> bool:
    storage = graph.storages[d.storage]
    if d.action != "encode" or storage.dtype not in _ITEMSIZE or not 0 <= storage.mask_from <= d.before:
        return False
    return not any(at >= d.fetch_before and d.storage in reads for at, reads in repeated)


def _as_mask(graph: StepGraph, d: Decision) -> Decision:
    return replace(
        d, codec="mask", encoded_bytes=mask_bytes(graph, d.storage), reason="only its sign is read again"
    )
