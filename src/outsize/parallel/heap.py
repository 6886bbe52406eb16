"""Keep freed gradients' memory in the process.

Problem: glibc maps every block above 32 MiB anew and gives it back when it is freed, so each step pays for fresh,
zeroed pages for every large gradient: half of the time of a backward pass through 4096-wide linear layers
(benchmarks/parallel-step). Mechanism: tell glibc to serve such blocks from its heap and not to trim it. Since
gradients are dropped as soon as they have been summed, the next layer's finds the same, still cached, memory.
"""

from __future__ import annotations

import ctypes

from ..device.memory import malloc_owner

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD of malloc.h
_LARGEST = 2**31 - 1


def keep_heap() -> bool:
    """Ask glibc to keep freed blocks; whether it does (another allocator has its own ways)."""
    if malloc_owner() != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(_MMAP_THRESHOLD, _LARGEST // 2)) and bool(mallopt(_TRIM_THRESHOLD, _LARGEST))
