"""The C module's codec: AVX-512, AVX2, NEON or portable C, chosen at run time, over all threads.

Encoding takes one reading of memory: a thread counts and packs a chunk, learns from the chunk before it where its
values start, and moves them there from its cache. This file turns tensors into checked addresses.
"""

from __future__ import annotations

from typing import Any, final

import torch

from ..errors import CodecError
from ..native import available, kernels
from .contract import Backend, Encoded, Mark, signed
from .layout import Layout

__all__ = ["Native"]

#: Below this many bytes a second thread costs more to start (30 µs) than it saves.
PARALLEL_BYTES = 1 << 20


@final
class Native(Backend):
    """CPU tensors through `outsize.native`.

    Args:
        level: index into `levels()`; the first is the fastest that this machine has.
    """

    name = "native"

    def __init__(self, level: int = 0) -> None:
        if level and not 0 <= level < len(self.levels()):
            raise CodecError(f"there is no instruction set {level}: {self.levels()} are usable here")
        self.level = level

    @staticmethod
    def levels() -> tuple[str, ...]:
        """Instruction sets usable here, best first, such as `("avx512", "avx2", "portable")`."""
        names: tuple[str, ...] = _module().codec_levels() if available() else ()
        return names

    def available(self) -> bool:
        return available()

    def supports(self, device: torch.device) -> bool:
        return device.type == "cpu"

    def encode(
        self, x: torch.Tensor, layout: Layout, buffer: torch.Tensor, *, y: torch.Tensor | None, neg_inf: int
    ) -> Encoded:
        base = _address(buffer)
        bitmap, values = base + layout.table_bytes, base + layout.head_bytes
        nnz, digest, negative = _module().codec_encode(
            *self._common(x, layout.numel), Mark.NONZERO if y is None else Mark.RELU, neg_inf % 2**64,
            x.data_ptr(), 0 if y is None else y.data_ptr(), base, base, bitmap, values,
            layout.room(buffer.numel()),
        )  # fmt: skip
        _clear_padding(buffer, layout)
        return Encoded.of(nnz, digest, negative)

    def encode_exact(self, x: torch.Tensor, layout: Layout) -> tuple[torch.Tensor, Encoded]:
        head = torch.empty(layout.head_bytes, dtype=torch.uint8)
        base = _address(head)
        nnz, digest, negative = _module().codec_encode(
            *self._common(x, layout.numel), Mark.NONZERO, 0, x.data_ptr(), 0, base, base,
            base + layout.table_bytes, 0, 0,
        )  # fmt: skip
        buffer = torch.empty(layout.nbytes(nnz), dtype=torch.uint8)
        buffer[: layout.head_bytes] = head
        _clear_padding(buffer, layout)
        base = _address(buffer)
        digest += _module().codec_copy(
            *self._common(x, layout.numel), x.data_ptr(), base, base, base + layout.table_bytes,
            base + layout.head_bytes, nnz,
        )  # fmt: skip
        return buffer, Encoded.of(nnz, digest, negative)

    def decode(
        self, buffer: torch.Tensor, layout: Layout, encoded: Encoded, y: torch.Tensor, *, verify: bool
    ) -> None:
        nnz = encoded.nnz
        if not 0 <= nnz <= layout.room(buffer.numel()):
            raise CodecError(
                f"{nnz} values need a buffer of {layout.nbytes(nnz)} bytes, this one has {buffer.numel()}"
            )
        base = _address(buffer)
        status, block, digest = _module().codec_decode(
            *self._common(y, layout.numel), nnz, base, base, base + layout.table_bytes,
            base + layout.head_bytes, y.data_ptr(),
        )  # fmt: skip
        if status:
            raise CodecError(f"the number table does not add up to the {nnz} values of this encoding")
        if block >= 0:
            raise CodecError(f"number table and bitmap disagree in block {block} of {layout.blocks}")
        if verify and signed(digest) != encoded.digest:
            raise CodecError(
                f"the buffer was damaged: the digest of its {layout.nbytes(nnz)} bytes is not that of the encoding"
            )

    def mark(self, x: torch.Tensor, bitmap: torch.Tensor, *, mark: Mark, neg_inf: int) -> Encoded:
        base = _address(bitmap)
        _, digest, _ = _module().codec_encode(
            *self._common(x, x.numel()), mark, neg_inf % 2**64, x.data_ptr(), 0, base, 0, base, 0, 0
        )
        return Encoded.of(0, digest, 0)

    def select(self, bitmap: torch.Tensor, x: torch.Tensor | int, y: torch.Tensor) -> Encoded:
        address, one = (x.data_ptr(), 0) if isinstance(x, torch.Tensor) else (0, x % 2**64)
        digest = _module().codec_select(
            *self._common(y, y.numel()), address, one,
            _address(bitmap), y.data_ptr(),
        )  # fmt: skip
        return Encoded.of(0, digest, 0)

    def digest(self, buffer: torch.Tensor) -> Encoded:
        return Encoded.of(0, _module().codec_digest(self.level, buffer.data_ptr(), buffer.numel()), 0)

    def _common(self, x: torch.Tensor, numel: int) -> tuple[int, int, int, int]:
        threads = torch.get_num_threads() if numel * x.element_size() >= PARALLEL_BYTES else 1
        return self.level, threads, x.element_size().bit_length() - 1, numel


def _module() -> Any:
    if kernels is None:
        raise CodecError(
            "the native back end needs the C module, which was not built: use backend='reference'"
        )
    return kernels


def _address(buffer: torch.Tensor) -> int:
    address = buffer.data_ptr()
    if address % 16:
        raise CodecError(
            f"a buffer must start on a 16-byte boundary, this one starts at {address % 16} past one"
        )
    return address


def _clear_padding(buffer: torch.Tensor, layout: Layout) -> None:
    buffer[4 * layout.blocks : layout.table_bytes].zero_()
