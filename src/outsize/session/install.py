"""A module's own call, replaced: what trains runs under plan, what only evaluates runs as it is.

The module keeps its class, its keys and its hooks; only what `module(…)` runs is another function. It belongs to the
module and holds it weakly, so that a module that nobody uses any more goes as it would have gone without it, and with it
the session, its tiers and all that Dynamo keeps.
"""

from __future__ import annotations

import functools
import time
import warnings
import weakref
from collections.abc import Callable, Iterable
from typing import Any, final

import torch
from torch.fx import GraphModule
from torch.utils._pytree import tree_leaves

from ..capture import (
    Backend,
    check_version,
    compiled_call,
    failed_guards,
    forget,
    hit_limit,
    is_sharded,
    refuse_foreign,
    sources_of,
)
from ..errors import CaptureError, OutsizeError
from ..fx import CapturedStep
from ..runtime.executor import StepProgram, plain_forward
from .observed import ObservedSession
from .recaptures import Recaptures
from .session import Session
from .updates import Updates
from .watch import forget_module, watch_module

__all__ = ["SESSIONS", "install", "release", "session_of"]

#: Of the modules that were taken on.
SESSIONS: weakref.WeakKeyDictionary[torch.nn.Module, Session | ObservedSession] = weakref.WeakKeyDictionary()


def session_of(module: torch.nn.Module) -> Session | ObservedSession | None:
    """The session of a module, or of the one that `outsize.parallel.distribute` has wrapped."""
    return SESSIONS.get(module) or SESSIONS.get(getattr(module, "module", module))


def install(
    module: torch.nn.Module,
    session: Session | ObservedSession,
    otherwise: Callable[[str], ObservedSession] | None = None,
) -> torch.nn.Module:
    """Run the module under a session from now on, in place of the one before.

    Args:
        session: captured or observed.
        otherwise: makes the session of a module that cannot be captured, from the reason; None where that is an error.
    """
    if isinstance(session, Session) and otherwise is not None and is_sharded(module):
        session.close()
        session = otherwise("sharded by fully_shard")
    refuse_foreign(module, captured=isinstance(session, Session))
    _release(module)
    call: Call | ObservedCall
    if isinstance(session, Session):
        check_version()
        call = Call(module, session, otherwise)
    else:
        call = ObservedCall(module, session)
    # Around it, another torch.compile stops here, and goes on after the step.
    module._compiled_call_impl = torch.compiler.disable(call.run, reason="outsize.compile runs the module")
    watch_module(module, call.updates, call)
    SESSIONS[module] = session
    return module


@final
class ObservedCall:
    """What `module(…)` runs where its steps are eager."""

    def __init__(self, module: torch.nn.Module, session: ObservedSession) -> None:
        self._module, self._session = weakref.ref(module), session
        self.updates = Updates(session)
        self._end = weakref.finalize(module, session.close)
        self._end.atexit = False

    def close(self) -> None:
        """Free what the session holds; a backward that is yet to come still runs."""
        self._end()

    def run(self, *args: Any, **kwargs: Any) -> Any:
        module = self._module()
        assert module is not None  # it is being called
        if not trains(module, args, kwargs):
            return module._call_impl(*args, **kwargs)
        return self._session.call(module, args, kwargs)


def release(module: torch.nn.Module) -> torch.nn.Module:
    """Give the plain module back, whatever state it is in: also of one that is wrapped, as by `distribute`."""
    _release(module)
    if isinstance(inner := getattr(module, "module", None), torch.nn.Module):
        _release(inner)
    return module


def _release(module: torch.nn.Module) -> None:
    SESSIONS.pop(module, None)
    if (found := forget_module(module)) is not None and isinstance(
        call := found.installed, Call | ObservedCall
    ):
        if found.in_place(module):
            del module._compiled_call_impl
        call.close()


@final
class Call:
    """What `module(…)` runs."""

    def __init__(
        self,
        module: torch.nn.Module,
        session: Session,
        otherwise: Callable[[str], ObservedSession] | None = None,
    ) -> None:
        self._module, self._session, self._otherwise = weakref.ref(module), session, otherwise
        self.updates = Updates(session)
        self._recaptures = Recaptures(type(module).__qualname__)
        # Dynamo and what is called when the module goes must not hold what holds the module.
        self._backend = Backend(functools.partial(_planned, session), functools.partial(_evaluated, session))
        self._compiled = compiled_call(module, self._backend)
        self._beyond_limit = self._hidden = False
        self._end = weakref.finalize(module, _close, session, self._backend)
        self._end.atexit = False

    def close(self) -> None:
        """Free what the session and Dynamo hold; a backward that is yet to come still runs."""
        self._end()

    def run(self, *args: Any, **kwargs: Any) -> Any:
        module, session = self._module(), self._session
        assert module is not None  # it is being called
        if not self._hidden and not trains(module, args, kwargs):
            return self._evaluate(module, args, kwargs)
        if self._beyond_limit:
            return self._as_it_fits(args, kwargs)
        start, graphs = time.perf_counter(), self._backend.graphs
        session.called()
        try:
            with sources_of(self._backend), session.parameters.compiled(module):
                result = self._compiled(*args, **kwargs)
        except CaptureError as error:
            if self._otherwise is not None:
                return self._observe(module, self._otherwise(str(error)), args, kwargs)
            if not hit_limit(error):
                raise
            self._beyond_limit = True
        finally:
            session.runs()
            guards = failed_guards(self._backend)
        if self._beyond_limit:
            self._recaptures.beyond_limit(guards)
            return self._as_it_fits(args, kwargs)
        if self._backend.graphs == 0:
            raise CaptureError("torch.compile captured no graph of this module, so no budget can be kept")
        if self._backend.graphs > graphs:
            session.capture_seconds = time.perf_counter() - start
            self._recaptures.captured(guards, session.capture_seconds)
        return result

    def _observe(
        self, module: torch.nn.Module, session: ObservedSession, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """It cannot be captured: from now on its steps are eager, and observed."""
        session.run_meter = self._session.run_meter
        install(module, session)
        return module(*args, **kwargs)

    def _as_it_fits(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Beyond the limit of captures: under plan where one of them suits the call, else unplanned, under the meter."""
        session, calls = self._session, self._session.calls
        session.parameters.bring_all()  # what runs may be the plain module
        self.updates.unplanned(tree_leaves((args, kwargs)))
        try:
            with torch.compiler.set_stance("eager_on_recompile"):
                return self._compiled(*args, **kwargs)
        finally:
            if session.calls > calls:
                self.updates.planned()

    def _evaluate(self, module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The plain module; where its result has a gradient after all, it reads parameters that are not its own."""
        self._session.parameters.bring_all()
        result = module._call_impl(*args, **kwargs)
        if torch.is_grad_enabled() and _need_gradients(tree_leaves(result)):
            self._hidden = True
            warnings.warn(
                f"no parameter of {type(module).__qualname__} and no input needs a gradient, but its result has one, so "
                "this call was not planned; the next ones are. Register what its forward trains as parameters",
                RuntimeWarning,
                stacklevel=5,
            )
        return result


def _planned(session: Session, step: CapturedStep) -> StepProgram:
    if step.device != session.device:
        raise OutsizeError(
            f"the module was on {session.device} when it was compiled and runs on {step.device} now: move it first, "
            "then call outsize.compile"
        )
    return StepProgram(step, session)


def _evaluated(session: Session, forward: GraphModule) -> Callable[[list[Any]], Any]:
    program = plain_forward(forward)

    def run(inputs: list[Any]) -> Any:
        session.parameters.bring_all()
        session.runs()
        return program(inputs)

    return run


def trains(module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether a call may have a backward. Without one there is nothing to plan: an evaluation, a token of a text."""
    if not torch.is_grad_enabled():
        return False
    return _need_gradients(module.parameters()) or _need_gradients(tree_leaves((args, kwargs)))


def _need_gradients(values: Iterable[Any]) -> bool:
    return any(isinstance(value, torch.Tensor) and value.requires_grad for value in values)


def _close(session: Session, backend: Backend) -> None:
    session.close()
    forget(backend)
