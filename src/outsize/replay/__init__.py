"""Stage 5, the other road of a plan: eager steps in which saved tensors leave and come back at the plan's positions."""

from .call import Replayed
from .program import ReplayProgram, Script, build_program

__all__ = ["ReplayProgram", "Replayed", "Script", "build_program"]
