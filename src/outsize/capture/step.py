"""A step as a graph, without running it: torch's compiler is stopped as soon as it has traced one."""

from __future__ import annotations

import gc
from typing import Any, final

import torch

from ..errors import CaptureError, OutsizeError
from ..fx import CapturedStep
from .aot import Backend, check_version
from .caches import forget, sources_of
from .call import compiled_call

__all__ = ["capture"]


@final
class _Captured(OutsizeError):
    """Carries the step out of the compiler, before anything runs."""

    def __init__(self, step: CapturedStep) -> None:
        super().__init__("captured")
        self.step = step


def capture(module: torch.nn.Module, args: tuple[Any, ...]) -> CapturedStep:
    """The training step of `module(*args)` as a graph; nothing is run.

    Raises:
        CaptureError: no graph with a backward came out.
    """
    check_version()

    def stop(step: CapturedStep) -> Any:
        raise _Captured(step)

    def no_step(_: Any) -> Any:
        raise CaptureError("the module's result needs no gradient here, so there is no training step to plan")

    backend = Backend(stop, no_step)
    try:
        with sources_of(backend):
            compiled_call(module, backend)(*args)
    except _Captured as captured:
        return captured.step
    finally:
        forget(backend)
        gc.collect()  # torch's compiler leaves the module in cycles
    raise CaptureError("torch.compile found nothing to capture in this module's forward")
