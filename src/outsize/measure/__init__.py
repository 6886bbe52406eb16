"""Seconds and workspace per op, measured on this machine."""

from .ops import MeasureSettings, default_cache, measure_ops

__all__ = ["MeasureSettings", "default_cache", "measure_ops"]
