"""torch → `StepGraph`: the joint forward-and-backward graph of a module's step."""

from .aot import Backend, check_version, compiled_call, dynamo_settings
from .caches import FailedGuard, failed_guards, forget, hit_limit, sources_of
from .graph import build_step, signature

__all__ = [
    "Backend",
    "FailedGuard",
    "build_step",
    "check_version",
    "compiled_call",
    "dynamo_settings",
    "failed_guards",
    "forget",
    "hit_limit",
    "signature",
    "sources_of",
]
