"""What AOTAutograd's autograd function does with gradients, made to be what an eager step does.

Its backward is handed zeros for each result that got no gradient, so that parameters behind results that no loss uses
would get zero gradients, which momentum and weight decay act on. Told not to make them, autograd hands over None.
A second derivative ends in an error of torch's own; it is replaced by one that says what to write.

Private names used: `torch._functorch._aot_autograd.runtime_wrappers` (`RuntimeWrapper.post_compile`, which is handed the
`apply` of the function, and the function's `_double_backward`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import torch

from ..errors import CaptureError
from .place import users_line


@contextlib.contextmanager
def as_eager(begins: Callable[[], None]) -> Iterator[None]:
    """Autograd functions that AOTAutograd makes meanwhile hand on what the eager step's would.

    Args:
        begins: called when a backward of one begins, before torch changes any setting for it.
    """
    from torch._functorch._aot_autograd import runtime_wrappers

    wrapper: Any = runtime_wrappers.RuntimeWrapper
    finish = wrapper.post_compile

    def finish_ours(self: Any, compiled: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        function = getattr(compiled, "__self__", None)
        if isinstance(function, type) and issubclass(function, torch.autograd.Function):
            _amend(function, begins)
        return finish(self, compiled, *args, **kwargs)

    with mock.patch.object(wrapper, "post_compile", finish_ours):
        yield


def _amend(function: Any, begins: Callable[[], None]) -> None:
    forward, backward = function.forward, function.backward

    def checked(ctx: Any, *args: Any) -> Any:
        begins()
        return backward(ctx, *args)

    def without_zeros(ctx: Any, *args: Any) -> Any:
        ctx.set_materialize_grads(False)
        return forward(ctx, *args)

    function.forward, function.backward = staticmethod(without_zeros), staticmethod(checked)
    function._double_backward = staticmethod(_once)


def _once(_: Any, compute: Callable[[], Any], inputs: list[Any]) -> Any:
    """The backward under `create_graph=True`: right, unless somebody differentiates it."""
    place = users_line()
    result: Any = _OnceDifferentiable.apply(compute, place, torch.empty(0, requires_grad=True))
    return result


class _OnceDifferentiable(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, compute: Callable[[], Any], place: str, _: torch.Tensor) -> Any:
        ctx.place = place
        return compute()

    @staticmethod
    def backward(ctx: Any, *_: Any) -> Any:
        raise CaptureError(
            "the gradients of a compiled module were differentiated again (a gradient penalty, a Hessian), and its "
            "backward was captured once, as plain operators: leave outsize.compile out for this module, or call the "
            f"plain one for the part of the loss that takes second derivatives{ctx.place}"
        )
