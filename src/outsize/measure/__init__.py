"""Seconds and workspace per op: measured on this machine, or estimated for hardware that is not here."""

from .codecs import ASSUMED_DENSITY, DENSITY_MARGIN, codec_rates, storage_rates
from .ops import MeasureSettings, default_cache, measure_ops
from .roofline import Hardware, estimate, known_hardware, load_hardware

__all__ = [
    "ASSUMED_DENSITY",
    "DENSITY_MARGIN",
    "Hardware",
    "MeasureSettings",
    "codec_rates",
    "default_cache",
    "estimate",
    "known_hardware",
    "load_hardware",
    "measure_ops",
    "storage_rates",
]
