"""One private file that vanishes with the process, read and written past the page cache.

The page cache would hold a second copy of every swapped byte in the memory that the swap is to free, so the file is
opened with `O_DIRECT` where the file system has it. That demands aligned addresses, lengths and offsets; the kernel
is asked which (`statx`, STATX_DIOALIGN). `O_TMPFILE` gives a file without a name, so that a kill leaves nothing;
where it is missing the file is created and unlinked at once. Without `O_DIRECT` the cache is told to let go of what
was written. `facts()` says which of these is in use.
"""

from __future__ import annotations

import ctypes
import errno
import os
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol, final

from ...errors import TierError
from ...units import format_bytes

__all__ = ["RawFile", "SwapFile", "choose_directory", "file_system"]

_MEMORY_BACKED = {"tmpfs", "ramfs", "devtmpfs", "hugetlbfs"}
#: On these a write needs fresh space beside what was reserved.
_COPY_ON_WRITE = {"bcachefs", "btrfs", "nilfs2", "zfs"}
_STATX_DIOALIGN, _AT_EMPTY_PATH = 0x2000, 0x1000
_ASSUMED_ALIGN = 4096


class RawFile(Protocol):
    """What the disk tier needs of a file; tests pass one that fails."""

    @property
    def memory_align(self) -> int: ...
    @property
    def offset_align(self) -> int: ...
    @property
    def no_promise(self) -> str:
        """Why space that was allocated may be missing all the same, "" where it is there."""
        ...

    def write(self, buffers: Sequence[memoryview], offset: int) -> int: ...
    def read(self, buffers: Sequence[memoryview], offset: int) -> int: ...
    def allocate(self, offset: int, nbytes: int) -> None: ...
    def free_bytes(self) -> int: ...
    def facts(self) -> Mapping[str, object]: ...
    def close(self) -> None: ...


def file_system(path: str | Path) -> str:
    """Type of the file system that holds `path`, such as "ext4"; "unknown" off Linux."""
    real, best, kind = os.path.realpath(path), "", "unknown"
    with suppress(OSError):
        for line in Path("/proc/self/mountinfo").read_text().splitlines():
            left, _, right = line.partition(" - ")
            mount = left.split()[4].encode().decode("unicode_escape")
            inside = real == mount or real.startswith(mount.rstrip("/") + "/")
            if inside and len(mount) >= len(best):
                best, kind = mount, right.split()[0]
    return kind


def choose_directory() -> Path:
    """The best place for swapped blocks: the temporary directory, /var/tmp or the working directory.

    On a real disk, writable; among those the one with the most free bytes, the earlier one on a tie.

    Raises:
        TierError: none of them is.
    """
    seen: dict[Path, str] = {}
    best: tuple[int, Path] | None = None
    for place in dict.fromkeys(Path(p) for p in (tempfile.gettempdir(), "/tmp", "/var/tmp", os.getcwd())):
        seen[place] = kind = file_system(place)
        if kind in _MEMORY_BACKED or not os.access(place, os.W_OK | os.X_OK):
            continue
        free = os.statvfs(place).f_bavail * os.statvfs(place).f_frsize
        if best is None or free > best[0]:
            best = (free, place)
    if best is None:
        tried = ", ".join(f"{place} ({kind})" for place, kind in seen.items())
        raise TierError(f"no directory on a real disk to swap to: tried {tried}; name one with disk=DIR")
    return best[1]


@final
class SwapFile:
    """The file. Offsets, lengths and addresses of `read` and `write` are multiples of the alignments.

    Args:
        directory: where; it must exist and be writable.
        direct: False forbids `O_DIRECT` (for comparisons).

    Raises:
        TierError: the directory is missing, no directory, or not writable.
    """

    def __init__(self, directory: Path, *, direct: bool = True) -> None:
        self.directory = directory
        if not directory.is_dir():
            what = "is not a directory" if directory.exists() else "does not exist"
            raise TierError(f"cannot swap to {directory}: it {what}; create it or name another with disk=DIR")
        try:
            self._fd, self._nameless = _open_nameless(directory)
        except OSError as error:
            raise TierError(
                f"cannot swap to {directory} ({file_system(directory)}): {error.strerror or error}; name a writable "
                "directory with disk=DIR"
            ) from None
        self._open = [self._fd]
        self.no_promise = ""
        self.direct = direct and self._go_direct()
        self.memory_align, self.offset_align = _alignments(self._fd) if self.direct else (1, _ASSUMED_ALIGN)

    def _go_direct(self) -> bool:
        """Switch the open file to O_DIRECT, tried by one aligned write: some file systems accept the flag alone."""
        if not hasattr(os, "O_DIRECT"):
            return False
        import fcntl
        import mmap

        flags = fcntl.fcntl(self._fd, fcntl.F_GETFL)
        try:
            fcntl.fcntl(self._fd, fcntl.F_SETFL, flags | os.O_DIRECT)
            with mmap.mmap(-1, _ASSUMED_ALIGN) as page:
                os.pwrite(self._fd, page, 0)
        except OSError:
            fcntl.fcntl(self._fd, fcntl.F_SETFL, flags)
            return False
        return True

    def write(self, buffers: Sequence[memoryview], offset: int) -> int:
        done = os.pwritev(self._fd, buffers, offset)
        if not self.direct and hasattr(os, "posix_fadvise"):
            os.fdatasync(self._fd)  # only clean pages can be dropped
            os.posix_fadvise(self._fd, offset, done, os.POSIX_FADV_DONTNEED)
        return done

    def read(self, buffers: Sequence[memoryview], offset: int) -> int:
        done = os.preadv(self._fd, buffers, offset)
        if not self.direct and hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self._fd, offset, done, os.POSIX_FADV_DONTNEED)
        return done

    def allocate(self, offset: int, nbytes: int) -> None:
        """Make the disk space exist, so that a full disk shows now and not in the middle of a step.

        Where the file system cannot do that, or writes elsewhere than it reserved, `no_promise` says so from now on.
        """
        code = _fallocate(self._fd, offset, nbytes)
        if code in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
            self.no_promise = f"{self._kind()} cannot reserve space"
            if (free := self.free_bytes()) < nbytes:
                raise OSError(
                    errno.ENOSPC, os.strerror(errno.ENOSPC) + f", of {nbytes} bytes asked {free} are free"
                )
            os.ftruncate(self._fd, offset + nbytes)
        elif code:
            os.ftruncate(self._fd, offset)  # give back what a failed call took
            raise OSError(code, os.strerror(code))
        elif self._kind() in _COPY_ON_WRITE:
            self.no_promise = f"{self._kind()} writes to new places, whatever it has reserved"

    def _kind(self) -> str:
        return file_system(self.directory)

    def free_bytes(self) -> int:
        found = os.fstatvfs(self._fd)
        return found.f_bavail * found.f_frsize

    def facts(self) -> Mapping[str, object]:
        kind = file_system(self.directory)
        return {
            "directory": str(self.directory),
            "file_system": kind,
            "memory_backed": kind in _MEMORY_BACKED,
            "o_direct": self.direct,
            "o_tmpfile": self._nameless,
            "memory_align": self.memory_align,
            "offset_align": self.offset_align,
            "free_bytes": self.free_bytes(),
            "no_promise": self.no_promise,
        }

    def close(self) -> None:
        with suppress(IndexError):
            os.close(self._open.pop())  # whoever pops it closes it, once

    def __repr__(self) -> str:
        size = os.fstat(self._fd).st_size if self._open else 0
        return f"SwapFile({str(self.directory)!r}, {format_bytes(size)})"


def _open_nameless(directory: Path) -> tuple[int, bool]:
    """A read-write file of mode 0600 without a name; and whether it never had one."""
    if hasattr(os, "O_TMPFILE"):
        try:
            return os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600), True
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT):
                raise
    fd, name = tempfile.mkstemp(prefix="outsize-", suffix=".swap", dir=directory)
    os.unlink(name)
    return fd, False


def _fallocate(fd: int, offset: int, nbytes: int) -> int:
    """The kernel's own call: its error, or 0. Where there is none, `posix_fallocate` would write every block."""
    try:
        fallocate = ctypes.CDLL(None, use_errno=True).fallocate64
    except AttributeError:
        return _posix_fallocate(fd, offset, nbytes)
    while fallocate(fd, 0, ctypes.c_int64(offset), ctypes.c_int64(nbytes)):
        if (code := ctypes.get_errno()) != errno.EINTR:
            return code
    return 0


def _posix_fallocate(fd: int, offset: int, nbytes: int) -> int:
    if not hasattr(os, "posix_fallocate"):
        return errno.ENOSYS
    try:
        os.posix_fallocate(fd, offset, nbytes)
    except OSError as error:
        return error.errno or errno.EIO
    return 0


def _alignments(fd: int) -> tuple[int, int]:
    """(address, offset and length) alignment that direct transfers need, in bytes."""
    found = ctypes.create_string_buffer(256)
    with suppress(AttributeError):
        statx = ctypes.CDLL(None, use_errno=True).statx
        if statx(fd, b"", _AT_EMPTY_PATH, _STATX_DIOALIGN, found) == 0:
            mask, memory, offset = (int.from_bytes(found.raw[a : a + 4], "little") for a in (0, 152, 156))
            if mask & _STATX_DIOALIGN and memory and offset:
                return memory, offset
    return _ASSUMED_ALIGN, _ASSUMED_ALIGN
