"""The operators that rewritten graphs call: swap, encode and their other halves.

Each works on the storage behind a tensor, as flat bytes, under the storage's number (its slot) in the frame.
None may allocate beside its result: plans count nothing of that. `inductor.py` has their schemas and fake twins.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..fx import RuntimeOps
from .encoding import Form, decode_storage, encode_storage, sample_density
from .frame import Frame


def swap_out(frame: Frame, tensor: Tensor | None, slot: int, tier: str) -> None:
    """Start writing the storage (or, for `tensor` None, its encoded form) to a tier."""
    target = frame.tiers[tier]
    if tensor is not None:
        frame.dtypes[slot] = tensor.dtype
        frame.blocks[slot] = (target, target.write(tensor.untyped_storage(), slot=slot))
        return
    form = frame.forms[slot]
    if form.compressed is not None:
        frame.blocks[slot] = (target, target.write(form.compressed.buffer, slot=slot))


def settle(frame: Frame, slot: int) -> None:
    """Wait until the write has ended; the tier then holds no reference to the device's bytes."""
    if slot in frame.blocks:
        frame.blocks[slot][1].settle()
    form = frame.forms.get(slot)
    if form is not None and form.compressed is not None:
        form.travel()


def fetch(frame: Frame, slot: int, nbytes: int) -> None:
    """Allocate a buffer and start reading the block into it."""
    if slot in frame.blocks:
        tier, block = frame.blocks[slot]
        frame.arrivals[slot] = tier.read(block)


def wait(frame: Frame, slot: int, dtype: torch.dtype | None) -> Tensor | None:
    """Wait for the read. Gives the flat tensor; an encoded form (dtype None) stays in the frame.

    The dtype is the one that went out: a recorded one can be wrong (torch 2.13 records a group norm's statistics under
    autocast as bfloat16, and its kernel makes float32).
    """
    if dtype is not None:
        return frame.arrivals.pop(slot).wait().view(frame.dtypes[slot])
    if slot in frame.arrivals:
        frame.forms[slot].arrive(frame.arrivals.pop(slot).wait())
    return None


def encode(frame: Frame, tensor: Tensor, slot: int, codec: str, nbytes: int) -> None:
    """Compress the storage into at most `nbytes` bytes on the device."""
    overflow = next(iter(frame.tiers.values()), None)
    form = encode_storage(tensor, codec, nbytes, overflow)
    frame.forms[slot] = form
    frame.dtypes[slot] = tensor.dtype
    if form.density is not None:
        frame.densities[slot] = form.density
    if form.compressed is not None:
        frame.encoded_bytes += form.compressed.nbytes
    if form.dense is not None:
        frame.overflowed.append(slot)


def decode(frame: Frame, slot: int, dtype: torch.dtype, last: bool) -> Tensor:
    """Give the storage back from its encoded form; `last` frees that form, unless another backward may come."""
    form: Form = frame.forms.pop(slot) if last and not frame.kept else frame.forms[slot]
    return decode_storage(form, frame.dtypes.get(slot, dtype))


def observe(frame: Frame, tensor: Tensor, slot: int) -> None:
    """Sample the share of nonzero elements, in the steps that do, for the next plan."""
    if frame.sampling:
        frame.densities[slot] = sample_density(tensor)


def fetch_state(frame: Frame, slot: int) -> None:
    """Start to bring an optimizer's state back, where the step's backward is expected to be followed by its update."""
    if frame.state is not None:
        frame.state.fetch(slot)


def update_state(frame: Frame, slot: int, gradient: Tensor) -> None:
    """Update the parameter whose state is behind the slot: its gradient is whole, and nobody reads it any more."""
    if frame.state is not None:
        frame.state.update(slot, gradient)


def write_state(frame: Frame, slot: int) -> None:
    """Start to write the state to its tier."""
    if frame.state is not None:
        frame.state.write(slot)


def drop_state(frame: Frame, slot: int) -> None:
    """Wait for the write; the state is in its tier alone."""
    if frame.state is not None:
        frame.state.drop(slot)


OPS = RuntimeOps(
    swap_out=swap_out,
    settle=settle,
    fetch=fetch,
    wait=wait,
    encode=encode,
    decode=decode,
    observe=observe,
    fetch_state=fetch_state,
    update_state=update_state,
    write_state=write_state,
    drop_state=drop_state,
)
