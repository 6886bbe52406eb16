"""Zero suppression: keep the nonzeros of a ReLU output, and a bit per element that says where they go.

ReLU outputs stay in memory from the forward to the backward pass, and half of them or more are zero. Method 1
(US 11,362,670) stores a number table, a bitmap and the nonzeros in one buffer (`layout.py`); at density d an
fp32 tensor takes d + 1/32 + 1/1024 of its bytes. Lossless for every bit pattern: nonzero means "bits not all
zero".
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Self, final

import torch

from ..errors import CodecError
from .choose import choose
from .contract import Backend, Compressed, Encoded
from .dense import Spec, bits_of, check_buffer, copy_bits, flatten, refuse_shared, whole_words, written
from .layout import Layout

__all__ = ["NEG_INF", "ReluCompressed", "compress_relu", "encode_into", "relu_encode"]

#: Bit patterns of −inf, as signed integers: in unsigned order only the negative NaNs lie above them.
NEG_INF = {
    torch.float64: -(1 << 52),
    torch.float32: -(1 << 23),
    torch.float16: -(1 << 10),
    torch.bfloat16: -(1 << 7),
}


@final
@dataclass(frozen=True, kw_only=True)
class ReluCompressed(Compressed):
    """Number table │ bitmap │ nonzeros, in one buffer.

    Attributes:
        spec: shape, strides, dtype and device of the dense tensor.
        storage: flat uint8; the encoding is its first `nbytes` bytes (more only after `encode_into`).
        encoded: number of nonzeros and digest, read from the device when first needed.
        layout: where table, bitmap and nonzeros lie in the storage.
        backend: what decodes it.
    """

    codec: str = field(default="relu", init=False)
    spec: Spec
    layout: Layout
    storage: torch.Tensor = field(repr=False)
    encoded: Encoded = field(repr=False)
    backend: Backend = field(repr=False)

    @property
    def nnz(self) -> int:
        """Number of elements with any bit set."""
        return self.encoded.nnz

    @property
    def density(self) -> float:
        """Share of nonzero elements, 0 to 1 (0 for an empty tensor)."""
        return self.nnz / self.layout.numel if self.layout.numel else 0.0

    @property
    def overflowed(self) -> bool:
        """Whether the values did not fit the buffer that `encode_into` was given."""
        return self.nnz > self.layout.room(self.storage.numel())

    @property
    def nbytes(self) -> int:
        """Exactly `layout.nbytes(nnz)`."""
        return self.layout.nbytes(self.nnz)

    @property
    def buffer(self) -> torch.Tensor:
        self._refuse_overflow()
        return self.storage[: self.nbytes]

    @property
    def _memory(self) -> torch.Tensor:
        return self.storage

    @property
    def table(self) -> torch.Tensor:
        """Nonzeros per block of 1024 elements, int32; a view of the buffer."""
        return self.storage[: 4 * self.layout.blocks].view(torch.int32)

    @property
    def bitmap(self) -> torch.Tensor:
        """One bit per element, least significant first, padded with zero bits; uint8, a view of the
        buffer."""
        return self.storage[self.layout.table_bytes : self.layout.head_bytes]

    @property
    def values(self) -> torch.Tensor:
        """The nonzeros in their order, in the tensor's dtype; a view of the buffer."""
        return self.buffer[self.layout.head_bytes :].view(self.spec.dtype)

    def decompress(self, out: torch.Tensor | None = None, *, verify: bool = True) -> torch.Tensor:
        self._check_out(out)
        if verify or self.storage.device.type == "cpu":  # elsewhere, reading nnz would wait for the device
            self._refuse_overflow()
        dense = out if out is not None and out.stride() == self.spec.stride else self.spec.empty()
        flat = bits_of(dense.detach().as_strided((self.layout.numel,), (1,)))
        self.backend.decode(self.storage, self.layout, self.encoded, flat, verify=verify)
        written(out)
        return dense if out is None or dense is out else copy_bits(out, dense)

    def with_buffer(self, buffer: torch.Tensor) -> Self:
        buffer = self._received(buffer)
        return replace(self, storage=buffer, spec=self._moved(buffer))

    def check(self) -> None:
        """Compares the digest, for a use that reads only a part.

        Raises:
            CodecError: the buffer is damaged.
        """
        if self.backend.digest(whole_words(self.buffer)).digest != self.encoded.digest:
            raise CodecError(
                f"the buffer was damaged: the digest of its {self.nbytes} bytes is not that of the encoding"
            )

    def _refuse_overflow(self) -> None:
        if self.overflowed:
            raise CodecError(
                f"{self.nnz} of {self.layout.numel} elements are nonzero and need {self.nbytes} bytes, "
                f"the buffer that was planned has {self.storage.numel()}: plan a density of "
                f"{self.density:.3f} or more, or keep the tensor"
            )


def compress_relu(tensor: torch.Tensor, backend: str | Backend | None = None) -> ReluCompressed:
    """Zero suppression into a new buffer of exactly the size that the nonzeros need."""
    flat, spec = flatten(tensor, "compress(codec='relu')")
    chosen = choose(backend, tensor.device)
    layout = Layout(numel=flat.numel(), itemsize=flat.element_size())
    buffer, encoded = chosen.encode_exact(flat, layout)
    return ReluCompressed(spec=spec, layout=layout, storage=buffer, encoded=encoded, backend=chosen)


def encode_into(
    tensor: torch.Tensor,
    buffer: torch.Tensor,
    *,
    backend: str | Backend | None = None,
    overflow: str = "raise",
) -> ReluCompressed:
    """Zero suppression into memory planned before, in one pass over the tensor.

    Args:
        tensor: as for `compress`.
        buffer: flat uint8 on the tensor's device, starting on a 16-byte boundary; `Layout.planned_bytes` says
            how long it should be for an expected density. The encoding keeps it and uses its first bytes.
        overflow: `"raise"`, or `"flag"` to return an encoding whose `overflowed` is true (its `nnz`, `table`
            and `bitmap` are right, its values are not), so that the caller may keep or swap the tensor. On a
            GPU `"flag"` does not wait for the device until `overflowed` is read.
        backend: as for `compress`.

    Returns:
        the encoding, which lies in `buffer`.

    Raises:
        CodecError: the tensor cannot be encoded, the buffer cannot hold even table and bitmap, or (with
            `"raise"`) not the values.
    """
    flat, spec = flatten(tensor, "encode_into")
    return _into(flat, spec, buffer, choose(backend, tensor.device), overflow, y=None, neg_inf=0)


def relu_encode(
    x: torch.Tensor,
    *,
    out: torch.Tensor | None = None,
    buffer: torch.Tensor | None = None,
    backend: str | Backend | None = None,
    overflow: str = "raise",
) -> tuple[torch.Tensor, ReluCompressed]:
    """`relu(x)` and its encoding, in one pass over `x`.

    Args:
        x: fp64, fp32, fp16 or bf16.
        out: receives relu(x) in the strides of x; `out=x` is the in-place form.
        buffer: as for `encode_into`; by default one for the densest case, of which only the used pages of
            memory are touched.
        overflow: as for `encode_into`; the activation is whole either way.
        backend: as for `compress`.

    Returns:
        The activation (bitwise `torch.relu(x)`, with NaN payloads passed through) and its encoding.

    Raises:
        CodecError: as for `encode_into`.
    """
    flat, spec = flatten(x, "relu_encode")
    if x.dtype not in NEG_INF:
        raise CodecError(f"relu_encode takes {', '.join(map(str, NEG_INF))}, not {x.dtype}")
    y = spec.empty() if out is None else out
    spec.check(y)
    if y.stride() != spec.stride:
        raise CodecError(f"relu_encode(out=…): out has strides {y.stride()}, x has {spec.stride}")
    if y.data_ptr() != flat.data_ptr():
        refuse_shared(y, x, "relu_encode(out=…): out and a shifted x")
    if buffer is None:
        layout = Layout(numel=flat.numel(), itemsize=flat.element_size())
        buffer = torch.empty(layout.nbytes(layout.numel), dtype=torch.uint8, device=x.device)
    flat_y = bits_of(y.detach().as_strided((flat.numel(),), (1,)))
    chosen = choose(backend, x.device)
    made = _into(flat, spec, buffer, chosen, overflow, y=flat_y, neg_inf=NEG_INF[x.dtype])
    written(out)
    return y, made


def _into(
    flat: torch.Tensor, spec: Spec, buffer: torch.Tensor, backend: Backend, overflow: str, *,
    y: torch.Tensor | None, neg_inf: int,
) -> ReluCompressed:  # fmt: skip
    if overflow not in ("raise", "flag"):
        raise CodecError(f"overflow is 'raise' or 'flag', not {overflow!r}")
    layout = Layout(numel=flat.numel(), itemsize=flat.element_size())
    if isinstance(buffer, torch.Tensor) and buffer.device != spec.device:
        raise CodecError(f"the buffer must lie on {spec.device}, this one lies on {buffer.device}")
    check_buffer(buffer)
    if not buffer.is_contiguous():
        raise CodecError(f"a buffer is flat contiguous uint8, this one has strides {buffer.stride()}")
    if buffer.data_ptr() % 16:
        raise CodecError(
            f"the buffer must start on a 16-byte boundary, this one starts {buffer.data_ptr() % 16} bytes past one"
        )
    if layout.room(buffer.numel()) < 0:
        raise CodecError(
            f"table and bitmap of {layout.numel} elements take {layout.head_bytes} bytes before any value, "
            f"the buffer has {buffer.numel()}"
        )
    for dense in (flat, y):
        if dense is not None:
            refuse_shared(dense, buffer, "the tensor and the buffer for its encoding")
    encoded = backend.encode(flat, layout, buffer, y=y, neg_inf=neg_inf)
    made = ReluCompressed(spec=spec, layout=layout, storage=buffer, encoded=encoded, backend=backend)
    if overflow == "raise":
        made._refuse_overflow()
    return made
