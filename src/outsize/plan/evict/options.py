"""The ways to take a storage away other than recomputing it: swap, encode, encode and swap; with what they cost."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil

from ...values.actions import ACTIONS, ENCODING, allowed
from ...values.plan import Action
from ..model import Model


@dataclass(frozen=True, kw_only=True)
class Option:
    """A way to take a storage away that is not recomputation.

    Attributes:
        action: `swap`, `encode` or `encode_swap`.
        out_seconds, in_seconds: transfer time each way.
        compute_seconds: codec time, both ways, and the transfers' drag on the compute lane.
        kept: bytes that stay on the device.
        staged: bytes that are needed for a moment after the last touch, and again before the use.
    """

    action: Action
    out_seconds: float = 0.0
    in_seconds: float = 0.0
    compute_seconds: float = 0.0
    kept: int = 0
    staged: int = 0
    codec: str = ""

    @property
    def lane_seconds(self) -> float:
        return self.out_seconds + self.in_seconds

    def lane_cost(self, price: float) -> float:
        """What its transfers are worth at a lane price, which may be infinite: 0 without any."""
        return price * self.lane_seconds if self.lane_seconds else 0.0


class Options:
    """Ways to take each storage away other than recomputing it."""

    def __init__(self, model: Model, tier: str) -> None:
        request = model.request
        self.model, self.tier, self.allowed = model, tier, allowed(model.request.actions)
        self.mutated = model.mutated
        self.codecs = [
            name
            for name, rate in model.profile.codecs.items()
            if self.allowed & ENCODING
            and name != "mask"
            and name not in ACTIONS
            and ":" not in name
            and (rate.lossless or name in request.lossy)
        ]
        self._known: dict[tuple[int, bool], list[Option]] = {}

    def of(self, storage: int, written: bool) -> list[Option]:
        """Options of a storage; `written`: its bytes are in the tier already."""
        written = written and storage not in self.mutated
        if (storage, written) not in self._known:
            self._known[(storage, written)] = list(self._of(storage, written))
        return self._known[(storage, written)]

    def _of(self, storage: int, written: bool) -> Iterator[Option]:
        nbytes = self.model.graph.storages[storage].nbytes
        link = self.model.profile.links.get(self.tier)
        drag = link.drag_seconds_per_byte if link is not None else 0.0
        if link is not None:
            yield Option(
                action="swap",
                out_seconds=0.0 if written else link.out_seconds(nbytes),
                in_seconds=link.in_seconds(nbytes),
                compute_seconds=drag * nbytes * (1 if written else 2),
            )
        for codec in self.codecs:
            rate = self.model.profile.codecs.get(f"{codec}:{storage}", self.model.profile.codecs[codec])
            special = f"{codec}:{storage}" in self.model.profile.codecs
            info = self.model.graph.storages[storage]
            if not (special or (info.zeros if rate.lossless else info.dtype == "float32")):
                continue
            encoded = ceil(rate.ratio * nbytes)
            if encoded >= nbytes:
                continue
            seconds = nbytes / rate.encode_bytes_per_second + nbytes / rate.decode_bytes_per_second
            if "encode" in self.allowed:
                yield Option(action="encode", compute_seconds=seconds, kept=encoded, codec=codec)
            if link is not None and "encode_swap" in self.allowed:
                yield Option(
                    action="encode_swap",
                    out_seconds=link.out_seconds(encoded),
                    in_seconds=link.in_seconds(encoded),
                    compute_seconds=seconds + 2 * drag * encoded,
                    staged=encoded,
                    codec=codec,
                )
