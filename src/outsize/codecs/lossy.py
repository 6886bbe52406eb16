"""Fewer bits per element, with an error that is bounded before it is made. Opt-in.

A lossless plan changes no bit of a training run; these do, and a planner may use them only when it is told so
(`lossy=`). Each states the largest error of each element as a function of the tensor (`bound`), and the tests
hold it to that.

| codec | bytes per element | error of an element x, s = its block's scale |
|---|---|---|
| bf16 | 2 | 2⁻⁸ · abs(x), or 2⁻¹³⁴ below the normal range |
| fp8 | 1 + 4/256 | 2⁻⁴ · abs(x) + 2⁻¹⁰ · s, s = largest of the block / 448 |
| int8 | 1 + 4/256 | s / 2, s = largest of the block / 127 |

Where a block codec decodes to fp16 or bf16, that type's own rounding comes on top.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import ClassVar, Self, final

import torch

from ..errors import CodecError
from .choose import choose
from .contract import Backend, Compressed, Encoded
from .dense import Spec, flatten
from .layout import align

__all__ = ["LOSSY", "SCALE_BLOCK", "LossyCompressed", "bound", "compress_lossy"]

LOSSY = ("bf16", "fp8", "int8")
#: Elements that share a scale: a power of two that costs 1.6 % of a byte each.
SCALE_BLOCK = 256
#: Scales stay normal numbers, so that a division by one loses nothing to underflow.
_TINY = torch.finfo(torch.float32).tiny
#: Each computed scale, quotient and product carries one rounding of fp32 (2⁻²⁴).
_ROUNDING = 1 + 2**-20
#: The largest number that is not infinite.
_MOST = torch.finfo(torch.bfloat16).max
_LARGEST = {"fp8": 448.0, "int8": 127.0}
_ROUNDOFF = {torch.float32: 0.0, torch.float16: 2**-11, torch.bfloat16: 2**-8}
_SUBNORMAL = {torch.float32: 0.0, torch.float16: 2**-25, torch.bfloat16: 2**-134}


@final
@dataclass(frozen=True, kw_only=True)
class LossyCompressed(Compressed):
    """Scales per block (fp32, none for bf16) │ one payload per element.

    Attributes:
        codec: a lossy key of `CODECS`.
        spec: shape, strides, dtype and device of the dense tensor.
        storage: flat uint8: the scales, then the payload.
        encoded: the digest of the payload.
        backend: what decodes it.
    """

    lossless: ClassVar[bool] = False
    codec: str
    spec: Spec
    storage: torch.Tensor = field(repr=False)
    encoded: Encoded = field(repr=False)
    backend: Backend = field(repr=False)

    @property
    def buffer(self) -> torch.Tensor:
        return self.storage

    def decompress(self, out: torch.Tensor | None = None, *, verify: bool = True) -> torch.Tensor:
        if verify and self.backend.digest(self.storage).digest != self.encoded.digest:
            raise CodecError(
                f"the buffer was damaged: the digest of its {self.nbytes} bytes is not that of the encoding"
            )
        numel = self.spec.numel
        scales, values = _regions(self.storage, self.codec, numel)
        if self.codec != "bf16":
            values = values.to(torch.float32)
            values = torch.nn.functional.pad(values, (0, -numel % SCALE_BLOCK)).view(-1, SCALE_BLOCK)
            values = (values * scales[:, None]).flatten()[:numel]
        dense = self.spec.empty()
        dense.as_strided((numel,), (1,)).copy_(values)
        return self._into(dense, out)

    def with_buffer(self, buffer: torch.Tensor) -> Self:
        buffer = self._received(buffer)
        return replace(self, storage=buffer, spec=self._moved(buffer))


def compress_lossy(codec: str) -> Callable[[torch.Tensor, str | Backend | None], LossyCompressed]:
    """The encoder of one of the codecs above."""

    def encode(tensor: torch.Tensor, backend: str | Backend | None = None) -> LossyCompressed:
        flat, spec = flatten(tensor, f"compress(codec={codec!r})")
        if tensor.dtype not in ((torch.float32,) if codec == "bf16" else tuple(_ROUNDOFF)):
            raise CodecError(f"codec {codec!r} does not take {tensor.dtype}")
        x = flat.view(tensor.dtype).to(torch.float32)
        if codec != "bf16" and not bool(x.isfinite().all()):
            raise CodecError(
                f"codec {codec!r} has no scale for NaN or infinite elements: use 'bf16' or 'relu'"
            )
        chosen = choose(backend, tensor.device)
        storage = torch.zeros(_size(codec, x.numel()), dtype=torch.uint8, device=tensor.device)
        scales, payload = _regions(storage, codec, x.numel())
        if codec == "bf16":
            payload.copy_(x if _in_range(x) else torch.where(x.isinf(), x, x.clamp(-_MOST, _MOST)))
        else:
            scale = _scales(x, codec)
            scales.copy_(scale)
            quotient = x / scale.repeat_interleave(SCALE_BLOCK)[: x.numel()]
            limit = _LARGEST[codec]
            payload.copy_((quotient.round() if codec == "int8" else quotient).clamp(-limit, limit))
        return LossyCompressed(
            codec=codec, spec=spec, storage=storage, encoded=chosen.digest(storage), backend=chosen
        )

    return encode


def bound(codec: str, tensor: torch.Tensor) -> torch.Tensor:
    """The largest error that `codec` may make on each element, fp64, in the tensor's shape.

    The blocks of a scale follow the tensor's memory, as its encoding does.

    Args:
        codec: a lossy key of `CODECS`.
        tensor: fp64, fp32, fp16 or bf16, of any shape.

    Returns:
        fp64, in the tensor's shape.
    """
    flat, spec = flatten(tensor, "bound")
    x = flat.view(tensor.dtype).to(torch.float32)
    size = x.abs().to(torch.float64)
    if codec == "bf16":
        error = 2.0**-8 * size + 2.0**-134
    else:
        scale = _scales(x, codec).to(torch.float64).repeat_interleave(SCALE_BLOCK)[: x.numel()]
        error = (0.5 * scale if codec == "int8" else 2.0**-4 * size + 2.0**-10 * scale) * _ROUNDING
        error += 2.0**-22 * size  # the product's and the scale's own rounding, in fp32
        error += _ROUNDOFF[tensor.dtype] * (size + error) + _SUBNORMAL[tensor.dtype]
    return torch.empty_strided(spec.shape, spec.stride, dtype=torch.float64).copy_(
        error.as_strided(spec.shape, spec.stride)
    )


def _in_range(x: torch.Tensor) -> bool:
    """Whether bf16 rounds no element to infinity; found without memory of its own, as compiled steps need it."""
    if not x.numel():
        return True
    low, high = torch.aminmax(x)
    return bool(low >= -_MOST) and bool(high <= _MOST)


def _scales(x: torch.Tensor, codec: str) -> torch.Tensor:
    blocks = torch.nn.functional.pad(x.abs(), (0, -x.numel() % SCALE_BLOCK)).view(-1, SCALE_BLOCK)
    largest = blocks.amax(1) if x.numel() else blocks.sum(1)
    return (largest / _LARGEST[codec]).clamp_min(_TINY)


def _size(codec: str, numel: int) -> int:
    scales = 0 if codec == "bf16" else align(4 * -(-numel // SCALE_BLOCK))
    return scales + align(numel * (2 if codec == "bf16" else 1))


def _regions(storage: torch.Tensor, codec: str, numel: int) -> tuple[torch.Tensor, torch.Tensor]:
    if codec == "bf16":
        return storage[:0].view(torch.float32), storage.view(torch.bfloat16)[:numel]
    count = -(-numel // SCALE_BLOCK)
    payload = storage[align(4 * count) :][:numel]
    dtype = torch.int8 if codec == "int8" else torch.float8_e4m3fn
    return storage[: 4 * count].view(torch.float32), payload.view(dtype)
