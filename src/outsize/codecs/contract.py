"""What a back end supplies, and what every compressed tensor answers.

Three back ends implement the same primitives over flat arrays of bit patterns and are held to the same tests:
`reference` (plain torch: the specification), `native` (the C module, on the CPU) and `triton` (on a GPU).
The codecs are written once, above them.
"""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch

from ..errors import CodecError
from .dense import Spec, check_buffer, copy_bits, refuse_shared
from .layout import Layout

__all__ = ["Backend", "Compressed", "Encoded", "Mark", "digest_of", "relu_mark", "signed"]

#: Words of a buffer are weighed with odd multiples of this (the golden ratio in 32 bits).
DIGEST_KEY = 0x9E3779B1


@enum.unique
class Mark(enum.IntEnum):
    """Which elements get a bit in the bitmap (the numbers are the C module's)."""

    NONZERO = 0  #: any bit set: −0.0, NaN and denormals are nonzero
    RELU = 1  #: what torch.relu leaves nonzero: above zero, NaN, −0.0
    GATE = 2  #: where a ReLU lets the gradient through: not (x <= 0), so above zero or NaN


def relu_mark(x: torch.Tensor) -> Mark:
    """What torch's ReLU leaves nonzero on the device of `x`: on a GPU it makes −0.0 a zero."""
    return Mark.GATE if x.is_cuda else Mark.RELU


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """What an encoder found: `[nnz, digest, negative]` as int64, on the tensor's own device.

    Reading them from a GPU waits for it, so nobody does before he has to.
    """

    facts: torch.Tensor

    @classmethod
    def of(cls, nnz: int, digest: int, negative: int) -> Encoded:
        return cls(facts=torch.tensor([nnz, signed(digest), negative], dtype=torch.int64))

    @property
    def nnz(self) -> int:
        return int(self.facts[0])

    @property
    def digest(self) -> int:
        return int(self.facts[1])

    @property
    def negative(self) -> bool:
        """Whether any encoded element has its sign bit set (−0.0 and negative NaN included)."""
        return bool(self.facts[2])


def signed(value: int) -> int:
    """The two's complement reading of the low 64 bits."""
    return (value + 2**63) % 2**64 - 2**63


def digest_of(region: torch.Tensor, offset: int) -> int:
    """The digest's part for a uint8 region that starts `offset` bytes (a multiple of 4) into its buffer.

    The digest of a buffer is Σ word[k] · (k · KEY mod 2³² | 1) mod 2⁶⁴ over its 32-bit words: linear, so that
    threads and blocks can add up their parts in any order, with odd weights, so that no single flipped bit
    and no two swapped words go unseen.
    """
    words = (
        torch.nn.functional.pad(region, (0, -region.numel() % 4)).view(torch.int32).to(torch.int64)
        & 0xFFFFFFFF
    )
    index = torch.arange(words.numel(), device=region.device) + offset // 4
    return int((words * ((index * DIGEST_KEY) & 0xFFFFFFFF | 1)).sum())


class Backend(ABC):
    """The primitives. `x`, `y` are flat integer views; buffers are flat uint8, aligned to 16 bytes."""

    name: str

    @abstractmethod
    def available(self) -> bool:
        """Whether this back end runs here."""

    @abstractmethod
    def supports(self, device: torch.device) -> bool:
        """Whether it takes tensors of this device.

        Args:
            device: of the tensors that are to be encoded.

        Returns:
            True where it does.
        """

    @abstractmethod
    def encode(
        self, x: torch.Tensor, layout: Layout, buffer: torch.Tensor, *, y: torch.Tensor | None, neg_inf: int
    ) -> Encoded:
        """One pass into a buffer allocated before: table, bitmap and as many values as fit.

        With `y` it is the fused form: y receives relu(x) (x itself may be y) and y is what is encoded.
        `neg_inf` is then the bit pattern of −inf in x's type, −1 for integers. The table and the bitmap are
        whole even when the values do not fit; compare nnz with `layout.room(buffer.numel())`.

        Args:
            x: the elements' bit patterns, `[numel]`.
            layout: sizes of the regions for `x`.
            buffer: flat uint8 of at least `layout.head_bytes`.
            y: as `x`, receives relu(x); None encodes `x` itself.
            neg_inf: bit pattern of −inf in the dtype of `x`; −1 for integers.

        Returns:
            number of nonzeros, digest, and whether a sign bit is set.
        """

    @abstractmethod
    def encode_exact(self, x: torch.Tensor, layout: Layout) -> tuple[torch.Tensor, Encoded]:
        """Claim 1 in its order: bitmap and table by a parallel reduction, index by a parallel scan,
        allocation of `layout.nbytes(nnz)` bytes, parallel copy.

        Args:
            x: the elements' bit patterns, `[numel]`.
            layout: sizes of the regions for `x`.

        Returns:
            the buffer, flat uint8 of `layout.nbytes(nnz)` bytes, and what was found.
        """

    @abstractmethod
    def decode(
        self, buffer: torch.Tensor, layout: Layout, encoded: Encoded, y: torch.Tensor, *, verify: bool
    ) -> None:
        """Scans the table again, clears `y` and scatters the values into it.

        Args:
            buffer: flat uint8, as encoded.
            layout: sizes of its regions.
            encoded: what the encoder found.
            y: receives the elements' bit patterns, `[numel]`.
            verify: also compare the digest.

        Raises:
            CodecError: the table does not add up, disagrees with the bitmap, or the digest differs. The check
                of the digest is left out without `verify`; no address outside the regions is used either way.
        """

    @abstractmethod
    def mark(self, x: torch.Tensor, bitmap: torch.Tensor, *, mark: Mark, neg_inf: int) -> Encoded:
        """Writes one bit per element (padded with zeros to the region's end); only the digest is returned.

        Args:
            x: the elements' bit patterns, `[numel]`.
            bitmap: flat uint8, receives the bits.
            mark: which elements get a bit.
            neg_inf: bit pattern of −inf in the dtype of `x`; −1 for integers.

        Returns:
            the digest of the bitmap.
        """

    @abstractmethod
    def select(self, bitmap: torch.Tensor, x: torch.Tensor | int, y: torch.Tensor) -> Encoded:
        """y = x where the bit is set, else zero; `x` may be one bit pattern. Only the digest is returned.

        Args:
            bitmap: flat uint8, one bit an element.
            x: bit patterns, `[numel]`, or one for all.
            y: receives the result, `[numel]`.

        Returns:
            the digest of the bitmap.
        """

    @abstractmethod
    def digest(self, buffer: torch.Tensor) -> Encoded:
        """Only the digest of a flat uint8 buffer, a multiple of 4 bytes long.

        Args:
            buffer: flat uint8.

        Returns:
            the digest; the other facts are zero.
        """


class Compressed(ABC):
    """A tensor in fewer bytes. Immutable; `buffer` is all there is to move to a tier and back."""

    codec: str
    spec: Spec
    #: Whether `decompress` gives back the very bits.
    lossless: ClassVar[bool] = True

    @property
    @abstractmethod
    def buffer(self) -> torch.Tensor:
        """The bytes, flat uint8, exactly `nbytes` long."""

    @property
    def nbytes(self) -> int:
        """The buffer's exact size in bytes."""
        return self.buffer.numel()

    @property
    def dense_bytes(self) -> int:
        """Bytes of the dense tensor's elements."""
        return self.spec.numel * self.spec.dtype.itemsize

    @property
    def ratio(self) -> float:
        """Compressed bytes over dense bytes (0 for an empty tensor)."""
        return self.nbytes / self.dense_bytes if self.dense_bytes else 0.0

    @abstractmethod
    def decompress(self, out: torch.Tensor | None = None, *, verify: bool = True) -> torch.Tensor:
        """The dense tensor, in `out` if given.

        Args:
            out: receives the result; same shape, dtype and device as the encoded tensor, any strides. Its
                contents are undefined after an error.
            verify: also compare the digest, which finds a flipped bit anywhere in the regions.

        Returns:
            the dense tensor: `out`, or a new one of the encoded tensor's shape, strides, dtype and device.

        Raises:
            CodecError: `out` does not match, or the buffer is damaged.
        """

    @abstractmethod
    def with_buffer(self, buffer: torch.Tensor) -> Self:
        """The same encoding around other bytes: what comes back from a tier.

        Args:
            buffer: flat uint8, `nbytes` long, on any device.

        Returns:
            an encoding that decodes on the buffer's device.

        Raises:
            CodecError: the buffer has another size, dtype or alignment.
        """

    def _received(self, buffer: torch.Tensor) -> torch.Tensor:
        """`buffer`, checked and on a 16-byte boundary."""
        check_buffer(buffer)
        if buffer.numel() != self.nbytes:
            raise CodecError(
                f"the buffer holds {buffer.numel()} bytes, this {self.codec} encoding of "
                f"{self.spec.numel} elements has {self.nbytes}: it was cut short or belongs to another tensor"
            )
        buffer = buffer.contiguous()
        return buffer if buffer.data_ptr() % 16 == 0 else buffer.clone()

    def _into(self, dense: torch.Tensor, out: torch.Tensor | None) -> torch.Tensor:
        """`dense`, in `out` if given."""
        if out is None:
            return dense
        self._check_out(out)
        return copy_bits(out, dense)

    def _check_out(self, out: torch.Tensor | None) -> None:
        if out is not None:
            self.spec.check(out)
            refuse_shared(out, self._memory, "decompress(out=…): out and the encoding")

    @property
    def _memory(self) -> torch.Tensor:
        """What `buffer` lies in; to ask for it never waits for a device."""
        return self.buffer

    def _moved(self, buffer: torch.Tensor) -> Spec:
        return self.spec if buffer.device == self.spec.device else replace(self.spec, device=buffer.device)
