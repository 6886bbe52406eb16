"""A run or a timeline for people and for other tools: text, JSON, one HTML page, a trace. Pure: no torch here."""

from .figures import Figure, figures
from .html import page, sweep_page
from .text import plan_summary, render, renderable, summary, sweep_table
from .trace import trace_events, trace_json

__all__ = [
    "Figure",
    "figures",
    "page",
    "plan_summary",
    "render",
    "renderable",
    "summary",
    "sweep_page",
    "sweep_table",
    "trace_events",
    "trace_json",
]
