"""What happens to each storage, and when: planners, cost, simulation and the independent check."""

from .check import check
from .explain import explain
from .lower import lower
from .make import make_plan
from .settings import PlanSettings
from .simulate import simulate

__all__ = ["PlanSettings", "check", "explain", "lower", "make_plan", "simulate"]
