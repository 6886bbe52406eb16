"""What was measured or estimated: seconds and workspace per op, rates of links and codecs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from .ranges import Count, Range, Rate, Seconds


@dataclass(frozen=True, kw_only=True)
class OpCost:
    """Cost of one op signature.

    Attributes:
        seconds: time of one run.
        workspace_bytes: the operator's own temporary bytes at its peak, beyond its inputs and outputs.
        surplus_bytes: what the storages of its results have beyond their recorded sizes.
    """

    seconds: Seconds
    workspace_bytes: Count = 0
    surplus_bytes: Count = 0


@dataclass(frozen=True, kw_only=True)
class LinkRate:
    """A tier's link: a transfer of n bytes takes `latency_seconds + n / bytes_per_second`.

    Attributes:
        out_bytes_per_second: device to tier.
        in_bytes_per_second: tier to device.
        latency_seconds: of each transfer.
        shared: reads and writes share one lane (a single disk queue); False for full-duplex links.
        drag_seconds_per_byte: compute time that moving a byte costs. Zero where an engine of its own moves the bytes;
            where the processor both computes and hashes, or the transfer takes its memory's bandwidth, a hidden
            transfer is not free.
    """

    out_bytes_per_second: Rate
    in_bytes_per_second: Rate
    latency_seconds: Seconds = 0.0
    shared: bool = False
    drag_seconds_per_byte: Seconds = 0.0

    def out_seconds(self, nbytes: int) -> float:
        """Time of a transfer from the device to the tier.

        Args:
            nbytes: its size.

        Returns:
            seconds.
        """
        return self.latency_seconds + nbytes / self.out_bytes_per_second

    def in_seconds(self, nbytes: int) -> float:
        """Time of a transfer from the tier to the device.

        Args:
            nbytes: its size.

        Returns:
            seconds.
        """
        return self.latency_seconds + nbytes / self.in_bytes_per_second


@dataclass(frozen=True, kw_only=True)
class CodecRate:
    """A codec on this machine.

    Attributes:
        encode_bytes_per_second: dense bytes encoded a second.
        decode_bytes_per_second: dense bytes decoded a second.
        ratio: encoded ÷ dense bytes, as planned for.
        lossless: it gives back every bit.
    """

    encode_bytes_per_second: Rate
    decode_bytes_per_second: Rate
    ratio: Annotated[float, Range(0.0, 16.0)]
    lossless: bool = True


@dataclass(frozen=True, kw_only=True)
class Profile:
    """Costs by position and rates by name.

    Attributes:
        ops: one cost per op of the graph, in order.
        links: by tier name (`disk`, `host`).
        codecs: by codec name; a rate for one storage alone is under `"{codec}:{storage index}"`.
        estimated: True where the figures come from a roofline, not from a run.
        device: that the figures are of.
    """

    ops: tuple[OpCost, ...]
    links: dict[str, LinkRate] = field(default_factory=dict)
    codecs: dict[str, CodecRate] = field(default_factory=dict)
    estimated: bool = False
    device: str = "cpu"

    @property
    def seconds(self) -> float:
        """Compute seconds of the unplanned step."""
        return sum(cost.seconds for cost in self.ops)

    @property
    def workspace(self) -> tuple[int, ...]:
        """Temporary bytes of each op at its peak, by position."""
        return tuple(cost.workspace_bytes for cost in self.ops)
