"""One module under one budget: its session, what that keeps of steps, the meter of a step, the densities it has seen."""

from .session import Session
from .updates import Updates
from .watch import forget_module, watch_module

__all__ = ["Session", "Updates", "forget_module", "watch_module"]
