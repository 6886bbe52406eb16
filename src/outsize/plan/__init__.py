"""What happens to each storage, and when: planners, cost, simulation and the independent check."""

from .explain import explain
from .make import make_plan
from .parameters import plan_with_parameters
from .request import Request
from .schedule.check import check
from .schedule.lower import lower
from .schedule.simulate import simulate
from .settings import PlanSettings
from .state import plan_with_state, with_updates

__all__ = [
    "PlanSettings",
    "Request",
    "check",
    "explain",
    "lower",
    "make_plan",
    "plan_with_parameters",
    "plan_with_state",
    "simulate",
    "with_updates",
]
