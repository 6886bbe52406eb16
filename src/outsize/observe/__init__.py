"""Stage 1, the other door: the eager step, watched once through torch's public hooks, as a `StepGraph`."""

from .build import Observed, build_observed
from .observer import Observer
from .record import Observation
from .watcher import Gauge

__all__ = ["Gauge", "Observation", "Observed", "Observer", "build_observed"]
