"""Tensor timing slack: which storages lie idle, where, and for how long.  (Method 2, claims 10 to 12.)"""

from .timing import compute_slack

__all__ = ["compute_slack"]
