"""Own the pages of large tensors on the CPU, so that the resident set follows the bytes in use.

The C library keeps freed tensors in its heap, so a step that swaps its tensors away stays as large as one that does
not; told to map each tensor anew, it pays for fresh pages at every operator, which cost more than the disk. `install`
lets torch's own libraries take blocks of `threshold_bytes` or more from one reserved range (native/arena.c): pages
are reused while they are warm and given back when a step has not used them. Nothing is preloaded and no other library
is touched; glibc's `mallinfo2` goes on counting every byte. jemalloc and tcmalloc may be preloaded beside it.

A reserved range is address space, so where that is limited (`ulimit -v`) the arena steps aside, also where the limit
comes later. Then torch's blocks come from the C library, which is told to return freed tensors and to keep few heaps;
they are counted one by one all the same, so peaks stay exact. `facts()` says what is in use, and why.
"""

from __future__ import annotations

import ctypes
import functools
import platform
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from .. import native
from .memory import COUNTED, malloc_owner

__all__ = ["ArenaSettings", "facts", "install", "installed", "trim"]

_LIBRARIES = ("libc10", "libtorch")
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_STRICT_OVERCOMMIT = 2


@dataclass(frozen=True, kw_only=True)
class ArenaSettings:
    """Sizes of the arena. The measurements are those of `benchmarks/allocator`.

    Attributes:
        threshold_bytes: smaller blocks stay with the C library, whose heap reuses them well.
        slack: touched pages may exceed the step's highest in-use bytes by this share before idle ones go back.
        floor_bytes: and by this much besides, for small steps.
        huge_pages: ask for 2 MiB pages: one fault instead of 512.
        reserve_factor: address space to reserve, as a multiple of the machine's memory. It costs no memory; holes
            between blocks need some beyond 1.
    """

    threshold_bytes: int = 256 * 1024
    slack: float = 0.08
    floor_bytes: int = 32 * 2**20
    huge_pages: bool = True
    reserve_factor: float = 4.0


@dataclass(kw_only=True)
class _State:
    """What `install` decided, once for the process."""

    settings: ArenaSettings | None = None
    slots: int = 0
    refusal: str = "not asked for"


_state = _State()


def installed() -> bool:
    """Whether torch's large tensors come from the arena."""
    if _state.settings is None or native.kernels is None:
        return False
    if not native.kernels.arena_serves():
        _state.refusal = (
            "the address space of this process was limited (ulimit -v) after the arena was installed"
        )
        _fall_back(_state.settings)
        return False
    return True


def install(settings: ArenaSettings | None = None) -> bool:
    """Serve torch's large CPU blocks from the arena from now on; what exists stays where it is.

    Once installed it stays for the life of the process, with the settings of the first call, or until the address space
    is limited. Where it cannot be used, glibc is told to give freed tensors back (`mallopt`), torch's blocks are counted
    one by one where that is possible, and `facts()["refusal"]` says why.

    Returns:
        Whether the arena is in use.
    """
    if installed():
        return True
    if _state.settings is not None:  # it was, and has stepped aside
        return False
    chosen = settings or ArenaSettings()
    _state.refusal = _refusal() or _try(chosen)
    if _state.refusal:
        _fall_back(chosen)
        return False
    _state.settings = chosen
    return True


def _refusal() -> str:
    """Why the arena cannot be used in this process, or ""."""
    if sys.platform != "linux" or platform.machine() not in ("x86_64", "aarch64"):
        return (
            f"the arena is made for Linux on x86-64 and aarch64, not {sys.platform} on {platform.machine()}"
        )
    if native.kernels is None:
        return "the C module was not built"
    if (owner := malloc_owner()) not in COUNTED:
        return f"malloc is served by {owner}, which gives no count of the bytes in use"
    import resource

    if resource.getpagesize() != 4096:
        return f"pages have {resource.getpagesize()} bytes, not 4096"
    if not _state.slots:
        freeing, allocating = native.kernels.arena_redirect(_LIBRARIES)
        if allocating < 1:
            return "torch's libraries do not import posix_memalign as expected"
        _state.slots = freeing + allocating
    if _overcommit() == _STRICT_OVERCOMMIT:
        return "vm.overcommit_memory is 2, so reserved address space counts as memory"
    for kind, name in ((resource.RLIMIT_AS, "ulimit -v"), (resource.RLIMIT_DATA, "ulimit -d")):
        if resource.getrlimit(kind)[0] != resource.RLIM_INFINITY:
            return f"the address space of this process is limited ({name})"
    return ""


def _overcommit() -> int:
    with suppress(OSError, ValueError):
        return int(Path("/proc/sys/vm/overcommit_memory").read_text())
    return 0


def _try(chosen: ArenaSettings) -> str:
    assert native.kernels is not None
    whole = int(chosen.reserve_factor * psutil.virtual_memory().total)
    slack, shadow = int(chosen.slack * 1000), malloc_owner() == "glibc"
    if native.kernels.arena_reserve(
        whole, chosen.threshold_bytes, slack, chosen.floor_bytes, chosen.huge_pages, shadow
    ):
        return ""
    return f"{whole} bytes of address space could not be reserved"


@functools.cache
def _fall_back(chosen: ArenaSettings) -> None:
    """glibc alone: map every large block, so that freeing it gives the pages back, at the price of fresh ones.

    A heap for each thread would take 64 MiB of address space each.
    """
    if malloc_owner() == "glibc":
        with suppress(AttributeError, OSError):
            libc = ctypes.CDLL(None)
            libc.mallopt(_M_MMAP_THRESHOLD, max(chosen.threshold_bytes, 2**20))
            libc.mallopt(_M_TRIM_THRESHOLD, chosen.floor_bytes)
            libc.mallopt(_M_ARENA_MAX, 1)


def trim(*, everything: bool = False) -> int:
    """The end of a step: give back pages that it did not use, or all idle pages. Returns the bytes given back."""
    if not installed() or native.kernels is None:
        return 0
    return int(native.kernels.arena_trim(everything))


def facts() -> Mapping[str, object]:
    """What serves large blocks, why, and the arena's counters in bytes: JSON-compatible values."""
    if not installed() or native.kernels is None:
        return {
            "allocator": malloc_owner(),
            "installed": False,
            "counted": _state.slots > 0,
            "refusal": _state.refusal,
        }
    return {
        "allocator": "arena",
        "installed": True,
        "redirected_slots": _state.slots,
        "settings": asdict(_state.settings) if _state.settings else {},
        **native.kernels.arena_stats(),
    }
