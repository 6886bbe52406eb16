"""A run or a timeline for people and for other tools: text, JSON, one HTML page, a trace. Pure: no torch here."""

from .figures import Figure, figures
from .html import page
from .text import render, renderable, summary
from .trace import trace_events, trace_json

__all__ = ["Figure", "figures", "page", "render", "renderable", "summary", "trace_events", "trace_json"]
