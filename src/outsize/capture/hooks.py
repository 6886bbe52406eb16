"""Hooks of modules, captured as the eager step runs them.

A hook that does nothing while torch compiles (`if torch.compiler.is_compiling(): return`) would be captured doing
nothing, and a loss that is made from what it stores would be another one. Asked from inside of a hook, torch is therefore
made to answer that it does not compile. Libraries that ask in a forward keep the answer that they expect.

Private names used: `torch._dynamo.variables.torch.TorchInGraphFunctionVariable._get_handlers` (a table of what stands for
a function while Dynamo traces), `torch.nn.modules.module` (the hooks of all modules).
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from types import CodeType
from typing import Any

import torch
from torch.nn.modules import module as all_modules

_OF_MODULES = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


@contextlib.contextmanager
def run_in_eager(module: torch.nn.Module) -> Iterator[None]:
    """While it holds, hooks of the module and of all inside it are traced as if torch did not compile."""
    from torch._dynamo.variables.torch import TorchInGraphFunctionVariable, tracing_state_functions

    handlers = TorchInGraphFunctionVariable._get_handlers()
    asked = [f for f in tracing_state_functions() if f.__name__ in ("is_compiling", "is_dynamo_compiling")]
    before = {question: handlers[question] for question in asked}
    for question in asked:
        handlers[question] = functools.partial(_answer, module, before[question])
    try:
        yield
    finally:
        handlers.update(before)


def _answer(
    module: torch.nn.Module, usual: Callable[..., Any], variable: Any, tx: Any, *args: Any, **kwargs: Any
) -> Any:
    from torch._dynamo.variables import ConstantVariable

    codes, frame = _codes(module), tx
    while frame is not None:
        if frame.f_code in codes:
            return ConstantVariable.create(False)
        frame = getattr(frame, "parent", None)
    return usual(variable, tx, *args, **kwargs)


def _codes(module: torch.nn.Module) -> set[CodeType]:
    tables = [getattr(m, name) for m in module.modules() for name in _OF_MODULES]
    tables += [getattr(all_modules, f"_global{name}") for name in _OF_MODULES]
    return {code for table in tables for hook in table.values() for code in _code(hook)}


def of_all_modules() -> tuple[Any, ...]:
    """The hooks that run for every module, which Dynamo does not guard."""
    return tuple(hook for name in _OF_MODULES for hook in getattr(all_modules, f"_global{name}").values())


def of_backwards(module: torch.nn.Module) -> list[str]:
    """Hooks on the backward of a module inside, or of all modules: whose, and where they were written."""
    found = [
        (f"all modules ({h!r})", h)
        for t in _OF_MODULES[2:]
        for h in getattr(all_modules, f"_global{t}").values()
    ]
    for name, inner in module.named_modules():
        hooks = (*inner._backward_hooks.values(), *inner._backward_pre_hooks.values()) if name else ()
        found += [(f"{name} ({type(inner).__name__})", h) for h in hooks]
    lines = [(name, next(_code(hook), None)) for name, hook in found]
    return [
        f'File "{code.co_filename}", line {code.co_firstlineno}, in {code.co_name}: hook of {name}'
        for name, code in lines
        if code is not None
    ]


def _code(hook: Any) -> Iterator[CodeType]:
    """Of a function, a method, a partial or an object that is called."""
    while isinstance(hook, functools.partial):
        hook = hook.func
    function = getattr(hook, "__func__", hook)
    if not hasattr(function, "__code__"):
        function = type(hook).__call__
    if hasattr(function, "__code__"):
        yield function.__code__
