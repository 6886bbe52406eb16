"""The specification of the zero-suppressing codec, in plain torch (method 1, claims 1 to 7).

Every step of the claim is one statement here: bitmap, table by reduction, index by scan, allocation, copy;
and
back: clear, scan, scatter. Slow and hungry for memory on purpose; the other back ends must equal it byte for
byte.
"""

from __future__ import annotations

from typing import final

import torch

from ..errors import CodecError
from .contract import Backend, Encoded, Mark, digest_of, relu_mark
from .layout import BLOCK, Layout

__all__ = ["Reference", "marked"]


@final
class Reference(Backend):
    """Plain torch on any device."""

    name = "reference"

    def available(self) -> bool:
        return True

    def supports(self, device: torch.device) -> bool:
        return True

    def encode(
        self, x: torch.Tensor, layout: Layout, buffer: torch.Tensor, *, y: torch.Tensor | None, neg_inf: int
    ) -> Encoded:
        if y is not None:
            x = y.copy_(x.where(marked(x, relu_mark(x), neg_inf), 0))
        bits = x != 0
        table = _blocks(bits).sum(1, dtype=torch.int32)
        index = table.cumsum(0, dtype=torch.int64) - table  # exclusive scan: where each block's values start
        nnz = int(table.sum())
        self._head(layout, buffer, table, bits)
        if nnz <= layout.room(buffer.numel()):
            values = buffer[layout.head_bytes : layout.nbytes(nnz)].view(x.dtype)
            rank = _blocks(bits).cumsum(1) - 1
            place = (index[:, None] + rank).flatten()[: x.numel()]
            values[place[bits]] = x[bits]
        fits = nnz <= layout.room(buffer.numel())
        negative = bool((_as_signed(x) < 0).any())
        return Encoded.of(nnz, _digest(buffer, layout, nnz) if fits else 0, negative)

    def encode_exact(self, x: torch.Tensor, layout: Layout) -> tuple[torch.Tensor, Encoded]:
        nnz = int((x != 0).sum())
        buffer = torch.empty(layout.nbytes(nnz), dtype=torch.uint8, device=x.device)
        return buffer, self.encode(x, layout, buffer, y=None, neg_inf=0)

    def decode(
        self, buffer: torch.Tensor, layout: Layout, encoded: Encoded, y: torch.Tensor, *, verify: bool
    ) -> None:
        nnz = encoded.nnz
        table = buffer[: 4 * layout.blocks].view(torch.int32)
        bits = _unpacked(buffer[layout.table_bytes : layout.head_bytes])
        if int(table.sum(dtype=torch.int64)) != nnz or bool((table < 0).any()):
            raise CodecError(f"the number table does not add up to the {nnz} values of this encoding")
        wrong = (_blocks(bits[: layout.numel]).sum(1) != table).nonzero()
        if wrong.numel():
            raise CodecError(f"number table and bitmap disagree in block {int(wrong[0])} of {layout.blocks}")
        if bool(bits[layout.numel :].any()):
            raise CodecError("the bitmap marks elements beyond the tensor's end")
        if verify and _digest(buffer, layout, nnz) != encoded.digest:
            raise CodecError(
                f"the buffer was damaged: the digest of its {layout.nbytes(nnz)} bytes is not that of the encoding"
            )
        values = buffer[layout.head_bytes : layout.nbytes(nnz)].view(y.dtype)
        y.zero_()
        y[bits[: layout.numel]] = values

    def mark(self, x: torch.Tensor, bitmap: torch.Tensor, *, mark: Mark, neg_inf: int) -> Encoded:
        _pack(marked(x, mark, neg_inf), bitmap)
        return Encoded.of(0, digest_of(bitmap, 0), 0)

    def select(self, bitmap: torch.Tensor, x: torch.Tensor | int, y: torch.Tensor) -> Encoded:
        bits = _unpacked(bitmap)[: y.numel()]
        y.copy_(torch.where(bits, torch.as_tensor(x, dtype=y.dtype, device=y.device), 0))
        return Encoded.of(0, digest_of(bitmap, 0), 0)

    def digest(self, buffer: torch.Tensor) -> Encoded:
        return Encoded.of(0, digest_of(buffer, 0), 0)

    def _head(self, layout: Layout, buffer: torch.Tensor, table: torch.Tensor, bits: torch.Tensor) -> None:
        buffer[: layout.head_bytes].zero_()
        buffer[: 4 * layout.blocks].view(torch.int32).copy_(table)
        _pack(bits, buffer[layout.table_bytes : layout.head_bytes])


def marked(x: torch.Tensor, mark: Mark, neg_inf: int) -> torch.Tensor:
    """The elements that `mark` names, as booleans, from bit patterns alone.

    As unsigned numbers the negative NaNs are exactly those above −inf; as signed ones, those above −inf and
    below zero. Integers have `neg_inf` −1, which nothing is above.
    """
    if mark is Mark.NONZERO:
        return x != 0
    x = _as_signed(x)
    gate = (x > 0) | ((x > neg_inf) & (x < 0))
    if mark is Mark.RELU and neg_inf != -1:
        gate |= x == torch.iinfo(x.dtype).min  # −0.0
    return gate


def _as_signed(x: torch.Tensor) -> torch.Tensor:
    return x.view(torch.int8) if x.dtype is torch.uint8 else x  # the only unsigned view of `bits_of`


def _blocks(bits: torch.Tensor) -> torch.Tensor:
    """Rows of BLOCK elements, the last filled up with zeros."""
    return torch.nn.functional.pad(bits, (0, -bits.numel() % BLOCK)).view(-1, BLOCK)


def _pack(bits: torch.Tensor, bitmap: torch.Tensor) -> None:
    weights = 2 ** torch.arange(8, device=bits.device)
    padded = torch.nn.functional.pad(bits, (0, 8 * bitmap.numel() - bits.numel()))
    bitmap.copy_((padded.view(-1, 8) * weights).sum(1))


def _unpacked(bitmap: torch.Tensor) -> torch.Tensor:
    return (bitmap[:, None] >> torch.arange(8, device=bitmap.device, dtype=torch.uint8) & 1).flatten().bool()


def _digest(buffer: torch.Tensor, layout: Layout, nnz: int) -> int:
    return digest_of(buffer[: layout.nbytes(nnz)], 0)
