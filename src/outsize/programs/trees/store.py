"""A trained detector as one safetensors file: half-precision weights, and everything needed to use them.

The header holds the sizes, the calibration and the vocabulary's fingerprint, so a model can never be read
with another meaning of its numbers; a checksum covers every byte. Nothing is unpickled.
"""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Annotated, Any

import xxhash

from ...errors import TreesError
from ...files import Door, open_sealed, shown
from ...values import build
from ...values.ranges import Range
from .grammar import FIELDS, KINDS, OPERATORS, PLACES, RESERVED
from .model import Detector, DetectorConfig
from .weights import load_weights, save_weights

FORMAT = "outsize-trees-detector"
VERSION = 1
DOOR = Door(
    kind="a detector",
    remedy="train one with `outsize trees train`, or leave --model away for the one that ships",
    error=TreesError,
    most_bytes=2**30,
)
#: The detector that comes with the package.
SHIPPED = Path(__file__).with_name("detector.safetensors")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Calibration:
    """From the network's probability to one that holds: `p = sigmoid(slope x logit(raw) + shift)`.

    Attributes:
        slope, shift: fitted on the validation split, where one function in two has a bug.
        prior: the share of functions with a bug that the fit saw.
        threshold: the calibrated probability below which 85 % of the sound functions lie, by the validation split
            and with room for other packages (`evaluate.threshold_by_package`).
        thresholds: for each kind of `grammar.PLACES` the calibrated probability from which on a scan reports a place,
            fitted on real fixes and well-kept packages (`benchmarks/trees-real`); empty takes `threshold` for all.
    """

    slope: Annotated[float, Range(-1e3, 1e3)] = 1.0
    shift: Annotated[float, Range(-1e3, 1e3)] = 0.0
    prior: Annotated[float, Range(1e-6, 1 - 1e-6)] = 0.5
    threshold: Annotated[float, Range(0.0, 1.0)] = 0.5
    thresholds: tuple[Annotated[float, Range(0.0, 1.0)], ...] = ()

    def misfit(self) -> str:
        if len(self.thresholds) not in (0, len(PLACES)):
            return f"{len(self.thresholds)} thresholds for {len(PLACES)} kinds"
        return ""

    def by_kind(self) -> tuple[float, ...]:
        """The threshold of each kind."""
        return self.thresholds or (self.threshold,) * len(PLACES)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _About:
    """What a file says of its weights; the history is the trainer's notes, whose figures are numbers."""

    config: DetectorConfig
    vocabulary: str
    calibration: Calibration
    history: dict[str, Any]

    def misfit(self) -> str:
        for name in _FIGURES & self.history.keys():
            value = self.history[name]
            if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < 2**53:
                return f"the history says {shown(value)} for {name}"
        return ""


#: Entries of the history that are counted with.
_FIGURES = frozenset({"functions", "training_functions", "seconds", "step", "workers"})


def vocabulary() -> str:
    """Fingerprint of the closed lists that a model's numbers refer to."""
    return xxhash.xxh64_hexdigest(json.dumps([KINDS, FIELDS, OPERATORS, PLACES, RESERVED]).encode())


def save(
    model: Detector, path: str | os.PathLike[str], *, calibration: Calibration | None = None,
    history: dict[str, Any] | None = None,
) -> None:  # fmt: skip
    """Write the weights in half precision, whole or not at all."""
    about = {
        "config": dataclasses.asdict(model.config), "vocabulary": vocabulary(),
        "calibration": dataclasses.asdict(calibration or Calibration()), "history": history or {},
    }  # fmt: skip
    save_weights(path, model, format=FORMAT, version=VERSION, about=about)


def load(path: str | os.PathLike[str] = SHIPPED) -> tuple[Detector, Calibration, dict[str, Any]]:
    """Read a detector.

    Raises:
        TreesError: missing, damaged, of another kind, version or vocabulary.
    """
    if not Path(path).exists():
        raise TreesError(f"no trained detector at {path}; train one with `outsize trees train`")
    found = open_sealed(path, DOOR, format=FORMAT, version=VERSION)
    try:
        about = build(_About, found.about)
        if about.vocabulary != vocabulary():
            raise ValueError("it was trained with another vocabulary")
    except ValueError as error:
        raise DOOR.fail(path, error) from error
    model = load_weights(found, DOOR, lambda: Detector(about.config))
    return model, about.calibration, about.history
