"""torch → `StepGraph`: the joint forward-and-backward graph of a module's step."""

from .aot import Backend, check_version
from .call import compiled_call
from .graph import build_step, signature
from .refusals import refuse_foreign

__all__ = ["Backend", "build_step", "check_version", "compiled_call", "refuse_foreign", "signature"]
