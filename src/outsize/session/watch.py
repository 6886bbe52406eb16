"""Who updates a module, and whether what it was updated with came from a step under plan.

A module under plan can be trained past it: `module.forward(x)` and a call of a submodule do not go through the
module's call, a copy has no plan, and `module.compile()` puts another call in its place. Nothing of that fails, so it is
looked for where training shows: when an optimizer updates the module's parameters with gradients that came about while
no step was planned, it is said once.

Torch has hooks for the steps of all optimizers of the process. There is one pair of ours while a watched module lives.
A module's watch lies in its `__dict__`, so that it goes with the module, and comes along with copies and pickles of it.
"""

from __future__ import annotations

import sys
import warnings
import weakref
from abc import ABC, abstractmethod
from types import FrameType
from typing import Any, final

import torch
from torch.optim import optimizer as torchs
from torch.utils.hooks import RemovableHandle
from torch.utils.weak import TensorWeakRef

__all__ = ["Updated", "Watch", "forget_module", "watch_module"]

#: Attribute of a watched module.
_NAME = "_outsize_watch"
#: The frame, in torch's code, that calls the hooks of an optimizer.
_CALLER = torchs.Optimizer.profile_hook_step.__code__.co_filename
_WATCHES: weakref.WeakSet[Watch] = weakref.WeakSet()
_HANDLES: list[RemovableHandle] = []


class Updated(ABC):
    """Who is told that an optimizer updates its module."""

    @property
    @abstractmethod
    def covered(self) -> int:
        """Steps so far whose backward ran under plan, or of which it was said that they do not."""

    @abstractmethod
    def owns(self, optimizer: torch.optim.Optimizer) -> bool:
        """Whether it knows the optimizer as one of its module, whatever parameters that one has."""

    @abstractmethod
    def update_begins(self, optimizer: torch.optim.Optimizer, *, closure: bool) -> None:
        """An optimizer's step begins, with a function that runs steps of the module in it, or without."""

    @abstractmethod
    def update_done(self, optimizer: torch.optim.Optimizer) -> None:
        """It has ended."""


@final
class Watch:
    """Of one module. Without a session it is that of a copy, which has none.

    Attributes:
        installed: what runs the module; the watch keeps it for whoever gives the plain module back.
    """

    def __init__(
        self,
        module: torch.nn.Module | None = None,
        session: Updated | None = None,
        installed: object = None,
    ) -> None:
        self._module = weakref.ref(module) if module is not None else None
        self._session, self.installed = session, installed
        self._said = False
        #: Steps that were covered at the latest update.
        self._covered = 0
        call = vars(module).get("_compiled_call_impl") if module is not None else None
        self._call = weakref.ref(call) if call is not None else lambda: None
        self._seen: dict[int, tuple[TensorWeakRef, int]] = {}
        self._stepped: weakref.WeakSet[torch.optim.Optimizer] = weakref.WeakSet()
        self._note_gradients()

    def in_place(self, module: torch.nn.Module) -> bool:
        """Whether the call that was put into the module is still there."""
        return vars(module).get("_compiled_call_impl") is self._call()

    # A copy of the module brings a copy of this along, in which nothing refers to the session.

    def __reduce__(self) -> tuple[Any, ...]:
        return Watch, (), {"copied": self._module() if self._module is not None else None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        if (module := state["copied"]) is not None:
            self._module = weakref.ref(module)
            _register(self)

    # What the hooks call.

    def before(self, optimizer: torch.optim.Optimizer, *, closure: bool) -> None:
        module = self._concerned(optimizer)
        if module is None:
            return
        if self._session is not None:
            self._session.update_begins(optimizer, closure=closure)
        if not closure and not self._said and self._went_past(module, optimizer):
            self._said = True
            warnings.warn(self._message(module, optimizer), RuntimeWarning, stacklevel=5)

    def after(self, optimizer: torch.optim.Optimizer) -> None:
        if self._concerned(optimizer) is None:
            return
        if self._session is not None:
            self._session.update_done(optimizer)
            if self._session.covered > self._covered:
                self._covered = self._session.covered
                self._stepped.clear()
        self._stepped.add(optimizer)
        self._note_gradients()

    def _concerned(self, optimizer: torch.optim.Optimizer) -> torch.nn.Module | None:
        """The module, where this optimizer updates it."""
        module = self._module() if self._module is not None else None
        if module is None or vars(module).get(_NAME) is not self:
            return None
        if self._session is not None and self._session.owns(optimizer):
            return module
        own = {id(p) for p in module.parameters()}
        shared = any(id(p) in own for group in optimizer.param_groups for p in group["params"])
        return module if shared else None

    def _went_past(self, module: torch.nn.Module, optimizer: torch.optim.Optimizer) -> bool:
        """Whether there are gradients that no step under plan has made.

        Clipping and scaling change gradients between the updates of two optimizers, so it takes one that has updated
        since the latest step under plan.
        """
        if self._session is not None:
            if self._session.covered > self._covered:
                return False
            if self._covered and optimizer not in self._stepped:
                return False
        return any(
            _is_nonzero(grad)
            for p in module.parameters()
            if (grad := p.grad) is not None
            and not getattr(grad, "is_away", False)
            and ((seen := self._seen.get(id(p))) is None or seen[0]() is not grad or seen[1] != grad._version)
        )

    def _note_gradients(self) -> None:
        module = self._module() if self._module is not None else None
        if module is not None and not self._said:
            self._seen = {
                id(p): (TensorWeakRef(p.grad), p.grad._version)
                for p in module.parameters()
                if p.grad is not None
            }

    def _message(self, module: torch.nn.Module, optimizer: torch.optim.Optimizer) -> str:
        name = type(module).__qualname__
        said = f"{type(optimizer).__name__} updates {name}, and no step of it was planned since the update before: "
        if self._session is None:
            return (
                f"{said}it is a copy of a module that outsize.compile has taken on, and a copy is not planned; no "
                "budget is kept. Call outsize.compile on the copy as well"
            )
        if not self.in_place(module):
            return (
                f"{said}the call that outsize.compile put there was replaced, as module.compile() does; no budget is "
                "kept. Call outsize.compile last"
            )
        return (
            f"{said}it was trained past its own call (by {name}.forward(…), by a submodule that was called directly, in "
            f"a function under torch.compile, or in a loss over its parameters); no budget is kept. Call the module "
            "itself, or give outsize.compile the submodule that is called"
        )


def _is_nonzero(grad: torch.Tensor) -> bool:
    values = grad.detach()
    if values.layout is torch.sparse_coo:
        values = values._values()
    return values.numel() > 0 and values.device.type != "meta" and bool(values.any())


def watch_module(module: torch.nn.Module, session: Updated, installed: object) -> None:
    """Watch a module that was taken on, in place of whoever watched it before."""
    made = Watch(module, session, installed)
    vars(module)[_NAME] = made
    _register(made)


def forget_module(module: torch.nn.Module) -> Watch | None:
    """Watch a module no longer. Returns its watch."""
    found: Watch | None = vars(module).pop(_NAME, None)
    _WATCHES.discard(found) if found is not None else None
    _tidy()
    return found


def _register(made: Watch) -> None:
    _WATCHES.add(made)
    weakref.finalize(made, _tidy).atexit = False
    if not _HANDLES:
        # Where the optimizer's step is under torch.compile, they run between its graphs.
        _HANDLES.append(torchs.register_optimizer_step_pre_hook(torch.compiler.disable(_before)))
        _HANDLES.append(torchs.register_optimizer_step_post_hook(torch.compiler.disable(_after)))


def _tidy() -> None:
    """Remove the hooks where nothing is watched any more.

    A watch may be collected while torch goes through the hooks, which must not change under it: the next one tidies.
    """
    if any(True for _ in _WATCHES) or not _HANDLES:  # the set may still count one that is just going
        return
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_code.co_filename == _CALLER:
            return
        frame = frame.f_back
    while _HANDLES:
        _HANDLES.pop().remove()


def _before(optimizer: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    closure = any(callable(value) for value in (*args[1:], *kwargs.values()))
    for one in list(_WATCHES):
        one.before(optimizer, closure=closure)


def _after(optimizer: torch.optim.Optimizer, _: tuple[Any, ...], __: dict[str, Any]) -> None:
    for one in list(_WATCHES):
        one.after(optimizer)
