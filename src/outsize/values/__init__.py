"""The frozen values that the stages exchange. Pure Python: no torch here, every value round-trips through JSON."""

from .graph import Op, StepGraph, Storage
from .json import build, from_json, load_json, to_json
from .plan import Decision, Plan, Refusal
from .profile import CodecRate, LinkRate, OpCost, Profile
from .record import RunRecord, ShapeRecord
from .schedule import Entry, Schedule
from .slack import IdleSpan, Slack
from .state import ParameterUnit, StateUnit
from .timeline import LaneSpan, Timeline

__all__ = [
    "CodecRate",
    "Decision",
    "Entry",
    "IdleSpan",
    "LaneSpan",
    "LinkRate",
    "Op",
    "OpCost",
    "ParameterUnit",
    "Plan",
    "Profile",
    "Refusal",
    "RunRecord",
    "Schedule",
    "ShapeRecord",
    "Slack",
    "StateUnit",
    "StepGraph",
    "Storage",
    "Timeline",
    "build",
    "from_json",
    "load_json",
    "to_json",
]
