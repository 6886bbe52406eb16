"""A module's call, traced whole by Dynamo: what a compiled module runs in its own call's place.

Dynamo guards what it traced, and traces again where a guard fails. Two things it does not guard and that change what a
step computes are told apart here: hooks of the module's own backward, which stand around its graph, and hooks of all
modules.

Private names used: `torch._dynamo.config`, `torch.nn.modules.module` (the hooks of all modules).
"""

from __future__ import annotations

import contextlib
import functools
import logging
import weakref
from collections.abc import Callable, Iterator
from typing import Any, final

import torch
from torch._subclasses.fake_tensor import FakeTensor

from .aot import Backend
from .autocast import Contexts
from .checkpoint import traced_through
from .hooks import of_all_modules, run_in_eager
from .refusals import is_users_own, refusal

#: Graphs of one module (shapes, modes); torch's own default, 8, is less than a bucketed data set has lengths.
MOST_SHAPES = 256
_LOGS = {"debug", "info", "warning", "error", "exception", "critical", "log"}


def compiled_call(module: torch.nn.Module, backend: Backend) -> Callable[..., Any]:
    """The module's call, traced whole: what `module._compiled_call_impl` is set to, so that keys stay as they are.

    What is returned raises `CaptureError` for a graph break or an operator that cannot be captured, with its place in the
    user's code. An exception that the module itself raises comes out as it is.
    """
    return _Call(module, backend).run


@final
class _Call:
    def __init__(self, module: torch.nn.Module, backend: Backend) -> None:
        self._reference, self._backend = weakref.ref(module), backend  # what the module runs must not keep it
        self._contexts = Contexts()
        self._traced: dict[Any, Callable[..., Any]] = {}

    def run(self, *args: Any, **kwargs: Any) -> Any:
        from torch._dynamo import exc

        module, refused = self._reference(), None
        assert module is not None  # it is being called
        try:
            with _settings(), run_in_eager(module), traced_through():
                result = self._step(module, args, kwargs)
        except (exc.TorchDynamoException, exc.FailOnRecompileLimitHit) as error:
            refused = error
        if refused is not None:
            raise _said(refused, module, args, kwargs) from refused
        if self._backend.casts_weights and torch._C._is_any_autocast_enabled():
            self._contexts.called()
        return result

    def _step(self, module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if module._backward_hooks or module._backward_pre_hooks:
            return self._around(module, args, kwargs)

        # Inlined through a frame of this file, because Dynamo skips the frames of torch's own containers and would
        # otherwise leave an `nn.Sequential` or an `nn.LSTM` uncompiled.
        def whole(module: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
            return module._call_impl(*args, **kwargs)

        return self._trace("whole", whole)(module, *args, **kwargs)

    def _around(self, module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The hooks of the module's own backward stand around its graph, where autograd can call them."""
        replaced = module.__dict__.get("forward")  # some libraries put another one on the instance
        forward = replaced or type(module).forward
        bare = self._trace(replaced, lambda *a, **k: forward(*a, **k))
        module.__dict__["forward"] = bare if replaced else functools.partial(bare, module)
        try:
            return module._call_impl(*args, **kwargs)
        finally:
            del module.__dict__["forward"]
            if replaced is not None:
                module.__dict__["forward"] = replaced

    def _trace(self, key: object, function: Callable[..., Any]) -> Callable[..., Any]:
        key = (key, of_all_modules())
        if key not in self._traced:
            # Dynamo keeps what it compiled, and counts shapes, on the code object: each module needs its own.
            function.__code__ = function.__code__.replace()
            self._backend.codes.append(function.__code__)
            self._traced[key] = torch.compile(function, backend=self._backend, dynamic=False, fullgraph=True)
        return self._traced[key]


def _said(
    error: Exception, module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Exception:
    """What to raise for what Dynamo raised."""
    if is_users_own(error) and not any(isinstance(a, FakeTensor) for a in (*args, *kwargs.values())):
        try:  # the module raises where it raises in plain PyTorch, with its own words
            with torch.no_grad():
                module._call_impl(*args, **kwargs)
        except Exception as own:
            raise own from None
    return refusal(error, module, MOST_SHAPES)


@functools.cache
def _logging() -> frozenset[Any]:
    """What writes logs, `warning_once` and the like that libraries add to loggers included.

    A log is no part of the step: it is left out where it stands in a forward, rather than break the graph.
    """
    found = vars(logging.Logger).items()
    return frozenset(f for name, f in found if callable(f) and name.split("_")[0] in _LOGS)


@contextlib.contextmanager
def _settings() -> Iterator[None]:
    """Dynamo's switches while a module under plan is traced or run."""
    from torch._dynamo import config
    from torch._dynamo.variables.torch import TorchInGraphFunctionVariable

    handlers = TorchInGraphFunctionVariable._get_handlers()
    addcdiv = handlers.pop(torch.addcdiv, None)  # takes it apart whatever the setting below says
    try:
        with _dynamo_settings(config):
            yield
    finally:
        if addcdiv is not None:
            handlers[torch.addcdiv] = addcdiv


def _dynamo_settings(config: Any) -> Any:
    return config.patch(
        allow_rnn=True,
        # Dynamo's own `addcmul_` and the like round differently from torch's operators.
        enable_dynamo_decompositions=False,
        recompile_limit=MOST_SHAPES,
        fail_on_recompile_limit_hit=True,
        # A hook that is registered or removed after the first step is another step.
        skip_nnmodule_hook_guards=False,
        ignore_logging_functions=set(_logging()),
    )
