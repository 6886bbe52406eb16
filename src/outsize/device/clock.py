"""The clock: seconds at which the device has done what it was told, not at which it was told."""

from __future__ import annotations

import time

import torch

__all__ = ["now"]


def now(device: torch.device | str | None = None) -> float:
    """Monotonic seconds, once everything put on the device so far has been done."""
    if device is not None and torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
