"""Arrays from a `.npz` file of the user's, which says how large they are before it is believed.

A zip archive of some kilobytes may hold gigabytes, and an array's header may name more elements than follow it. Both
are held against what is there before memory is asked for; the archive's own checksums do the rest.
"""

from __future__ import annotations

import math
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import psutil
from numpy.lib import format as npy

from ...errors import WorkloadError
from ...files import Door, shown
from ...units import format_bytes

_DOOR = Door(
    kind="arrays x and y",
    remedy="write a .npz file with numpy.savez(path, x=..., y=...)",
    error=WorkloadError,
    most_bytes=2**40,
)
#: Beyond so many bytes, arrays that compress better than 50 to 1 are taken for a bomb; photographs reach 2 to 1, masks of
#: segmentation 20 to 1.
_SUSPICIOUS_BYTES, _SUSPICIOUS_RATIO = 2**28, 50


class _Described(NamedTuple):
    dtype: np.dtype[Any]
    nbytes: int


def read_npz(path: Path, names: tuple[str, ...]) -> list[npt.NDArray[Any]]:
    """The named arrays, of numbers or truth values. Nothing is unpickled.

    Raises:
        WorkloadError: not such a file, damaged, without one of the arrays, or larger than the free memory.
    """
    try:
        _DOOR.check_size(path)
        with zipfile.ZipFile(path) as archive:
            for name in names:
                _check_member(archive, f"{name}.npy")
        with np.load(path, allow_pickle=False) as found:
            return [np.asarray(found[name]) for name in names]
    except WorkloadError:
        raise
    # A damaged archive raises what its decompressor likes: zlib.error, EOFError, NotImplementedError, RuntimeError, ...
    except Exception as error:
        what = str(error)[:200]  # some quote the whole archive
        raise WorkloadError(f"{path} is not a .npz file with arrays {', '.join(names)}: {what}") from error


def _check_member(archive: zipfile.ZipFile, name: str) -> None:
    """The array's header fits the member, and both fit the memory."""
    try:
        member = archive.getinfo(name)
    except KeyError:
        raise ValueError(f"it holds no {name}") from None
    with archive.open(member) as file:
        described = _header(file)
        rest = member.file_size - file.tell()
    if described.dtype.kind not in "biuf":
        raise ValueError(f"{name} holds {shown(described.dtype.name)}, numbers are needed")
    if described.nbytes != rest:
        raise ValueError(f"{name} describes {described.nbytes:,} bytes, {rest:,} follow")
    free = int(psutil.virtual_memory().available)
    ratio = rest / max(member.compress_size, 1)
    if rest > free // 2:
        raise ValueError(f"{name} has {format_bytes(rest)}, {format_bytes(free)} of memory are free")
    if rest > _SUSPICIOUS_BYTES and ratio > _SUSPICIOUS_RATIO:
        raise ValueError(
            f"{name} unpacks to {ratio:.0f} times its size; write it with numpy.savez, uncompressed"
        )


def _header(file: Any) -> _Described:
    version = npy.read_magic(file)
    read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}.get(version)
    if read is None:
        raise ValueError(f"version {version} of the format is not read")
    shape, _, dtype = read(file, max_header_size=10_000)
    if any(not 0 <= n < 2**62 for n in shape):
        raise ValueError(f"an array of shape {shown(shape)}")
    return _Described(dtype, math.prod(shape) * dtype.itemsize)
