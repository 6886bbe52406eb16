"""Dense activations for the disk tier: byte planes, each through a fast entropy coder if that makes it
smaller.

GELU and SiLU networks have no zeros to leave out. What repeats in floating-point activations are the bytes
that hold sign and exponent; the low bytes of the mantissa are noise. Splitting the elements into planes of
equal bytes lets the coder (zstd, through the `zstandard` binding) work on the first and skip the others. It
runs on the CPU at disk speed, not at memory speed: `rates.worthwhile` says when it pays.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, field, replace
from typing import Any, Self, final

import torch

from ..errors import CodecError
from .choose import choose
from .contract import Backend, Compressed, Encoded
from .dense import Spec, bits_of, flatten, whole_words

__all__ = ["PlanesCompressed", "compress_planes"]

#: The fastest of the normal levels; level 3 leaves more (benchmarks/codec-entropy).
LEVEL = 1
#: A plane is tried on its first so many bytes, and kept as it is unless they shrink below KEEP of their
#: size.
PROBE_BYTES, KEEP = 1 << 16, 0.95


@final
@dataclass(frozen=True, kw_only=True)
class PlanesCompressed(Compressed):
    """One run of bytes per byte plane: zstd frames, or the plane itself where it is noise.

    Attributes:
        runs: `(bytes in the buffer, whether they are a zstd frame)` per plane, least significant first.
    """

    codec: str = field(default="planes", init=False)
    spec: Spec
    runs: tuple[tuple[int, bool], ...]
    storage: torch.Tensor = field(repr=False)
    encoded: Encoded = field(repr=False)
    backend: Backend = field(repr=False)

    @property
    def buffer(self) -> torch.Tensor:
        return self.storage

    def decompress(self, out: torch.Tensor | None = None, *, verify: bool = True) -> torch.Tensor:
        if verify and self.backend.digest(whole_words(self.storage)).digest != self.encoded.digest:
            raise CodecError(
                f"the buffer was damaged: the digest of its {self.nbytes} bytes is not that of the encoding"
            )
        zstd, numel = _zstd(), self.spec.numel
        dense = self.spec.empty()
        flat = bits_of(dense.as_strided((numel,), (1,))).view(torch.uint8)
        flat = flat.view(numel, self.spec.dtype.itemsize)
        data, at = self.storage.numpy().data, 0
        for plane, (size, packed) in enumerate(self.runs):
            run = data[at : at + size]
            at += size
            if packed:
                try:
                    if zstd.frame_content_size(run) != numel:
                        raise zstd.ZstdError("it announces another length")
                    run = memoryview(zstd.ZstdDecompressor().decompress(run, max_output_size=numel))
                except zstd.ZstdError as error:
                    raise CodecError(f"byte plane {plane} is no whole zstd frame: {error}") from error
            if len(run) != numel:
                raise CodecError(
                    f"byte plane {plane} holds {len(run)} bytes, the tensor has {numel} elements"
                )
            if numel:
                flat[:, plane] = torch.frombuffer(bytearray(run), dtype=torch.uint8)
        return self._into(dense, out)

    def with_buffer(self, buffer: torch.Tensor) -> Self:
        buffer = self._received(buffer)
        return replace(self, storage=buffer, spec=self._moved(buffer))


def compress_planes(tensor: torch.Tensor, backend: str | Backend | None = None) -> PlanesCompressed:
    """Lossless for every dtype, on the CPU.

    Raises:
        CodecError: a tensor on another device, or the `zstandard` package is not installed.
    """
    flat, spec = flatten(tensor, "compress(codec='planes')")
    if tensor.device.type != "cpu":
        raise CodecError(
            f"codec 'planes' runs on the CPU, this tensor is on {tensor.device}: move it there first"
        )
    zstd, chosen = _zstd(), choose(backend, tensor.device)
    coder = zstd.ZstdCompressor(level=LEVEL, threads=torch.get_num_threads(), write_content_size=True)
    planes = flat.view(torch.uint8).view(flat.numel(), tensor.element_size()).t().contiguous()
    runs, pieces = [], []
    for plane in planes.unbind():
        probe = plane[:PROBE_BYTES]
        packed = len(coder.compress(probe.numpy().data)) < KEEP * probe.numel()
        piece = bytearray(coder.compress(plane.numpy().data)) if packed else None
        pieces.append(plane if piece is None else torch.frombuffer(piece, dtype=torch.uint8))
        runs.append((pieces[-1].numel(), packed))
    storage = torch.cat(pieces)
    encoded = chosen.digest(whole_words(storage))
    return PlanesCompressed(spec=spec, runs=tuple(runs), storage=storage, encoded=encoded, backend=chosen)


def _zstd() -> Any:
    if importlib.util.find_spec("zstandard") is None:
        raise CodecError("codec 'planes' needs the package zstandard: pip install 'outsize[disk]'")
    import zstandard

    return zstandard
