"""A corpus of Python functions that anyone can build again: a pinned list in, packed splits and a report out.

`corpus.json` names every distribution with its version, licence, split and (for wheels) sha256. Sources are
the standard library of the running Python, packages installed beside this one, and wheels in a folder;
nothing is
downloaded here and nothing is imported or executed: wheels are read as archives, modules as text. The
distributions, not the functions, are split, and copies are removed across all of them first, so that no test
function was seen in training under another roof.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import json
import re
import sysconfig
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import TreesError
from ...files import Door, shown
from ...values import load_json
from .dedup import exact_keys, near_duplicates, normalised_keys
from .forest import Ints
from .functions import Functions, concatenate
from .grammar import RESERVED
from .python_front import python_functions

PINS = Path(__file__).with_name("corpus.json")
SPLITS = ("train", "valid", "test")
#: Functions outside of this range are left out: below there is nothing to judge, above one fills a batch.
MIN_NODES, MAX_NODES = 10, 512
#: A longer module is data, not code.
_MOST_BYTES = 2**24
_DOOR = Door(
    kind="the list of distributions", remedy="see corpus.json beside outsize.programs.trees", error=TreesError,
    most_bytes=2**20,
)  # fmt: skip
LEFT_OUT = (
    "/test", "/_vendor", "/vendor", "/extern", "site-packages", "dist-packages", "/idlelib/", "/lib2to3/",
    "conftest.py", "_pb2.py", "/turtledemo/", "/migrations/",
)  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pin:
    """One distribution of the corpus.

    Attributes:
        name: its name on the index, or `python` for the standard library.
        version: exact; a different one is an error.
        licence: as its metadata states it.
        split: train, valid or test.
        source: `stdlib`, `installed` or `wheel`.
        sha256: of the wheel file; empty for the other sources.
    """

    name: str
    version: str
    licence: str
    split: str
    source: str
    sha256: str = ""

    def misfit(self) -> str:
        """Why nothing can be read by it; empty where something can."""
        if self.source not in _READERS:
            return f"source of {shown(self.name)} is {shown(self.source)}, none of {tuple(_READERS)}"
        if self.split not in SPLITS:
            return f"split of {shown(self.name)} is {shown(self.split)}, none of {SPLITS}"
        if self.source == "wheel" and not re.fullmatch("[0-9a-f]{64}", self.sha256):
            return f"sha256 of {shown(self.name)} is {shown(self.sha256)}"
        if not re.fullmatch(r"[A-Za-z0-9._-]+", self.name) or not re.fullmatch(
            r"[A-Za-z0-9.!+_-]+", self.version
        ):
            return f"{shown(self.name)} {shown(self.version)} is no name and version of a distribution"
        return ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Pins:
    distributions: tuple[Pin, ...]


def read_pins(path: Path = PINS) -> list[Pin]:
    """Raises:
    TreesError: no such file, not a list of pins, an unknown split.
    """
    return list(load_json(_Pins, path, _DOOR).distributions)


def read_texts(pin: Pin, wheels: Path) -> Iterator[tuple[str, bytes]]:
    """`(path, content)` of the modules of one distribution, tests and vendored copies left out.

    Raises:
        TreesError: not there, or another version or content than pinned.
    """
    for name, content in _READERS[pin.source](pin, wheels):
        if name.endswith(".py") and not any(part in f"/{name}" for part in LEFT_OUT):
            yield name, content


def _stdlib(pin: Pin, wheels: Path) -> Iterator[tuple[str, bytes]]:
    root = Path(sysconfig.get_path("stdlib"))
    version = sysconfig.get_python_version()
    if version != pin.version:
        raise TreesError(
            f"the corpus is pinned to the standard library of Python {pin.version}, this is {version}"
        )
    for path in sorted(root.rglob("*.py")):
        yield str(path.relative_to(root)), path.read_bytes()


def _installed(pin: Pin, wheels: Path) -> Iterator[tuple[str, bytes]]:
    try:
        found = importlib.metadata.distribution(pin.name)
    except importlib.metadata.PackageNotFoundError as error:
        raise TreesError(f"{pin.name}=={pin.version} is in the corpus and not installed") from error
    if found.version.split("+")[0] != pin.version:
        raise TreesError(f"the corpus is pinned to {pin.name}=={pin.version}, {found.version} is installed")
    for file in sorted(found.files or (), key=str):
        if file.suffix == ".py" and (path := Path(str(file.locate()))).is_file():
            yield str(file), path.read_bytes()


def _wheel(pin: Pin, wheels: Path) -> Iterator[tuple[str, bytes]]:
    stem = f"{pin.name.replace('-', '_')}-{pin.version}-".lower()
    found = [path for path in wheels.glob("*.whl") if path.name.lower().replace("-", "_", 0).startswith(stem)]
    if not found:
        raise TreesError(
            f"no wheel of {pin.name}=={pin.version} in {wheels}; fetch the pinned list once with\n"
            f"  outsize trees corpus --requirements | pip download --no-deps --only-binary=:all: -d {wheels} "
            "-r /dev/stdin"
        )
    with found[0].open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != pin.sha256:
            raise TreesError(f"{found[0]} is not the pinned file (its sha256 differs)")
        with zipfile.ZipFile(file) as archive:
            for member in sorted(archive.infolist(), key=lambda member: member.filename):
                if member.filename.endswith(".py") and member.file_size <= _MOST_BYTES:
                    yield member.filename, archive.read(member)


_READERS: dict[str, Callable[[Pin, Path], Iterator[tuple[str, bytes]]]] = {
    "stdlib": _stdlib,
    "installed": _installed,
    "wheel": _wheel,
}


def requirements(pins: list[Pin]) -> str:
    """The wheels of the list, as `pip download -r` reads them."""
    return "".join(
        f"{pin.name}=={pin.version} --hash=sha256:{pin.sha256}\n" for pin in pins if pin.source == "wheel"
    )


def parse_distribution(pin: Pin, wheels: Path) -> tuple[Functions | None, dict[str, int]]:
    """Its functions within the size limits, exact copies within it removed, and counts."""
    parts: list[Functions] = []
    counts = {"files": 0, "unreadable": 0, "functions": 0}
    for _, content in read_texts(pin, wheels):
        counts["files"] += 1
        try:
            found = python_functions(content, max_nodes=MAX_NODES)
        except TreesError:
            counts["unreadable"] += 1
            continue
        big_enough = np.flatnonzero(np.diff(found.forest.ptr) >= MIN_NODES)
        if len(big_enough):
            parts.append(found.select(big_enough))
    if not parts:
        return None, counts
    whole = concatenate(parts)
    counts["functions"] = whole.count
    return whole, counts


def build(
    out: Path, wheels: Path, *, pins: list[Pin] | None = None, said: Callable[[str], None] = lambda text: None
) -> dict[str, Any]:
    """Parse, remove copies, split, and write `train.forest`, `valid.forest`, `test.forest` and `report.json`
    in `out`.

    Returns:
        The report: counts by distribution, duplicate rates, sizes of the splits.
    """
    pins = read_pins() if pins is None else pins
    parts, owners, report = [], [], {}
    for number, pin in enumerate(pins):
        part, counts = parse_distribution(pin, wheels)
        report[pin.name] = {**dataclasses.asdict(pin), **counts, "kept": 0}
        said(f"{pin.name} {pin.version}: {counts['functions']} functions in {counts['files']} files")
        if part is not None:
            parts.append(part)
            owners.append(np.full(part.count, number))
    whole, owner = concatenate(parts), np.concatenate(owners)
    chosen, totals = without_copies(whole)
    split_of = np.array([SPLITS.index(pin.split) for pin in pins])[owner]
    chosen, leaked = _without_leaks(whole, chosen, split_of)
    totals["test_functions_seen_renamed_in_training"] = leaked
    out.mkdir(parents=True, exist_ok=True)
    for index, split in enumerate(SPLITS):
        rows = chosen[split_of[chosen] == index]
        totals[split] = len(rows)
        _write_split(out / f"{split}.forest", whole.select(rows), owner[rows], split)
        for number in np.unique(owner[rows]):
            report[pins[number].name]["kept"] = int((owner[rows] == number).sum())
    result = {"totals": totals, "distributions": list(report.values())}
    (out / "report.json").write_text(json.dumps(result, indent=1) + "\n")
    return result


def without_copies(whole: Functions) -> tuple[Ints, dict[str, Any]]:
    """Indices of the functions to keep, the first of every set of copies, and the rates."""
    _, first = np.unique(exact_keys(whole), return_index=True)
    distinct = np.sort(first)
    kept = distinct[~near_duplicates(whole.select(distinct))]
    return kept, {
        "functions": whole.count, "distinct": len(distinct), "kept": len(kept),
        "exact_duplicate_rate": round(1 - len(distinct) / whole.count, 4),
        "near_duplicate_rate": round(1 - len(kept) / len(distinct), 4),
    }  # fmt: skip


def _without_leaks(whole: Functions, chosen: Ints, split_of: Ints) -> tuple[Ints, int]:
    """Drop valid and test functions that occur in training under other names."""
    keys = normalised_keys(whole.select(chosen))
    training = split_of[chosen] == 0
    leaked = ~training & np.isin(keys, keys[training])
    return chosen[~leaked], int(leaked.sum())


def _write_split(path: Path, functions: Functions, owner: Ints, split: str) -> None:
    used = np.unique(np.concatenate([functions.forest.token, functions["symbol_token"]]))
    used_all = np.union1d(used, np.arange(len(RESERVED)))
    number = np.zeros(int(used_all.max()) + 1, np.int32)
    number[used_all] = np.arange(len(used_all))
    forest = dataclasses.replace(
        functions.forest, token=number[functions.forest.token],
        tokens=[functions.forest.tokens[i] for i in used_all.tolist()],
    )  # fmt: skip
    columns = functions.columns | {
        "symbol_token": number[functions["symbol_token"]], "distribution": owner.astype(np.int32),
    }  # fmt: skip
    dataclasses.replace(functions, forest=forest, columns=columns).save(path)
