"""Autocast, captured as the eager step has it.

Eager autocast casts a weight once and keeps the copy until the outermost context ends, so that the gradients of all its
uses are summed in the low precision and cast back once. Torch traces with that cache off, which casts, and rounds, for
each use. Here it stays on while a step is traced. Two things cannot be captured, because they are known only later, and
both are said: a module that is called again under one autocast, where the eager step casts its weights once for both
calls, and a backward that is called inside of autocast where that casts.

Private names used: `disable_autocast_cache` of `torch.fx.experimental.proxy_tensor`, which the metadata analysis of
`torch._functorch._aot_autograd` imports.
"""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, final
from unittest import mock

import torch
from torch.fx import GraphModule, Node

from ..errors import CaptureError
from ..fx import CapturedStep, node_inputs
from ..fx.operators import casts_inside
from .place import line_of, users_line

#: What autocast runs in low precision and a backward calls.
_CASTING = ("mm", "bmm", "mv", "addmm", "addmv", "addbmm", "baddbmm", "dot", "vdot")


@contextlib.contextmanager
def casts_once(module: GraphModule, inputs: Sequence[Any]) -> Iterator[None]:
    """Trace with autocast's cache as the user set it.

    Args:
        module: what is traced.
        inputs: what the step is traced with. The cache holds leaves only, and tells them by the tensors that it is
            handed: those of a joint trace, which are none, are replaced by leaves where the real ones are.
    """
    from torch._functorch._aot_autograd import collect_metadata_analysis, graph_capture
    from torch.fx.experimental import proxy_tensor

    if not may_cast(module):
        yield
        return
    leaves = {i for i, t in enumerate(inputs) if isinstance(t, torch.Tensor) and _is_leaf(t)}
    create = graph_capture.create_joint  # type: ignore[attr-defined]

    def create_ours(function: Any, descriptions: Any, **options: Any) -> Callable[..., Any]:
        joint = create(function, descriptions, **options)
        places = [i for i, d in enumerate(descriptions) if getattr(d, "idx", None) in leaves]

        def traced(primals: list[Any], tangents: list[Any]) -> Any:
            own = [*primals]
            for i in places:
                own[i] = primals[i].detach().requires_grad_()
            return joint(own, tangents)

        return functools.update_wrapper(traced, joint)

    name, as_is = "disable_autocast_cache", contextlib.nullcontext
    with (
        mock.patch.object(proxy_tensor, name, as_is),
        mock.patch.object(collect_metadata_analysis, name, as_is),
        mock.patch.object(graph_capture, "create_joint", create_ours),
    ):
        yield


def may_cast(module: GraphModule) -> bool:
    """Whether autocast is on, or the module enters it itself."""
    if torch._C._is_any_autocast_enabled():
        return True
    graphs = [m.graph for m in module.modules() if isinstance(m, GraphModule)]
    return any(n.target is torch.amp.autocast_mode._enter_autocast for g in graphs for n in g.nodes)


def uncast(module: GraphModule) -> frozenset[str]:
    """The nodes of Dynamo's graph that run with autocast off, by name."""
    entered, found = list[dict[str, bool]](), set[str]()
    on = {device: torch.is_autocast_enabled(device) for device in ("cpu", "cuda")}
    for node in module.graph.nodes:
        if node.target is torch.amp.autocast_mode._enter_autocast:
            entered.append(on)
            on = {**on, node.args[0]: bool(node.args[2])}
        elif node.target is torch.amp.autocast_mode._exit_autocast:
            on = entered.pop()
        elif not any(on.values()):
            found.add(node.name)
    return frozenset(found)


def refuse_casting_kernels(joint: GraphModule, uncast: frozenset[str]) -> None:
    """Refuse operators whose kernels call others that autocast casts: in a graph they would run without it.

    Args:
        joint: forward and backward; a backward runs without autocast in eager as well.
        uncast: nodes of Dynamo's graph that run with autocast off.

    Raises:
        CaptureError: with the line.
    """
    for node in joint.graph.nodes:
        if not casts_inside(node.target) or node.target is torch.ops.aten.affine_grid_generator.default:
            continue
        if node.meta.get("autograd_backward") or any(
            n.name in uncast for n in node.meta.get("from_node", ())
        ):
            continue
        raise CaptureError(
            f"{node.target} runs under torch.autocast, which casts what its kernel multiplies; in a captured step "
            "nothing would be cast: leave door='captured' out, and the steps are observed, or call it inside of "
            f"torch.autocast(…, enabled=False){line_of(node)}"
        )


def _is_leaf(tensor: torch.Tensor) -> bool:
    return tensor.requires_grad and tensor.is_leaf and not tensor._is_view() and tensor.dtype is torch.float32


def cast_inside(step: CapturedStep) -> str:
    """The first operator of a step's backward that an autocast around it would cast; empty if there is none."""
    for op, node in zip(step.graph.ops, step.nodes):
        if op.phase == "backward" and node is not None and _is_cast(node):
            return node.name
    return ""


def _is_cast(node: Node) -> bool:
    target = node.target
    if (
        not isinstance(target, torch._ops.OpOverload)
        or target._schema.name.removeprefix("aten::") not in _CASTING
    ):
        return False
    values = [n.meta.get("val") for n in node_inputs(node)]
    return any(isinstance(v, torch.Tensor) and v.dtype is torch.float32 for v in values)


def casts_weights(step: CapturedStep) -> bool:
    """Whether autocast casts leaves in it."""
    aten, primals = torch.ops.aten, set(step.primals)
    leaves = {n for n in step.order if n.target is aten.detach.default and primals & set(node_inputs(n))}
    return any(n.target is aten._to_copy.default and leaves & set(node_inputs(n)) for n in step.order)


def refuse_inside(operator: str, device: torch.device) -> None:
    """A backward begins, which has an operator that autocast casts.

    Raises:
        CaptureError: autocast is on.
    """
    if operator and torch.is_autocast_enabled(device.type):
        raise CaptureError(
            f"backward() was called inside of torch.autocast, which would cast {operator} of this module's backward; "
            "that was captured for a backward outside, where it runs in float32: call backward() after the with block, "
            f"as PyTorch advises{users_line()}"
        )


@final
class Contexts:
    """Tells a module that is called again under one autocast, where the eager step casts its weights once for both calls.

    A small leaf of our own is cast at each call: autocast's cache gives the same copy as long as the context lasts.
    """

    def __init__(self) -> None:
        self._leaf, self._copy, self._said = torch.ones(1, 1, requires_grad=True), object(), False

    def called(self) -> None:
        """The module was called, and trains weights that autocast casts."""
        if self._said or not (torch.is_grad_enabled() and torch.is_autocast_cache_enabled()):
            return
        function = torch.mm(self._leaf, self._leaf).grad_fn
        copy = function.next_functions[0][0] if function is not None else None
        if copy is self._copy:
            self._said = True
            warnings.warn(_AGAIN, RuntimeWarning, stacklevel=5)
        self._copy = copy


_AGAIN = (
    "the module was called again under one autocast. The eager step casts its weights once for both calls and sums their "
    "gradients in the low precision; here each call casts them, and the sum is made in float32, so gradients differ from "
    "an eager step's in their last bits. For the same bits, enter autocast once for each call, or have it "
    "cache_enabled=False in both"
)


@final
class AffineGrid(torch.autograd.Function):
    """`F.affine_grid` as the eager step runs it under autocast: its kernel calls a product, which autocast casts.

    The grid's points are rounded after they were made in theta's precision; the backward's are made in the grid's own.
    Source: `aten/src/ATen/native/AffineGridGenerator.cpp`.
    """

    @staticmethod
    def forward(ctx: Any, theta: torch.Tensor, size: Sequence[int], corners: bool) -> torch.Tensor:
        ctx.size, ctx.corners = size, corners
        batch, spatial = size[0], list(size[2:])
        options = {"dtype": theta.dtype, "device": theta.device}
        axes = [_from_minus_one(n, corners, options) for n in spatial]
        points = [a.view(-1, *[1] * (len(spatial) - 1 - i)).expand(spatial) for i, a in enumerate(axes)]
        base = torch.stack([*reversed(points), torch.ones(spatial, **options)], dim=-1)  # type: ignore[call-overload]
        base = base.view(1, -1, len(spatial) + 1).expand(batch, -1, -1)
        return torch.bmm(base, theta.transpose(1, 2)).view(batch, *spatial, len(spatial))

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        return torch.ops.aten.affine_grid_generator_backward(gradient, ctx.size, ctx.corners), None, None


def _from_minus_one(steps: int, corners: bool, options: dict[str, Any]) -> torch.Tensor:
    if steps <= 1:
        return torch.zeros(1, **options)
    line = torch.linspace(-1, 1, steps, **options)
    return line if corners else line * (steps - 1) / steps
