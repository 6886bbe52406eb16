"""What Dynamo keeps of a module between its calls: compiled code with guards, and why a guard failed.

Dynamo keeps what it compiled on code objects and in tables of the process, where the garbage collector does not look, so
a module that was compiled would hold its graphs until the process ends.

Private names used: `torch._dynamo` (eval_frame.cached_backends, exc.FailOnRecompileLimitHit,
utils.guard_failures), `torch._C._dynamo.eval_frame.reset_code`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from torch._C._dynamo.eval_frame import reset_code
from torch._dynamo import eval_frame, exc
from torch._dynamo.utils import guard_failures

from ..errors import CaptureError
from .aot import Backend

__all__ = ["FailedGuard", "failed_guards", "forget", "hit_limit"]

_REASON = re.compile(r"^[^:]*?\d+/\d+(?:_\d+)?: (?P<guard>.*?)(?:\s+# (?P<source>.*))?$", re.DOTALL)
#: What a guard on a module's own attribute says for `self`.
_SELF = re.compile(r"\b(?:module|call\.__self__)(?=\.)")
_FRAME = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+), in \S+\n\s*(?P<text>[^\n]+)')


@dataclass(frozen=True, kw_only=True)
class FailedGuard:
    """Why a compiled form of a module did not suit a call.

    Attributes:
        guard: the condition that did not hold, such as `self.steps == 3`.
        value: whether it is one on a Python value; else it is one on a tensor, a mode or a hook.
        where: the user's line that read the value, or "".
    """

    guard: str
    value: bool
    where: str


def failed_guards(backend: Backend) -> tuple[FailedGuard, ...]:
    """What failed in the capture that has just ended, the newest compiled form first; Dynamo's own list is emptied."""
    reasons = [reason for code in backend.codes for reason in guard_failures.pop(code, ())]
    return tuple(_read(reason) for reason in reasons)


def _read(reason: str) -> FailedGuard:
    said, _, frames = reason.partition("\nUser stack trace:\n")
    found = _REASON.match(said.strip())
    guard, source = (found["guard"], found["source"]) if found else (said.strip(), None)
    guard = _SELF.sub("self", guard).strip()
    mode = guard.startswith(("tensor ", "GLOBAL_STATE")) or ".training" in guard or "hooks" in guard
    last = list(_FRAME.finditer(frames))
    where = f"{last[-1]['file']}:{last[-1]['line']}: {last[-1]['text'].strip()}" if last else ""
    return FailedGuard(guard=guard, value=source is not None and not mode, where=where)


def hit_limit(error: CaptureError) -> bool:
    """Whether a module was not captured because it has been as often as it may."""
    return isinstance(error.__cause__, exc.FailOnRecompileLimitHit)


def forget(backend: Backend) -> None:
    """Free what Dynamo and AOTAutograd keep for a module: code, guards, graphs and the programs behind them."""
    for code in backend.codes:
        guard_failures.pop(code, None)
        reset_code(code)
    backend.codes.clear()
    ours = [
        key
        for key, held in eval_frame.cached_backends.items()
        if getattr(held, "compiler_fn", held) is backend
    ]
    for key in ours:
        del eval_frame.cached_backends[key]
    backend.close()
