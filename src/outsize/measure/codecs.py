"""Rates of the codecs on this machine, and what a density makes of a storage's size."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping

import torch

from ..codecs import Layout, compress, encode_into
from ..device.clock import now
from ..device.place import CPU
from ..values import CodecRate, StepGraph

#: Elements of the measured tensor: 32 MB, beyond the caches.
_ELEMENTS = 8 << 20
#: Added to a sampled density before bytes are reserved: four standard errors of 4,096 samples at one half.
DENSITY_MARGIN = 0.032
#: What is planned for where nobody has seen a density: the measured tensor's.
ASSUMED_DENSITY = 0.5


@functools.cache
def codec_rates(device: torch.device = CPU) -> dict[str, CodecRate]:
    """Encode and decode rates at half zeros: dense bytes per second, the best of three runs.

    Args:
        device: where they are measured.

    Returns:
        by codec.
    """
    dense = torch.relu(torch.randn(_ELEMENTS, generator=torch.Generator().manual_seed(0))).to(device)
    nbytes = dense.untyped_storage().nbytes()
    layout = Layout(numel=_ELEMENTS, itemsize=4)
    buffer, out = (
        torch.empty(layout.nbytes(_ELEMENTS), dtype=torch.uint8, device=device),
        torch.empty_like(dense),
    )
    relu, mask, half = encode_into(dense, buffer), compress(dense, "mask"), compress(dense, "bf16")
    return {
        "relu": CodecRate(
            encode_bytes_per_second=nbytes / _best(device, lambda: encode_into(dense, buffer)),
            decode_bytes_per_second=nbytes / _best(device, lambda: relu.decompress(out, verify=False)),
            ratio=relu.nbytes / nbytes,
        ),
        "mask": CodecRate(
            encode_bytes_per_second=nbytes / _best(device, lambda: compress(dense, "mask")),
            decode_bytes_per_second=nbytes / _best(device, lambda: mask.decompress(out)),
            ratio=mask.nbytes / nbytes,
        ),
        "bf16": CodecRate(
            encode_bytes_per_second=nbytes / _best(device, lambda: compress(dense, "bf16")),
            decode_bytes_per_second=nbytes / _best(device, lambda: half.decompress(out, verify=False)),
            ratio=half.nbytes / nbytes,
            lossless=False,
        ),
    }


def _best(device: torch.device, function: Callable[[], object]) -> float:
    times = []
    for _ in range(3):
        start = now(device)
        function()
        times.append(now(device) - start)
    return min(times)


def storage_rates(
    graph: StepGraph, densities: Mapping[int, float], lossy: Iterable[str] = (), device: torch.device = CPU
) -> dict[str, CodecRate]:
    """The codecs' rates, those of `lossy` among them, and per storage what its density makes of them (`"relu:12"`).

    Args:
        graph: of the step.
        densities: by storage: share of nonzero elements.
        lossy: codecs that may lose bits.
        device: where the step runs.

    Returns:
        by codec, and by `codec:storage`.
    """
    measured = codec_rates(device)
    general = measured["relu"]
    rates = {name: measured[name] for name in ("relu", "mask", *lossy)}
    for index, density in densities.items():
        storage = graph.storages[index]
        itemsize = getattr(torch, storage.dtype).itemsize
        count = storage.nbytes // itemsize
        planned = Layout(numel=count, itemsize=itemsize).nbytes(
            int(count * min(1.0, density + DENSITY_MARGIN)) + 1
        )
        rates[f"relu:{index}"] = CodecRate(
            encode_bytes_per_second=general.encode_bytes_per_second,
            decode_bytes_per_second=general.decode_bytes_per_second,
            ratio=planned / storage.nbytes,
        )
    return rates
