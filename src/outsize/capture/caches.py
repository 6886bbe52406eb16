"""What Dynamo keeps of a module between its calls: compiled code with guards, and why a guard failed.

Dynamo keeps what it compiled on code objects and in tables of the process, where the garbage collector does not look, so
a module that was compiled would hold its graphs until the process ends.

Private names used: `torch._dynamo` (convert_frame.input_codes and output_codes, eval_frame.cached_backends,
exc.FailOnRecompileLimitHit, guards.CheckFunctionManager, utils.get_metrics_context and guard_failures),
`torch._C._dynamo.eval_frame.reset_code`, `torch.fx.graph_module._loader`, and `_registry` of Python's `weakref.finalize`.
"""

from __future__ import annotations

import linecache
import re
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch._C._dynamo.eval_frame import reset_code
from torch._dynamo import eval_frame, exc
from torch._dynamo.convert_frame import input_codes, output_codes
from torch._dynamo.guards import CheckFunctionManager
from torch._dynamo.utils import get_metrics_context, guard_failures
from torch.fx.graph_module import _loader

from ..errors import CaptureError
from .aot import Backend

__all__ = ["FailedGuard", "failed_guards", "forget", "hit_limit", "sources_of"]

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
    """Free what torch keeps for a module in tables of the process: code, guards, texts.

    A backward that is yet to come has its graph from autograd; it is compiled when it first runs.
    """
    for code in backend.codes:
        guard_failures.pop(code, None)
        reset_code(code)
    backend.codes.clear()
    _drop_dead_guards()
    if not (records := get_metrics_context()).in_progress():
        records._edits.clear()  # where each record of a compilation was written, which nobody empties
    for codes in (input_codes, output_codes):
        codes.seen[:] = [code for code in codes.seen if code() is not None]
    for name in backend.sources:
        _loader.eval_cache.pop(name, None)
        linecache.cache.pop(name, None)
    backend.sources.clear()
    ours = [
        key
        for key, held in eval_frame.cached_backends.items()
        if getattr(held, "compiler_fn", held) is backend
    ]
    for key in ours:
        del eval_frame.cached_backends[key]


def _drop_dead_guards() -> None:
    """Dynamo hangs the guards of what it compiled on all objects that they are about, classes and functions of torch
    among them, which never go; those of code that was reset guard nothing any more."""
    for finalizer in list(weakref.finalize._registry):  # type: ignore[attr-defined]
        if (known := finalizer.peek()) is None:
            continue
        method: Any = getattr(known[1], "func", None)
        if getattr(method, "__func__", None) is not CheckFunctionManager.invalidate:
            continue
        guards = getattr(method.__self__, "guard_manager", None)
        if getattr(guards, "cache_entry", None) is None:
            finalizer.detach()


@contextmanager
def sources_of(backend: Backend) -> Iterator[None]:
    """The text of the graphs that are compiled meanwhile, which torch keeps for tracebacks, goes with the backend."""
    first = _loader.next_id
    try:
        yield
    finally:
        backend.sources += [f"<eval_with_key>.{number}" for number in range(first, _loader.next_id)]
