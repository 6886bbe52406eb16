"""What a step is put through: faults of each system call that the swap file makes, and of the file itself.

`tests/faults/test_campaign.py` runs some of each kind, `benchmarks/faults` all of them.
"""

from __future__ import annotations

import errno
import gc
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

import outsize
from outsize import api
from outsize.errors import ChecksumError, OutsizeError, TierError
from outsize.runtime.tiers import DiskSettings, DiskTier
from outsize.runtime.tiers import file as file_module
from tests.api.training import rebudget, smallest_budget

MIB = 2**20


@dataclass(frozen=True)
class Fault:
    """The `nth` call of a system call and all after it fail with `code`, or do part of their work."""

    call: str
    code: int = 0
    nth: int = 0
    short: int = 0  # bytes that are moved instead, where it does not fail

    def __str__(self) -> str:
        what = errno.errorcode[self.code] if self.code else f"short{self.short}"
        return f"{self.call}-{what}-{self.nth}"


def _each(call: str, codes: Sequence[int], nths: Sequence[int]) -> list[Fault]:
    return [Fault(call, code, nth) for code in codes for nth in nths]


FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
#: By when it strikes: while a tier is opened, while it reserves, in a step.
OPENING = [
    *_each("open", (errno.EACCES, errno.EROFS, errno.ENOSPC, errno.EMFILE, errno.ENFILE, errno.EIO), (0,)),
    *_each("open", (errno.EOPNOTSUPP, errno.EISDIR), (0,)),
    *_each("pwrite", (errno.EINVAL, errno.EIO, errno.ENOSPC), (0,)),
]
RESERVING = [
    *_each("fallocate", (*FULL, errno.EIO, errno.EOPNOTSUPP, errno.ENOSYS), (0, 1)),
    *_each("ftruncate", (errno.EIO,), (0,)),
    *_each("fstatvfs", (errno.EIO,), (0,)),
]
STEPPING = [
    *_each("pwritev", (*FULL, errno.EIO, errno.ENOMEM, errno.EROFS, errno.EBADF), (0, 1, 3)),
    *_each("preadv", (errno.EIO, errno.ENOMEM, errno.ESTALE, errno.EBADF), (0, 1, 3)),
    *(Fault(call, short=n, nth=1) for call in ("pwritev", "preadv") for n in (0, 4096)),
]


class FaultyOs:
    """`os` for the swap file, with one fault in it."""

    def __init__(self, fault: Fault) -> None:
        self._fault, self._left = fault, fault.nth
        self.struck = 0

    def strikes(self) -> bool:
        self._left -= 1
        self.struck += self._left < 0
        return self._left < 0

    def __getattr__(self, name: str) -> object:
        fault, real = self._fault, getattr(os, name)
        if name != fault.call:
            return real

        def call(*args: object, **kwargs: object) -> object:
            if not self.strikes():
                return real(*args, **kwargs)
            if fault.code:
                raise OSError(fault.code, os.strerror(fault.code))
            if fault.short == 0:
                return 0
            fd, buffers, offset = args
            return real(fd, [buffers[0][: fault.short]], offset)  # type: ignore[index]

        return call


@contextmanager
def injected(fault: Fault) -> Iterator[FaultyOs]:
    """The swap file's calls fail so, until the end."""
    faulty, real = FaultyOs(fault), file_module._fallocate

    def fallocate(fd: int, offset: int, nbytes: int) -> int:
        return fault.code if fault.call == "fallocate" and faulty.strikes() else real(fd, offset, nbytes)

    file_module.os, file_module._fallocate = faulty, fallocate  # type: ignore[assignment]
    try:
        yield faulty
    finally:
        file_module.os, file_module._fallocate = os, real


class Swapping:
    """A module that swaps in each step, and what its step computes."""

    def __init__(self, directory: Path) -> None:
        torch.manual_seed(0)
        self.directory = directory
        self.module = nn.Sequential(*[nn.Sequential(nn.Linear(64, 64), nn.Tanh()) for _ in range(3)])
        self.x = torch.randn(1024, 64)
        outsize.compile(self.module, 2**40, disk=directory)
        self.expected = self.step()
        smallest = smallest_budget(self.module, (self.x,), planner="slack", actions=("swap",))
        rebudget(self.module, smallest + 2**16, planner="slack", actions=("swap",))
        self.step()
        assert outsize.report(self.module).swapped_in_bytes > 0

    @property
    def session(self) -> object:
        return api._SESSIONS[self.module]

    @property
    def tier(self) -> DiskTier:
        return self.session.tiers["disk"]  # type: ignore[attr-defined, no-any-return]

    def reopen(self, **settings: object) -> None:
        """A fresh tier in the old one's place."""
        self.tier.close()
        small = DiskSettings(piece_bytes=MIB // 16, growth_bytes=MIB // 8, **settings)  # type: ignore[arg-type]
        self.session.tiers["disk"] = DiskTier(self.directory, settings=small)  # type: ignore[attr-defined]

    def step(self, between: Callable[[], object] = lambda: None) -> list[torch.Tensor]:
        self.module.zero_grad()
        result = self.module(self.x)
        for block in [b for _, b in _blocks(result)]:
            block.settle()
        between()
        result.square().sum().backward()
        found = [p.grad.clone() for p in self.module.parameters() if p.grad is not None]
        self.module.zero_grad()
        return found

    def right(self, found: list[torch.Tensor]) -> bool:
        return all(torch.equal(a, b) for a, b in zip(found, self.expected, strict=True))


def _blocks(result: torch.Tensor) -> list[tuple[object, object]]:
    """The blocks of the frame behind a result."""
    from outsize.runtime.frame import _FRAMES

    newest = max(_FRAMES, default=None)
    return list(_FRAMES[newest].blocks.values()) if newest is not None else []


def outcome(work: Callable[[], object]) -> OutsizeError | None:
    """What the work raised of ours; None if it came through."""
    try:
        work()
    except OutsizeError as error:
        return error.with_traceback(None)
    return None


def strike(swapping: Swapping, fault: Fault) -> str:
    """A step with the fault and one without: what came of the first."""
    swapping.reopen()
    assert swapping.right(swapping.step())
    before, found = left_behind(), list[torch.Tensor]()
    with injected(fault) as faulty:
        error = outcome(lambda: found.extend(swapping.step()))
    assert faulty.struck
    assert swapping.right(found) if error is None else not fault.code or os.strerror(fault.code) in str(error)
    came = type(error).__name__ if error is not None else "right"
    del error
    assert soon(lambda: swapping.tier.counters().held_bytes == 0 or gc.collect() < 0)
    assert swapping.right(swapping.step())
    assert soon(lambda: left_behind() == before)
    return came


def spoil(descriptor: Path) -> None:
    """Other bytes in each sector."""
    with open(descriptor, "r+b", buffering=0) as file:
        for offset in range(0, os.fstat(file.fileno()).st_size, 4096):
            os.pwrite(file.fileno(), b"\xff" * 16, offset)


def cut(descriptor: Path) -> None:
    os.truncate(descriptor, 0)


#: What happens to the file between forward and backward, and what is said of it.
FILE_FAULTS: dict[str, tuple[Callable[[Path], None], type[OutsizeError], str]] = {
    "spoil": (spoil, ChecksumError, "checksum"),
    "cut": (cut, TierError, "ended"),
}


def strike_file(swapping: Swapping, kind: str) -> str:
    """A step whose file is spoiled between forward and backward, and one on a new file: what came of the first."""
    fault, error, message = FILE_FAULTS[kind]
    swapping.reopen()
    swapping.step()
    links = {
        Path(f"/proc/self/fd/{fd}"): os.path.realpath(f"/proc/self/fd/{fd}")
        for fd in os.listdir("/proc/self/fd")
    }
    descriptor = next(link for link, to in links.items() if to.startswith(str(swapping.directory)))
    came = outcome(lambda: swapping.step(between=lambda: fault(descriptor)))
    assert isinstance(came, error)
    assert message in str(came)
    del came
    assert soon(lambda: swapping.tier.counters().held_bytes == 0 or gc.collect() < 0)
    swapping.reopen()
    assert swapping.right(swapping.step())
    return error.__name__


def left_behind() -> tuple[int, int]:
    """Threads of disk tiers and open files: what must not grow."""
    threads = sum(thread.name == "outsize-disk" for thread in threading.enumerate())
    return threads, len(os.listdir("/proc/self/fd"))


def soon(holds: Callable[[], bool]) -> bool:
    """Threads may still be ending what began."""
    for _ in range(2000):
        if holds():
            return True
        time.sleep(0.001)
    return False
