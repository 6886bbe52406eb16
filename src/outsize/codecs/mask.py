"""One bit per element, where a backward pass needs only the sign pattern: 32 times smaller than fp32.

A ReLU's gradient is `grad where not (x <= 0) else 0`, so one bit per element decides it, and nothing else of
the activation is read if no convolution or matmul follows. A dropout mask is such bits already.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Self, final

import torch

from ..errors import CodecError
from .choose import choose
from .contract import Backend, Compressed, Encoded, Mark
from .dense import Spec, bits_of, copy_bits, flatten, refuse_shared, written
from .layout import align
from .relu import NEG_INF, ReluCompressed

__all__ = ["MaskCompressed", "compress_mask", "mask_backward"]

#: Unsigned and boolean elements are above zero exactly where a bit is set.
_UNSIGNED = (torch.bool, torch.uint8)
_SIGNED = (torch.int8, torch.int16, torch.int32, torch.int64)


@final
@dataclass(frozen=True, kw_only=True)
class MaskCompressed(Compressed):
    """The bits `not (x <= 0)`: above zero, or NaN. Lossless for uses that read nothing else.

    `decompress` gives ones and zeros of the tensor's dtype: a boolean mask comes back exactly, and in place
    of a ReLU's saved result they give `threshold_backward` bitwise the same gradient.

    Attributes:
        spec: shape, strides, dtype and device of the dense tensor.
        bitmap: flat uint8, one bit an element.
        encoded: number of set bits and digest.
        backend: what decodes it.
    """

    codec: str = field(default="mask", init=False)
    spec: Spec
    bitmap: torch.Tensor = field(repr=False)
    encoded: Encoded = field(repr=False)
    backend: Backend = field(repr=False)

    @property
    def buffer(self) -> torch.Tensor:
        return self.bitmap

    def decompress(self, out: torch.Tensor | None = None, *, verify: bool = True) -> torch.Tensor:
        self._check_out(out)
        dense = out if out is not None and out.stride() == self.spec.stride else self.spec.empty()
        flat = bits_of(dense.detach().as_strided((self.spec.numel,), (1,)))
        one = int(bits_of(torch.ones(1, dtype=self.spec.dtype)))
        self._check(self.backend.select(self.bitmap, one, flat), verify)
        return _returned(dense, out)

    def with_buffer(self, buffer: torch.Tensor) -> Self:
        buffer = self._received(buffer)
        return replace(self, bitmap=buffer, spec=self._moved(buffer))

    def _check(self, found: Encoded, verify: bool) -> None:
        if verify and found.digest != self.encoded.digest:
            raise CodecError(f"the digest of the bitmap ({self.nbytes} bytes) is not that of the encoding")


def compress_mask(tensor: torch.Tensor, backend: str | Backend | None = None) -> MaskCompressed:
    """One bit per element: `not (x <= 0)`.

    Raises:
        CodecError: complex or 8-bit floating elements, which have no such order here.
    """
    flat, spec = flatten(tensor, "compress(codec='mask')")
    if tensor.dtype not in (*NEG_INF, *_UNSIGNED, *_SIGNED):
        raise CodecError(f"the mask codec takes booleans, integers and fp64 to bf16, not {tensor.dtype}")
    chosen = choose(backend, tensor.device)
    bitmap = torch.empty(align(-(-flat.numel() // 8)), dtype=torch.uint8, device=tensor.device)
    mark = Mark.NONZERO if tensor.dtype in _UNSIGNED else Mark.GATE
    encoded = chosen.mark(flat, bitmap, mark=mark, neg_inf=NEG_INF.get(tensor.dtype, -1))
    return MaskCompressed(spec=spec, bitmap=bitmap, encoded=encoded, backend=chosen)


def mask_backward(
    grad: torch.Tensor,
    saved: MaskCompressed | ReluCompressed,
    out: torch.Tensor | None = None,
    *,
    verify: bool = True,
) -> torch.Tensor:
    """ReLU's gradient straight from the bits: bitwise `threshold_backward(grad, activation, 0)`.

    Args:
        grad: the gradient of the activation, in its shape and strides (it is copied into them if they
            differ); its dtype may be another than the activation's.
        saved: the activation's mask, or its zero-suppressed encoding: one encoding then serves both the ReLU
            and the next convolution's weight gradient. If that saw a sign bit (−0.0 or a negative number,
            where the bitmap is not the mask) it is decoded first.
        out: receives the result; `out=grad` is the in-place form.
        verify: check the bitmap's digest first.

    Returns:
        the gradient of the ReLU's input, in the shape, strides and dtype of `grad`; `out` where it was given.

    Raises:
        CodecError: shapes differ, or the bitmap is damaged.
    """
    spec = saved.spec
    if grad.shape != spec.shape:
        raise CodecError(
            f"mask_backward: the gradient has shape {tuple(grad.shape)}, the mask {tuple(spec.shape)}"
        )
    if grad.stride() != spec.stride:
        grad = torch.empty_strided(spec.shape, spec.stride, dtype=grad.dtype, device=grad.device).copy_(grad)
    flat, wanted = flatten(grad, "mask_backward")
    if out is not None:
        wanted.check(out)
        if out.data_ptr() != flat.data_ptr():
            refuse_shared(out, grad, "mask_backward(out=…): out and a shifted gradient")
    if isinstance(saved, ReluCompressed) and (saved.encoded.negative or saved.spec.dtype not in NEG_INF):
        dense = saved.decompress(verify=verify)
        passed = torch.where(dense <= 0, torch.zeros((), dtype=grad.dtype, device=grad.device), grad)
        return _returned(passed, out)
    dense = out if out is not None and out.stride() == spec.stride else wanted.empty()
    if isinstance(saved, ReluCompressed) and verify:
        saved.check()
    found = saved.backend.select(saved.bitmap, flat, bits_of(dense.detach().as_strided((spec.numel,), (1,))))
    if isinstance(saved, MaskCompressed):
        saved._check(found, verify)
    return _returned(dense, out)


def _returned(dense: torch.Tensor, out: torch.Tensor | None) -> torch.Tensor:
    written(out)
    return dense if out is None or dense is out else copy_bits(out, dense)
