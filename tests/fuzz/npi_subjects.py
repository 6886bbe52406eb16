"""The readers of programs that are learned: weights, certificates, pairs of inputs and outputs."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from outsize.errors import NpiError
from outsize.native import available
from outsize.programs import npi
from outsize.programs.npi.library import LIBRARY
from outsize.programs.npi.store import WEIGHTS, read_pairs

from .mutate import json_changed, numbers_changed, value_changed
from .subject import Subject

#: Small, with one primitive, so that a case takes milliseconds.
NAME, INPUTS = "map", ([1, 2, 3],)
KEY = "outsize.npi"


def weights_changed(data: bytes, rng: random.Random) -> bytes:
    """Another description of the same tensors; the container fits."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    about = json.loads(header["__metadata__"][KEY])
    for _ in range(rng.choice((1, 1, 2))):
        about = value_changed(about, rng)
    header["__metadata__"][KEY] = json.dumps(about)
    text = json.dumps(header).encode("utf-8", "surrogatepass")
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


def use_weights(model: Any) -> None:
    """The program runs on every engine, the one in C included, and ends or says why not."""
    for engine in ("network", "tables", "native") if available() else ("network", "tables"):
        npi.run(model, [LIBRARY[NAME].encode(*INPUTS)], engine=engine, limits=npi.Limits(steps=300, depth=50))


def make_weights(path: Path) -> None:
    path.write_bytes((WEIGHTS / f"{NAME}.safetensors").read_bytes())


def make_certificate(path: Path) -> None:
    path.write_text(npi.verify(npi.template_of(NAME), npi.shipped(NAME)).to_json())


def make_pairs(path: Path) -> None:
    path.write_text("a,b,out\n" + "".join(f"{a},{b},{a * b}\n" for a in range(5) for b in range(5)))


def read_two(path: Path) -> Any:
    return read_pairs(path, 2)


#: The readers quote what they found, however long it is.
LONGEST = 10**6

SUBJECTS: dict[str, Subject] = {
    "npi weights": Subject(
        file="map.safetensors", make=make_weights, read=npi.load, use=use_weights, errors=NpiError,
        change=weights_changed, longest_error=LONGEST),
    "npi certificate": Subject(
        file="map.json", make=make_certificate, read=npi.read_certificate, use=lambda c: c.to_json(), errors=NpiError,
        change=json_changed, longest_error=LONGEST),
    "npi pairs": Subject(
        file="pairs.csv", make=make_pairs, read=read_two, use=len, errors=NpiError, change=numbers_changed,
        longest_error=LONGEST),
}  # fmt: skip
