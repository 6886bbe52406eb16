"""Gradient checkpointing inside of a captured module: traced through, as if it were not there.

What is kept and what is computed again is the plan's to decide, for the whole step and under its budget, and a recomputed
value has the bits of the first one. So `torch.utils.checkpoint` is replaced, while a module is traced, by a function that
calls what it was given. What the eager one does besides is done here too, or refused: its older variant gives no gradient
where none of its inputs asks for one, and its second forward updates the buffers that the first one updated.

Private names used: `torch._dynamo.variables.builder.VariableBuilder._id_dispatch` (a table of what stands for an object
while Dynamo traces), `torch._dynamo.output_graph.OutputGraph._check_requires_grad_intermediate_outputs`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from unittest import mock

import torch
from torch.fx import Node
from torch.utils import checkpoint

from ..errors import CaptureError
from .place import line_of, users_line


@contextlib.contextmanager
def traced_through() -> Iterator[None]:
    """While it holds, Dynamo traces through checkpoints."""
    from torch._dynamo.output_graph import OutputGraph
    from torch._dynamo.variables.builder import VariableBuilder
    from torch._dynamo.variables.functions import UserFunctionVariable

    stand_ins: dict[Any, Any] = {
        checkpoint.checkpoint: through,
        checkpoint.checkpoint_sequential: in_segments,
    }
    table = VariableBuilder._id_dispatch()
    for original, ours in stand_ins.items():
        table[id(original)] = lambda *_, ours=ours: UserFunctionVariable(ours)
    try:
        with mock.patch.object(OutputGraph, "_check_requires_grad_intermediate_outputs", _check_leaves):
            yield
    finally:
        for original in stand_ins:
            del table[id(original)]


def _check_leaves(graph: Any, results: list[Any], _: Any) -> None:
    """A tensor inside may be made to require a gradient, as Hugging Face's `enable_input_require_grads` does for the
    checkpoint's older variant; parameters get the same gradients. Returned, it would be another leaf than the eager one.

    Raises:
        CaptureError: the module returns such a tensor.
    """
    leaves = {v.as_proxy().node for v in graph.leaf_var_creation_order if not v.source}
    for result in results:
        if leaves and result.is_tensor() and result.as_proxy().node in leaves:
            raise CaptureError(
                "the module returns a tensor on which its forward called requires_grad_(): nobody could ask for that "
                f"tensor's gradient afterwards; call requires_grad_() on what the module returned{users_line()}"
            )


# These have no defaults: Dynamo would look for them in the functions that they stand for.


def through(function: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """`torch.utils.checkpoint.checkpoint`, but that everything may be kept."""
    reentrant = options.pop("use_reentrant", None) is not False
    called = _checkpointed if options.pop("preserve_rng_state", True) else _checkpointed_drawing_anew
    for name in ("context_fn", "determinism_check", "debug", "early_stop"):
        options.pop(name, None)
    if reentrant and not any(isinstance(a, torch.Tensor) and a.requires_grad for a in args):
        with torch.no_grad():
            return called(function, *args, **options)
    return called(function, *args, **options)


def in_segments(functions: Any, segments: int, value: Any, *reentrant: Any, **options: Any) -> Any:
    """`torch.utils.checkpoint.checkpoint_sequential` likewise."""
    if reentrant:
        options["use_reentrant"] = reentrant[0]
    parts = list(functions.children()) if isinstance(functions, torch.nn.Sequential) else list(functions)
    size, done = len(parts) // segments, 0
    for start in range(0, size * (segments - 1), size):
        done = start + size
        value = through(_in_turn(parts[start:done]), value, **options)
    return _in_turn(parts[done:])(value)


def _in_turn(parts: list[Any]) -> Callable[[Any], Any]:
    def run(value: Any) -> Any:
        for part in parts:
            value = part(value)
        return value

    return run


def _checkpointed(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return function(*args, **kwargs)


def _checkpointed_drawing_anew(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return function(*args, **kwargs)


def refuse_changes(updated: Iterable[Node], random: Iterable[Node]) -> None:
    """Refuse what a checkpoint's second forward would do again, and a plan does once.

    Args:
        updated: new values of the buffers that the step updates.
        random: operators that draw random numbers.

    Raises:
        CaptureError: one of them stands in a checkpointed part.
    """
    for node in updated:
        if place := _inside(node, "_checkpointed"):
            raise CaptureError(
                "a checkpointed part of the module updates a buffer (a batch norm's statistics?), which the eager step "
                "does once more when it computes that part again: take torch.utils.checkpoint out of the model, because "
                f"the plan keeps the budget without it{place}"
            )
    for node in random:
        if place := _inside(node, "_checkpointed_drawing_anew"):
            raise CaptureError(
                "a checkpointed part with preserve_rng_state=False draws random numbers, and the eager step draws "
                "others when it computes that part again: leave preserve_rng_state out, or take torch.utils.checkpoint "
                "out of the model"
                f"{place}"
            )


def _inside(node: Node, name: str) -> str:
    """Where in the user's code the node stands, if inside of that function; empty otherwise."""
    frames = (node.meta.get("stack_trace") or "").split('File "')[1:]
    if not any(
        f.startswith(__file__) and f.splitlines()[0].split(", in ")[-1].startswith(name) for f in frames
    ):
        return ""
    return line_of(node)
