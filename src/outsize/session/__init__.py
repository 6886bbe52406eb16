"""One module under one budget: its session, what that keeps of steps, the meter of a step, the densities it has seen."""

from .session import Session

__all__ = ["Session"]
