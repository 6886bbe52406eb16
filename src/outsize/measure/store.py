"""Measurements kept between runs: one JSON file per machine, thread count and torch.

A cache that is damaged costs time, never correctness: a number with a digit changed would be believed by every plan
that follows, so the file carries a checksum, and one that fails it is said to be damaged, left unread and replaced.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import tempfile
import warnings
from contextlib import suppress
from dataclasses import astuple
from pathlib import Path
from typing import Any

import torch

from ..device import allocator, memory
from ..device.place import CPU
from ..errors import OutsizeError
from ..files import Door, seal_text
from ..values import OpCost, build

#: Counted up when older figures are not to be used any more: before 2, workspace could include a block counted twice;
#: before 3, there was no surplus; before 4, no checksum; before 5, indices were zeros only; before 6, figures of other
#: kernels (oneDNN switched off) were taken for these.
_FORM = 6
#: Variables that tell torch's libraries which kernels to take, by their beginnings.
_CHOOSING = ("ATEN_CPU_", "DNNL_", "MKL_", "ONEDNN_")
_DOOR = Door(kind="measurements of operators", remedy="they are measured again and the file is replaced")
#: What this process has measured, by file.
_SEEN: dict[Path, dict[str, OpCost]] = {}


class Store:
    """See the module.

    Attributes:
        seen: what this process has run.
        costs: that and what others have.
    """

    def __init__(self, folder: Path | None, device: torch.device) -> None:
        self.seen: dict[str, OpCost] = {}
        self._path = folder / f"ops-{_machine(device)}.json" if folder is not None else None
        if self._path is not None:
            self.seen = _SEEN.setdefault(self._path, {})

    @functools.cached_property
    def costs(self) -> dict[str, OpCost]:
        """Read when it is first asked for: most plans need only what the process has seen."""
        return read(self._path) if self._path is not None else {}

    def save(self) -> None:
        """Replace the file at once; an unwritable cache costs time, not correctness, so it is left alone."""
        if self._path is None:
            return
        with suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            costs = {key: astuple(cost) for key, cost in self.costs.items()}
            text = json.dumps({"checksum": seal_text(costs), "costs": costs})
            with tempfile.NamedTemporaryFile("w", dir=self._path.parent, delete=False) as file:
                file.write(text)
            Path(file.name).replace(self._path)


def read(path: Path) -> dict[str, OpCost]:
    """The costs in a file; none, with a warning, where it is damaged."""
    if not path.exists():
        return {}
    try:
        data = _DOOR.json(path)
        try:
            return _costs(data)
        except ValueError as error:
            raise _DOOR.fail(path, error) from error
    except OutsizeError as error:
        warnings.warn(str(error), stacklevel=2)
        return {}


def _costs(data: Any) -> dict[str, OpCost]:
    if (
        not isinstance(data, dict)
        or data.keys() != {"checksum", "costs"}
        or not isinstance(data["costs"], dict)
    ):
        raise ValueError("it holds no measurements and their checksum")
    names = ("seconds", "workspace_bytes", "surplus_bytes")
    found = {}
    for key, figures in data["costs"].items():
        if not isinstance(figures, list) or len(figures) != len(names):
            raise ValueError("an operator has no three figures")
        cost = dict(zip(names, figures))
        # A file may hold ten thousand: `build` says what is wrong with one, and takes 50 us to find nothing.
        found[key] = OpCost(**cost) if _is_cost(*figures) else build(OpCost, cost)
    if data["checksum"] != seal_text(data["costs"]):
        raise ValueError("its checksum does not match its figures")
    return found


def _is_cost(seconds: Any, workspace_bytes: Any, surplus_bytes: Any) -> bool:
    return (
        type(seconds) is float
        and 0 <= seconds < 1e9
        and type(workspace_bytes) is int
        and type(surplus_bytes) is int
        and 0 <= workspace_bytes < 2**62
        and 0 <= surplus_bytes < 2**62
    )


def _machine(device: torch.device = CPU) -> str:
    model = ""
    with suppress(OSError):
        model = next(x for x in Path("/proc/cpuinfo").read_text().splitlines() if x.startswith("model name"))
    allocated_by = "arena" if allocator.installed() else memory.malloc_owner()
    facts = f"{_FORM}|{torch.__version__}|{model}|{os.cpu_count()}|{torch.get_num_threads()}|{allocated_by}"
    facts += f"|{_kernels(device)}"
    if device.type == "cuda":
        facts += f"|{torch.cuda.get_device_name(device)}"
    return hashlib.sha256(facts.encode()).hexdigest()[:16]


def _kernels(device: torch.device) -> tuple[object, ...]:
    """What decides which kernel serves an operator, and so what it takes."""
    onednn, cudnn = torch.backends.mkldnn, torch.backends.cudnn
    chosen = [
        torch.backends.cpu.get_cpu_capability(),
        torch.are_deterministic_algorithms_enabled(),
        torch.get_float32_matmul_precision(),
        *(getattr(onednn, name, None) for name in ("enabled", "deterministic", "allow_tf32")),
        *sorted(f"{k}={v}" for k, v in os.environ.items() if k.startswith(_CHOOSING)),
    ]
    if device.type == "cuda":
        chosen += [cudnn.enabled, cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32]
    return tuple(chosen)
