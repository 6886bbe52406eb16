"""Integers in the fewest bits: one bitmap per binary digit.

A max-pooling saves, per output, the position of the winner as an int64: 8 bytes that carry log2(kernel) bits.
`compress_pool_indices` keeps the winner's place in its window (2 bits for 2 x 2, 4 for 3 x 3); without the
window's geometry, codec "bits" keeps as many digits as the range of the values needs (14 for a plane of 112 x
112).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Self, final

import torch

from ..errors import CodecError
from .choose import choose
from .contract import Backend, Compressed, Encoded, Mark
from .dense import Spec, bits_of, flatten
from .layout import align

__all__ = ["BitsCompressed", "PoolCompressed", "Window", "compress_bits", "compress_pool_indices"]

_INTEGERS = (torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


@final
@dataclass(frozen=True, kw_only=True)
class BitsCompressed(Compressed):
    """`width` bitmaps, least significant digit first, of the elements minus `low`."""

    codec: str = field(default="bits", init=False)
    spec: Spec
    low: int
    width: int
    storage: torch.Tensor = field(repr=False)
    encoded: Encoded = field(repr=False)
    backend: Backend = field(repr=False)

    @property
    def buffer(self) -> torch.Tensor:
        return self.storage

    def decompress(self, out: torch.Tensor | None = None, *, verify: bool = True) -> torch.Tensor:
        if verify and self.backend.digest(self.storage).digest != self.encoded.digest:
            raise CodecError(
                f"the digest of the {self.width} bitmaps ({self.nbytes} bytes) is not the encoding's"
            )
        digits = torch.zeros(self.spec.numel, dtype=_narrowest(self.width), device=self.spec.device)
        one = torch.empty_like(digits)
        for digit, plane in enumerate(_planes(self.storage, self.width)):
            self.backend.select(plane, 1 << digit, one)
            digits |= one
        dense = self.spec.empty()
        flat = _countable(dense.as_strided((self.spec.numel,), (1,)))
        flat.copy_(digits)
        if self.low:
            flat += self.low
        return self._into(dense, out)

    def with_buffer(self, buffer: torch.Tensor) -> Self:
        buffer = self._received(buffer)
        return replace(self, storage=buffer, spec=self._moved(buffer))


def compress_bits(tensor: torch.Tensor, backend: str | Backend | None = None) -> BitsCompressed:
    """Lossless for any integers; as small as their range. Waits for a GPU once, to learn the range.

    Raises:
        CodecError: not an integer tensor, or a range of more than 32 bits.
    """
    flat, spec = flatten(tensor, "compress(codec='bits')")
    if tensor.dtype not in _INTEGERS:
        raise CodecError(f"codec 'bits' takes integers and booleans, not {tensor.dtype}")
    dense = _countable(flat.view(tensor.dtype))
    low, high = (int(v) for v in torch.aminmax(dense)) if dense.numel() else (0, 0)
    width = (high - low).bit_length()
    if width > 32:
        raise CodecError(f"codec 'bits' takes ranges of up to 32 bits, {low} to {high} has {width}")
    chosen = choose(backend, tensor.device)
    digits = (dense - low if low else dense).to(_narrowest(width))
    bitmap = align(-(-flat.numel() // 8))
    storage = torch.empty(width * bitmap, dtype=torch.uint8, device=tensor.device)
    for digit, plane in enumerate(_planes(storage, width)):
        chosen.mark(bits_of(digits & (1 << digit)), plane, mark=Mark.NONZERO, neg_inf=-1)
    return BitsCompressed(
        spec=spec, low=low, width=width, storage=storage, encoded=chosen.digest(storage), backend=chosen
    )


@dataclass(frozen=True, kw_only=True)
class Window:
    """A two-dimensional pooling: each pair is (height, width); `plane` is the input's size.

    Attributes:
        plane: of the input, in elements.
        kernel, stride, padding, dilation: as for `torch.nn.MaxPool2d`, in elements.
    """

    plane: tuple[int, int]
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)

    def corner(self, axis: int, count: int, device: torch.device) -> torch.Tensor:
        """Where each of `count` windows starts in the input, along one axis.

        Args:
            axis: 0 for height, 1 for width.
            count: windows along it.
            device: of the result.

        Returns:
            `[count]` int64, in elements; negative where a window begins in the padding.
        """
        return torch.arange(count, device=device) * self.stride[axis] - self.padding[axis]


@final
@dataclass(frozen=True, kw_only=True)
class PoolCompressed(Compressed):
    """The winners' places in their windows, in ⌈log2(kernel height · kernel width)⌉ bits each."""

    codec: str = field(default="pool", init=False)
    spec: Spec
    window: Window
    places: BitsCompressed = field(repr=False)

    @property
    def buffer(self) -> torch.Tensor:
        return self.places.buffer

    def decompress(self, out: torch.Tensor | None = None, *, verify: bool = True) -> torch.Tensor:
        place = self.places.decompress(verify=verify).to(torch.int64)
        w, device = self.window, place.device
        rows = w.corner(0, place.shape[-2], device)[:, None] + place // w.kernel[1] * w.dilation[0]
        columns = w.corner(1, place.shape[-1], device) + place % w.kernel[1] * w.dilation[1]
        dense = self.spec.empty()
        torch.add(rows * w.plane[1], columns, out=dense)
        return self._into(dense, out)

    def with_buffer(self, buffer: torch.Tensor) -> Self:
        places = self.places.with_buffer(buffer)
        return replace(self, places=places, spec=self._moved(buffer))


def compress_pool_indices(
    indices: torch.Tensor, window: Window, backend: str | Backend | None = None
) -> PoolCompressed:
    """The indices that `max_pool2d_with_indices` returns, by their places in the windows.

    Args:
        indices: int64, `(…, out height, out width)`, positions in a plane of `window.plane`.
        window: the pooling that made them.
        backend: as for `compress`.

    Returns:
        the encoding.

    Raises:
        CodecError: an index does not lie in its window: the geometry is another one's.
    """
    _, spec = flatten(indices, "compress_pool_indices")
    if indices.dtype is not torch.int64 or indices.dim() < 2:
        raise CodecError(
            f"pool indices are int64 of two dimensions or more, not {indices.dtype} {tuple(indices.shape)}"
        )
    w, device = window, indices.device
    row = indices // w.plane[1] - w.corner(0, indices.shape[-2], device)[:, None]
    column = indices % w.plane[1] - w.corner(1, indices.shape[-1], device)
    inside = torch.ones((), dtype=torch.bool, device=device)
    for offset, axis in ((row, 0), (column, 1)):
        last = (w.kernel[axis] - 1) * w.dilation[axis]
        inside = inside & ((offset >= 0) & (offset <= last) & (offset % w.dilation[axis] == 0)).all()
    if not bool(inside):
        raise CodecError(f"some indices lie outside their windows: they do not come from {window}")
    place = row // w.dilation[0] * w.kernel[1] + column // w.dilation[1]
    return PoolCompressed(spec=spec, window=window, places=compress_bits(place.to(torch.int32), backend))


def _countable(flat: torch.Tensor) -> torch.Tensor:
    """Booleans as bytes, which can be added."""
    return flat.view(torch.uint8) if flat.dtype is torch.bool else flat


def _planes(storage: torch.Tensor, width: int) -> tuple[torch.Tensor, ...]:
    return storage.view(width, -1).unbind() if width else ()


def _narrowest(width: int) -> torch.dtype:
    return next(
        d
        for d, bits in ((torch.uint8, 8), (torch.int16, 15), (torch.int32, 31), (torch.int64, 63))
        if width <= bits
    )
