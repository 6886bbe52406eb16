"""torch → `StepGraph`: the joint forward-and-backward graph of a module's step."""

from .aot import Backend, check_version
from .caches import FailedGuard, failed_guards, forget, hit_limit, sources_of
from .call import compiled_call
from .graph import build_step, signature
from .refusals import is_sharded, refuse_foreign
from .step import capture

__all__ = [
    "Backend",
    "FailedGuard",
    "build_step",
    "capture",
    "check_version",
    "compiled_call",
    "failed_guards",
    "forget",
    "hit_limit",
    "is_sharded",
    "refuse_foreign",
    "signature",
    "sources_of",
]
