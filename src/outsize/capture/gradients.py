"""What AOTAutograd's autograd function does with gradients, made to be what an eager step does.

Its backward is handed zeros for each result that got no gradient, so that parameters behind results that no loss uses
would get zero gradients, which momentum and weight decay act on. Told not to make them, autograd hands over None, to the
user's hooks on such a result as well, which no eager step calls: so each of several results gets a node of its own.
A second derivative ends in an error of torch's own; it is replaced by one that says what to write. And a gradient whose
strides are not its result's is copied to those that were traced, which can change the order of sums: that is said.

Private names used: `torch._functorch._aot_autograd.runtime_wrappers` (`RuntimeWrapper.post_compile`, which is handed the
`apply` of the function, and the function's `_double_backward`), `schemas.TensorAlias` beside it, in which a result that
is a view comes, and `torch.autograd.grad_mode._unsafe_preserve_version_counter`.
"""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from unittest import mock

import torch
from torch.autograd.grad_mode import _unsafe_preserve_version_counter

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
            compiled = _apart(compiled)
        return finish(self, compiled, *args, **kwargs)

    with mock.patch.object(wrapper, "post_compile", finish_ours):
        yield


def _amend(function: Any, begins: Callable[[], None]) -> None:
    forward, backward = function.forward, function.backward

    said: list[bool] = []

    def checked(ctx: Any, *args: Any) -> Any:
        begins()
        gradients = args[0] if len(args) == 1 and isinstance(args[0], list) else args
        if not said and (other := _laid_out_otherwise(ctx.outsize_strides, gradients)):
            said.append(True)
            warnings.warn(other, RuntimeWarning, stacklevel=2)
        return backward(ctx, *args)

    def without_zeros(ctx: Any, *args: Any) -> Any:
        ctx.set_materialize_grads(False)
        results = forward(ctx, *args)
        ctx.outsize_strides = tuple(_strides(r) for r in results)
        return results

    function.forward, function.backward = staticmethod(without_zeros), staticmethod(checked)
    function._double_backward = staticmethod(_once)


def _apart(apply: Callable[..., Any]) -> Callable[..., Any]:
    """The function with a node behind each of several results, which runs where that result has a gradient."""

    from torch._functorch._aot_autograd.schemas import TensorAlias

    @functools.wraps(apply)
    def applied(*args: Any) -> Any:
        results = apply(*args)
        tensors = [r.alias if isinstance(r, TensorAlias) else r for r in results]
        made = [t for t in tensors if isinstance(t, torch.Tensor) and t.requires_grad and not t._is_view()]
        if len(made) > 1:
            with _unsafe_preserve_version_counter(tuple(made)):
                for result in made:
                    _Apart.apply(result)
        return results

    return applied


class _Apart(torch.autograd.Function):
    """Nothing, by way of a node: the very tensor comes out."""

    @staticmethod
    def forward(ctx: Any, result: torch.Tensor) -> torch.Tensor:
        ctx.mark_dirty(result)
        ctx.set_materialize_grads(False)
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return gradients[0]


def _strides(value: Any) -> tuple[int, ...] | None:
    """Strides of the dimensions that have any; None for what is no tensor."""
    if not isinstance(value, torch.Tensor):
        return None
    return tuple(s for s, n in zip(value.stride(), value.shape) if n > 1)


def _laid_out_otherwise(strides: Sequence[tuple[int, ...] | None], gradients: Sequence[Any]) -> str:
    """What to say of a gradient whose elements lie in another order than its result's; empty where there is none.

    One value for many elements (stride 0, of a sum) is no order.
    """
    for expected, gradient in zip(strides, gradients):
        found = _strides(gradient)
        if expected is None or not found or 0 in found or found == expected:
            continue
        return (
            f"the gradient of a result of shape {tuple(gradient.shape)} came with strides {found}, and the result has "
            f"{expected}. It is copied to those, so that sums over it may be made in another order than in an eager step "
            "and gradients differ in their last bits. For the same bits, return result.contiguous() from the module"
        )
    return ""


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
            "the gradients of a compiled module were differentiated again (a gradient penalty, a Hessian), and a "
            "captured backward has no derivative: leave outsize.compile out for this module, or call the "
            f"plain one for the part of the loss that takes second derivatives{ctx.place}"
        )
