"""What this machine is: the line that belongs beside every figure measured on it."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import torch

from . import allocator, memory

__all__ = ["facts"]


def facts(device: torch.device | str | None = None) -> Mapping[str, object]:
    """Processor, caches, memory, threads and versions: JSON-compatible values, bytes where not said otherwise."""
    found: dict[str, object] = {
        "cpu": cpu_model(),
        "cores": usable_cores(),
        "caches": caches(),
        "memory_bytes": memory.total_bytes(),
        "free_bytes": memory.free_bytes(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "malloc": memory.malloc_owner(),
        "arena": allocator.installed(),
    }
    if device is not None and torch.device(device).type == "cuda":
        found |= {
            "device": torch.cuda.get_device_name(device),
            "device_memory_bytes": memory.total_bytes(device),
            "device_free_bytes": memory.free_bytes(device),
        }
    return found


def cpu_model() -> str:
    """The processor's name as the kernel gives it."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def usable_cores() -> int:
    """Cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def caches() -> dict[str, str]:
    """Sizes of the first core's caches by level and kind, such as {"L2 Unified": "1024K"}."""
    found: dict[str, str] = {}
    for index in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        with suppress(OSError):
            level, kind, size = ((index / name).read_text().strip() for name in ("level", "type", "size"))
            found[f"L{level} {kind}"] = size
    return found
