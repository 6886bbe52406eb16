"""The operators that rewritten graphs call: swap, encode and their other halves.

Each works on the storage behind a tensor, as flat bytes, under the storage's number (its slot) in the frame.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import OutsizeError
from ..fx import RuntimeOps
from .frame import Frame


def swap_out(frame: Frame, tensor: Tensor | None, slot: int, tier: str) -> None:
    """Start writing the storage (or, for `tensor` None, its encoded form) to a tier."""
    data = tensor.untyped_storage() if tensor is not None else frame.encoded.pop(slot)
    target = frame.tiers[tier]
    frame.blocks[slot] = (target, target.write(data))


def settle(frame: Frame, slot: int) -> None:
    """Wait until the write has ended; the tier then holds no reference to the device's bytes."""
    frame.blocks[slot][1].settle()


def fetch(frame: Frame, slot: int, nbytes: int) -> None:
    """Allocate a buffer and start reading the block into it."""
    tier, block = frame.blocks[slot]
    frame.arrivals[slot] = tier.read(block)


def wait(frame: Frame, slot: int, dtype: torch.dtype | None) -> Tensor | None:
    """Wait for the read. Gives the flat tensor; an encoded form (dtype None) stays in the frame."""
    buffer = frame.arrivals.pop(slot).wait()
    if dtype is None:
        frame.encoded[slot] = buffer
        return None
    return buffer.view(dtype)


def encode(frame: Frame, tensor: Tensor, slot: int, codec: str, nbytes: int) -> None:
    raise OutsizeError("no codec")


def decode(frame: Frame, slot: int, dtype: torch.dtype, last: bool) -> Tensor:
    raise OutsizeError("no codec")


OPS = RuntimeOps(swap_out=swap_out, settle=settle, fetch=fetch, wait=wait, encode=encode, decode=decode)
