"""Launches the Triton programs: the codec on a GPU, without waiting for it unless a size must be known.

`encode` and, without `verify`, `decode` only enqueue work on the current stream. `encode_exact` waits once,
for the total that its allocation needs; a verified `decode` waits for its verdict.
"""

from __future__ import annotations

import functools
import importlib.util
from typing import Any, final

import torch

from ...errors import CodecError
from ..contract import Backend, Encoded, Mark, relu_mark
from ..layout import BLOCK, Layout

__all__ = ["Triton", "warps"]

#: Elements per program: four blocks, so that a tile's table entries are one 16-byte store.
TILE = 4 * BLOCK


def warps(size: int, *, hip: bool) -> int:
    """Warps per program for elements of `size` bytes.

    Eight keep every program under 128 registers per thread on sm_80 and sm_90 and free of spills on gfx942
    (benchmarks/codec-kernels); where a warp has 64 threads, only four leave 16 one-byte elements to each.
    """
    return 4 if hip and size == 1 else 8


@functools.cache
def _programs() -> Any:
    from . import programs  # triton takes half a second to import and exists on Linux only

    return programs


def _launch(name: str, programs: int, first: torch.Tensor, *args: Any, **options: Any) -> None:
    """Start a program on the device of its first tensor, whichever is current."""
    with torch.cuda.device_of(first):
        getattr(_programs(), name)[(programs,)](first, *args, **options)


@functools.cache
def _installed() -> bool:
    return importlib.util.find_spec("triton") is not None


@functools.cache
def _interpreted() -> bool:
    """Whether Triton's own interpreter runs the programs on the CPU (its TRITON_INTERPRET=1): for tests."""
    if not _installed():
        return False
    import triton

    return bool(triton.knobs.runtime.interpret)


@final
class Triton(Backend):
    """CUDA and ROCm tensors; CPU tensors under Triton's interpreter."""

    name = "triton"

    def available(self) -> bool:
        return _installed() and (torch.cuda.is_available() or _interpreted())

    def supports(self, device: torch.device) -> bool:
        return _interpreted() if device.type == "cpu" else device.type == "cuda"

    def encode(
        self, x: torch.Tensor, layout: Layout, buffer: torch.Tensor, *, y: torch.Tensor | None, neg_inf: int
    ) -> Encoded:
        x, tiles = _signed(x), _tiles(layout.numel)
        scratch = torch.zeros(4 + tiles, dtype=torch.int64, device=x.device)
        facts, counter, state = scratch[:3], scratch[3:4], scratch[4:]
        table, bitmap, values = _regions(buffer, layout, x.dtype)
        if tiles:
            _launch("encode", tiles,
                x, x if y is None else _signed(y), table, bitmap, values, state, counter, facts, layout.numel,
                layout.room(buffer.numel()), layout.head_bytes, layout.table_bytes // 4, neg_inf,
                FUSED=y is not None, MARK=int(relu_mark(x)), SIZE=layout.itemsize, **_options(layout.itemsize),
            )  # fmt: skip
        return Encoded(facts=facts)

    def encode_exact(self, x: torch.Tensor, layout: Layout) -> tuple[torch.Tensor, Encoded]:
        x, tiles = _signed(x), _tiles(layout.numel)
        head = torch.empty(layout.head_bytes, dtype=torch.uint8, device=x.device)
        facts = torch.zeros(3, dtype=torch.int64, device=x.device)
        table, bitmap, _ = _regions(head, layout, x.dtype)
        if tiles:
            _launch(
                "count",
                tiles,
                x,
                table,
                bitmap,
                facts,
                layout.numel,
                layout.table_bytes // 4,
                **_options(layout.itemsize),
            )
        index = self._scan(table, layout, facts)
        encoded = Encoded(facts=facts)
        buffer = torch.empty(layout.nbytes(encoded.nnz), dtype=torch.uint8, device=x.device)
        buffer[: layout.head_bytes] = head
        values = _regions(buffer, layout, x.dtype)[2]
        if tiles:
            _launch(
                "copy",
                tiles,
                x,
                values,
                index,
                facts,
                layout.numel,
                encoded.nnz,
                layout.head_bytes,
                SIZE=layout.itemsize,
                **_options(layout.itemsize),
            )
        return buffer, encoded

    def decode(
        self, buffer: torch.Tensor, layout: Layout, encoded: Encoded, y: torch.Tensor, *, verify: bool
    ) -> None:
        facts = torch.zeros(3, dtype=torch.int64, device=y.device)
        facts[2] = layout.blocks
        y = _signed(y)
        table, bitmap, values = _regions(buffer, layout, y.dtype)
        index = self._scan(table, layout, facts)
        if layout.numel:
            _launch("decode", _tiles(layout.numel),
                table, bitmap, values, index, facts, y, layout.numel, layout.room(buffer.numel()),
                layout.head_bytes, layout.table_bytes // 4, SIZE=layout.itemsize, VERIFY=verify,
                **_options(layout.itemsize),
            )  # fmt: skip
        if not verify:
            return
        total, digest, bad = facts.tolist()
        if total != encoded.nnz:
            raise CodecError(f"the number table does not add up to the {encoded.nnz} values of this encoding")
        if bad < layout.blocks:
            raise CodecError(f"number table and bitmap disagree in block {bad} of {layout.blocks}")
        if digest != encoded.digest:
            raise CodecError(
                f"the buffer was damaged: the digest of its {layout.nbytes(total)} bytes is not that of the encoding"
            )

    def mark(self, x: torch.Tensor, bitmap: torch.Tensor, *, mark: Mark, neg_inf: int) -> Encoded:
        facts = torch.zeros(3, dtype=torch.int64, device=x.device)
        if x.numel():
            _launch(
                "mark",
                _tiles(x.numel()),
                _signed(x),
                bitmap.view(torch.int32),
                facts,
                x.numel(),
                neg_inf,
                MARK=int(mark),
                FLOAT=neg_inf != -1,
            )
        return Encoded(facts=facts)

    def select(self, bitmap: torch.Tensor, x: torch.Tensor | int, y: torch.Tensor) -> Encoded:
        facts = torch.zeros(3, dtype=torch.int64, device=y.device)
        y = _signed(y)
        dense, one = (_signed(x), 0) if isinstance(x, torch.Tensor) else (y, x)
        if y.numel():
            _launch(
                "select",
                _tiles(y.numel()),
                dense,
                one,
                bitmap.view(torch.int32),
                y,
                facts,
                y.numel(),
                CONSTANT=not isinstance(x, torch.Tensor),
            )
        return Encoded(facts=facts)

    def digest(self, buffer: torch.Tensor) -> Encoded:
        facts = torch.zeros(3, dtype=torch.int64, device=buffer.device)
        words = buffer.view(torch.int32)
        if words.numel():
            _launch("digest", _tiles(words.numel()), words, facts, words.numel(), **_options(4))
        return Encoded(facts=facts)

    def _scan(self, table: torch.Tensor, layout: Layout, facts: torch.Tensor) -> torch.Tensor:
        tiles = -(-layout.blocks // BLOCK)
        index = torch.empty(layout.blocks, dtype=torch.int64, device=table.device)
        scratch = torch.zeros(1 + tiles, dtype=torch.int64, device=table.device)
        if tiles:
            _launch("scan", tiles, table, index, scratch[1:], scratch[:1], facts, layout.blocks)
        return index


def _options(size: int) -> dict[str, Any]:
    """Launch options; fusion of products and sums, which the programs have none of, is named to spare a
    warning."""
    return {"num_warps": warps(size, hip=torch.version.hip is not None), "enable_fp_fusion": True}


def _tiles(numel: int) -> int:
    return -(-numel // TILE)


def _signed(x: torch.Tensor) -> torch.Tensor:
    return x.view(torch.int8) if x.dtype is torch.uint8 else x


def _regions(
    buffer: torch.Tensor, layout: Layout, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Table and bitmap as 32-bit words, and the room for values in their own type."""
    values = buffer[layout.head_bytes :]
    return (
        buffer[: layout.table_bytes].view(torch.int32),
        buffer[layout.table_bytes : layout.head_bytes].view(torch.int32),
        values[: values.numel() // layout.itemsize * layout.itemsize].view(dtype),
    )
