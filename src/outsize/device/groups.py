"""The memory limits of the control groups that this process is in: its own and every one above it.

A container sees its limit at the root of what it has mounted; a Slurm job, a systemd service or a process in a group made
by hand has it somewhere below, and the smallest on the way up holds. Versions 1 and 2 of the kernel's interface are
read, also where both are mounted.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

__all__ = ["free_bytes", "limit_bytes"]

#: Version → the files that hold limits, the one with the usage, and the key of pages that the kernel can drop.
_FILES = {
    1: (("memory.limit_in_bytes",), "memory.usage_in_bytes", "total_inactive_file"),
    2: (("memory.max", "memory.high"), "memory.current", "inactive_file"),
}
_NONE = 2**62  # version 1 says "no limit" by nearly 2**63


@dataclass(frozen=True)
class _Mount:
    version: int
    root: str
    point: Path


def limit_bytes(root: Path = Path("/")) -> int | None:
    """The smallest memory limit on the way from the process's group to the top, None without one.

    Args:
        root: where /proc and the mounts are found (tests make their own).
    """
    return min((limit for _, _, limit in _limits(root)), default=None)


def free_bytes(root: Path = Path("/")) -> int | None:
    """What may still be allocated below every limit; pages of files that the kernel can drop count as free."""
    left = [limit - _used(folder, version) for folder, version, limit in _limits(root)]
    return max(0, min(left)) if left else None


def _limits(root: Path) -> Iterator[tuple[Path, int, int]]:
    for folder, version in _folders(root):
        for name in _FILES[version][0]:
            with suppress(OSError, ValueError):  # "max", or no such file at the top
                if (limit := int((folder / name).read_text())) < _NONE:
                    yield folder, version, limit


def _used(folder: Path, version: int) -> int:
    _, usage, droppable = _FILES[version]
    with suppress(OSError, ValueError):
        used = int((folder / usage).read_text())
        with suppress(OSError, ValueError):
            for line in (folder / "memory.stat").read_text().splitlines():
                if line.startswith(droppable + " "):
                    used -= int(line.split()[1])
        return max(0, used)
    return 0


def _folders(root: Path) -> Iterator[tuple[Path, int]]:
    """The folders of the process's groups with their versions, each from the group up to the mount."""
    mounts = _mounts(root)
    with suppress(OSError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            version = 2 if not controllers else 1
            if version == 1 and "memory" not in controllers.split(","):
                continue
            for mount in mounts:
                if mount.version == version:
                    below = _below(path, mount.root)
                    for part in (below, *below.parents):
                        yield root / mount.point.relative_to("/") / part, version


def _below(path: str, mounted: str) -> PurePosixPath:
    """The group's path under the mount, which shows the hierarchy from `mounted` on. A path that lies outside of it (a
    container without a namespace of its own) leads to the mount itself."""
    with suppress(ValueError):
        below = PurePosixPath(path).relative_to(mounted)
        if ".." not in below.parts:
            return below
    return PurePosixPath(".")


def _mounts(root: Path) -> list[_Mount]:
    found = []
    with suppress(OSError):
        for line in (root / "proc/self/mountinfo").read_text().splitlines():
            left, _, right = line.partition(" - ")
            kind, *rest = right.split()
            _, _, _, mounted, point, *_ = left.split()
            where = Path(point.encode().decode("unicode_escape"))
            if kind == "cgroup2":
                found.append(_Mount(2, mounted, where))
            elif kind == "cgroup" and rest and "memory" in rest[-1].split(","):
                found.append(_Mount(1, mounted, where))
    return found
