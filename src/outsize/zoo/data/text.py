"""Bytes to read: the Python standard library's own source files, or a folder of the user's.

Every Python comes with tens of megabytes of real, clean, varied text, so a language model needs no download. Files,
not windows, are divided into a training and a validation part: a window of a file that was trained on would be no test.
"""

from __future__ import annotations

import random
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ...errors import WorkloadError
from ..workload import Batch

#: Folders of the standard library's tree that are not the library: installed packages and its tests.
_SKIPPED = {"site-packages", "dist-packages", "__pycache__", "test", "tests", "idle_test"}
_VALIDATION_SHARE = 0.1
#: Bytes kept per corpus: far more than any run here reads, and quick to load.
_MOST_BYTES = 64 * 2**20


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """Two byte strings (uint8, one dimension) from disjoint sets of files, files parted by a zero byte."""

    train: Tensor
    validation: Tensor
    origin: str


def standard_library(*, seed: int) -> Corpus:
    """Source of the standard library of the running Python.

    Raises:
        WorkloadError: this Python came without its source files.
    """
    root = Path(sysconfig.get_path("stdlib"))
    files = [p for p in sorted(root.rglob("*.py")) if not _SKIPPED & set(p.relative_to(root).parts)]
    if len(files) < 10:
        raise WorkloadError(
            f"the standard library at {root} holds {len(files)} source files, at least 10 are needed: "
            "give a folder of text with --data"
        )
    return _corpus(files, seed=seed, origin="the Python standard library's source")


def folder(path: Path, *, seed: int) -> Corpus:
    """The files under a folder (hidden ones left out), or one file divided at nine tenths.

    Raises:
        WorkloadError: no such path, or too little to read.
    """
    if path.is_file():
        data = torch.frombuffer(bytearray(_read(path, _MOST_BYTES) or b"\0"), dtype=torch.uint8)
        cut = int(len(data) * (1 - _VALIDATION_SHARE))
        whole = path.stat().st_size <= _MOST_BYTES
        origin = str(path) if whole else f"{path} (its first {_MOST_BYTES // 2**20} MiB)"
        return Corpus(train=data[:cut], validation=data[cut:], origin=origin)
    if not path.is_dir():
        raise WorkloadError(f"no file or folder at {path}")
    files = [p for p in sorted(path.rglob("*")) if p.is_file() and not p.name.startswith(".")]
    if len(files) < 2:
        raise WorkloadError(f"{path} holds {len(files)} files; two are needed, one for validation")
    return _corpus(files, seed=seed, origin=str(path))


def _corpus(files: list[Path], *, seed: int, origin: str) -> Corpus:
    random.Random(seed).shuffle(files)
    cut = max(1, int(len(files) * _VALIDATION_SHARE))
    validation, train = _join(files[:cut]), _join(files[cut:])
    return Corpus(
        train=train,
        validation=validation,
        origin=f"{origin} ({len(files) - cut} files, {len(train) / 1e6:.1f} MB; {cut} others for validation)",
    )


def _join(files: list[Path]) -> Tensor:
    parts = bytearray()
    for path in files:
        parts += _read(path, _MOST_BYTES + 1 - len(parts)) + b"\0"
        if len(parts) > _MOST_BYTES:
            break
    return torch.frombuffer(parts, dtype=torch.uint8)


def _read(path: Path, most: int) -> bytes:
    """The first `most` bytes of a file."""
    try:
        with path.open("rb") as file:
            return file.read(most)
    except OSError as error:
        raise WorkloadError(f"cannot read {path}: {error.strerror}; leave it out of the folder") from error


def check_length(corpus: Corpus, *, context: int) -> None:
    """Raises WorkloadError where a part is shorter than one window."""
    shortest = min(len(corpus.train), len(corpus.validation))
    if shortest <= context:
        raise WorkloadError(
            f"{corpus.origin}: the smaller part has {shortest} bytes, one window of {context} bytes and its "
            f"target need {context + 1}: give more text with --data"
        )


def next_byte(data: Tensor, *, batch: int, context: int, seed: int) -> Iterator[Batch]:
    """Endless random windows: args ((batch, context) int64,), target the same shifted by one byte."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        starts = torch.randint(len(data) - context, (batch,), generator=generator)
        yield _shifted(data, starts, context)


def next_byte_validation(data: Tensor, *, batch: int, context: int, count: int) -> Iterator[Batch]:
    """`count` batches of windows spread evenly over the data: the same each time."""
    starts = torch.linspace(0, len(data) - context - 1, batch * count).long()
    for chosen in starts.split(batch):
        yield _shifted(data, chosen, context)


def _shifted(data: Tensor, starts: Tensor, context: int) -> Batch:
    window = data[starts[:, None] + torch.arange(context + 1)].long()
    return Batch((window[:, :-1].contiguous(),), window[:, 1:].contiguous())


def masked(batches: Iterator[Batch], *, share: float, mask_id: int, seed: int) -> Iterator[Batch]:
    """Masked-byte form of a stream: a share of the bytes is replaced by `mask_id`, only those are targets.

    Targets elsewhere are -100, which cross entropy ignores.
    """
    generator = torch.Generator().manual_seed(seed)
    for batch in batches:
        (window,) = batch.args
        chosen = torch.rand(window.shape, generator=generator) < share
        chosen[:, 0] = True  # a batch without a target has no loss
        yield Batch((window.masked_fill(chosen, mask_id),), window.masked_fill(~chosen, -100))
