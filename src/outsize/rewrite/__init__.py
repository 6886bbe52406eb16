"""Insert swap, recompute and encode into the captured graphs, as a schedule says, and verify the result."""

from .build import rewrite_step
from .missing import without_bytes, without_missing
from .verify import verify_step

__all__ = ["rewrite_step", "verify_step", "without_bytes", "without_missing"]
