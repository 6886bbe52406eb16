"""Seconds per op on hardware that is not here: the roofline of its data sheet.

An operator takes at least its floating-point operations over the device's rate, at least its bytes over the device's
bandwidth, and at least one launch. Reached fractions of the two peaks are fields, not truths: what comes out is an
estimate and is marked as one (`Profile.estimated`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Annotated

from ..errors import UnitError
from ..files import Door, parse_toml
from ..values import CodecRate, LinkRate, Op, OpCost, Profile, StepGraph, build
from ..values.ranges import Count, Range, Rate, Seconds

#: The largest that ships has 1 KiB; the parser takes time that grows with the square of a dotted key.
_MOST_BYTES = 16 * 2**10
#: Operators that run on matrix units.
_MATRIX = ("mm", "conv", "attention")
_FOLDER = resources.files(__package__) / "hardware"
#: A reached share of a peak.
Share = Annotated[float, Range(1e-6, 1.0)]


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """A device, its memory and its links.

    Attributes:
        memory_bytes: device memory.
        memory_bytes_per_second: its bandwidth.
        flops_per_second: by dtype; `tf32` is what float32 matrix products use where `allow_tf32`.
        launch_seconds: the least an operator takes.
        compute_fraction, memory_fraction: reached share of each peak. Large matrix products and copies reach 0.6 to
            0.8 and 0.8 to 0.9 of a data sheet's figures; the lower ends are taken.
        links: by tier.
        allow_tf32: float32 matrix products and convolutions run in tf32.
        name: what to call it.
        codecs: by codec, its rates in dense bytes per second.
    """

    name: str
    memory_bytes: Count
    memory_bytes_per_second: Rate
    flops_per_second: dict[str, Rate]
    launch_seconds: Seconds = 4e-6
    compute_fraction: Share = 0.6
    memory_fraction: Share = 0.8
    links: dict[str, LinkRate] = field(default_factory=dict)
    codecs: dict[str, CodecRate] = field(default_factory=dict)
    allow_tf32: bool = False

    def misfit(self) -> str:
        """What an estimate would look for in vain; empty where nothing is missing."""
        if "float32" not in self.flops_per_second:
            return "flops_per_second needs float32, which stands for every dtype that is not given"
        if self.allow_tf32 and "tf32" not in self.flops_per_second:
            return "allow_tf32 is set, and flops_per_second has no tf32"
        return ""


def known_hardware() -> tuple[str, ...]:
    """Names of the devices whose data sheets ship with the package."""
    return tuple(sorted(f.name.removesuffix(".toml") for f in _FOLDER.iterdir() if f.name.endswith(".toml")))


def load_hardware(name: str) -> Hardware:
    """A device by name, or from a TOML file of the same form.

    Args:
        name: one that `known_hardware()` lists, or the path of a TOML file.

    Returns:
        the device.

    Raises:
        UnitError: no such name or file, or a file that does not fit.
    """
    door = Door(
        kind="a description of hardware",
        remedy=f"see the files in {_FOLDER}",
        error=UnitError,
        most_bytes=_MOST_BYTES,
    )
    if name in known_hardware():
        text = (_FOLDER / f"{name}.toml").read_text(encoding="utf-8")
    elif name.endswith(".toml") and Path(name).exists():
        text = door.text(name)
    else:
        raise UnitError(
            f"no hardware {name!r}: give one of {', '.join(known_hardware())} or a .toml file of that form"
        )
    try:
        return build(Hardware, parse_toml(text))
    except ValueError as error:
        raise door.fail(name, error) from error


def estimate(graph: StepGraph, hardware: Hardware) -> Profile:
    """The profile of a step on that hardware. Workspace is not known there, so it is counted as none.

    Args:
        graph: of the step.
        hardware: what it would run on.

    Returns:
        seconds per op by the roofline: the larger of arithmetic and memory traffic, at the reached shares.
    """
    return Profile(
        ops=tuple(OpCost(seconds=_seconds(graph, op, hardware)) for op in graph.ops),
        links=hardware.links,
        codecs=hardware.codecs,
        estimated=True,
        device=hardware.name,
    )


def _seconds(graph: StepGraph, op: Op, hardware: Hardware) -> float:
    if op.phase in ("outside", "update"):
        return 0.0
    touched = [graph.storages[s] for s in (*op.reads, *op.writes)]
    dtype = next((s.dtype for s in touched if s.dtype in hardware.flops_per_second), "float32")
    if dtype == "float32" and hardware.allow_tf32 and any(word in op.target for word in _MATRIX):
        dtype = "tf32"
    rate = hardware.flops_per_second.get(dtype, hardware.flops_per_second["float32"])
    return max(
        hardware.launch_seconds,
        op.flops / (rate * hardware.compute_fraction),
        sum(s.nbytes for s in touched) / (hardware.memory_bytes_per_second * hardware.memory_fraction),
    )
