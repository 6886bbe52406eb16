"""A trained detector as one safetensors file: half-precision weights, and everything needed to use them.

The header holds the sizes, the calibration and the vocabulary's fingerprint, so a model can never be read
with another meaning of its numbers. Nothing is unpickled.
"""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import torch
import xxhash

from ...errors import TreesError
from .grammar import FIELDS, KINDS, OPERATORS, PLACES, RESERVED
from .model import Detector, DetectorConfig

FORMAT = "outsize-trees-detector"
VERSION = "1"
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
    """

    slope: float = 1.0
    shift: float = 0.0
    prior: float = 0.5
    threshold: float = 0.5


def vocabulary() -> str:
    """Fingerprint of the closed lists that a model's numbers refer to."""
    return xxhash.xxh64_hexdigest(json.dumps([KINDS, FIELDS, OPERATORS, PLACES, RESERVED]).encode())


def save(
    model: Detector, path: str | os.PathLike[str], *, calibration: Calibration | None = None,
    history: dict[str, Any] | None = None,
) -> None:  # fmt: skip
    """Write the weights in half precision, whole or not at all."""
    from safetensors.torch import save_file

    target = Path(path)
    header = {
        "format": FORMAT, "version": VERSION, "config": model.config.json(), "vocabulary": vocabulary(),
        "calibration": json.dumps(dataclasses.asdict(calibration or Calibration())),
        "history": json.dumps(history or {}),
    }  # fmt: skip
    partial = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        weights = {
            name: value.detach().to(torch.float16).contiguous() for name, value in model.state_dict().items()
        }
        save_file(weights, str(partial), metadata=header)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def load(path: str | os.PathLike[str] = SHIPPED) -> tuple[Detector, Calibration, dict[str, Any]]:
    """Read a detector.

    Raises:
        TreesError: missing, truncated, of another kind, version or vocabulary.
    """
    from safetensors import SafetensorError, safe_open

    if not Path(path).is_file():
        raise TreesError(f"no trained detector at {path}; train one with `outsize trees train`")
    try:
        with safe_open(str(path), framework="pt") as opened:
            header = opened.metadata() or {}
            weights = {name: opened.get_tensor(name).float() for name in opened.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise TreesError(f"{path} is damaged or not a safetensors file: {error}") from error
    if (header.get("format"), header.get("version")) != (FORMAT, VERSION):
        raise TreesError(f"{path} is not a detector of version {VERSION}: {header.get('format')}")
    if header.get("vocabulary") != vocabulary():
        raise TreesError(
            f"{path} was trained with another vocabulary; train again with `outsize trees train`"
        )
    model = Detector(DetectorConfig(**json.loads(header["config"])))
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise TreesError(f"{path} does not fit its own description: {error}") from error
    return model.eval(), Calibration(**json.loads(header["calibration"])), json.loads(header["history"])
