"""Run the rewritten graphs through Inductor: our operators become opaque calls between its fused kernels.

Inductor schedules by data flow and knows nothing of frames, so each call takes the frame as a one-element tensor that
it is declared to change: that keeps the calls in their order. A buffer that is being written to a tier must not be
reused before the write has ended, so `settle` takes it as an argument and so keeps it alive until then.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.fx import Graph, GraphModule, Node

from ..errors import CaptureError
from ..fx import RewrittenStep
from . import ops
from .frame import Frame

_LIBRARY = torch.library.Library("outsize", "DEF")
_SCHEMAS = {
    "swap_out": "(Tensor(a!) frame, Tensor? data, int slot, str tier) -> ()",
    "settle": "(Tensor(a!) frame, Tensor? data, int slot) -> ()",
    "fetch": "(Tensor(a!) frame, int slot, int nbytes) -> ()",
    "wait": "(Tensor(a!) frame, int slot, ScalarType dtype, int count) -> Tensor",
    "wait_encoded": "(Tensor(a!) frame, int slot) -> ()",
    "encode": "(Tensor(a!) frame, Tensor data, int slot, str codec, int nbytes) -> ()",
    "decode": "(Tensor(a!) frame, int slot, ScalarType dtype, int count, bool last) -> Tensor",
    "observe": "(Tensor(a!) frame, Tensor data, int slot) -> ()",
}


def _swap_out(frame: Tensor, data: Tensor | None, slot: int, tier: str) -> None:
    ops.swap_out(Frame.of(frame), data, slot, tier)


def _settle(frame: Tensor, data: Tensor | None, slot: int) -> None:
    ops.settle(Frame.of(frame), slot)


def _fetch(frame: Tensor, slot: int, nbytes: int) -> None:
    ops.fetch(Frame.of(frame), slot, nbytes)


def _wait(frame: Tensor, slot: int, dtype: torch.dtype, count: int) -> Tensor:
    flat = ops.wait(Frame.of(frame), slot, dtype)
    assert flat is not None
    return flat


def _wait_encoded(frame: Tensor, slot: int) -> None:
    ops.wait(Frame.of(frame), slot, None)


def _encode(frame: Tensor, data: Tensor, slot: int, codec: str, nbytes: int) -> None:
    ops.encode(Frame.of(frame), data, slot, codec, nbytes)


def _decode(frame: Tensor, slot: int, dtype: torch.dtype, count: int, last: bool) -> Tensor:
    return ops.decode(Frame.of(frame), slot, dtype, last)


def _observe(frame: Tensor, data: Tensor, slot: int) -> None:
    ops.observe(Frame.of(frame), data, slot)


def _define() -> None:
    made: dict[str, Callable[..., Any]] = {
        "swap_out": _swap_out, "settle": _settle, "fetch": _fetch, "wait": _wait, "wait_encoded": _wait_encoded,
        "encode": _encode, "decode": _decode, "observe": _observe,
    }  # fmt: skip
    for name, schema in _SCHEMAS.items():
        _LIBRARY.define(name + schema)
        _LIBRARY.impl(name, made[name], "CompositeExplicitAutograd")
        returns_tensor = schema.endswith("Tensor")
        fake = _fake_flat if returns_tensor else _fake_nothing
        torch.library.register_fake(f"outsize::{name}", fake, lib=_LIBRARY)


def _fake_flat(frame: Tensor, slot: int, dtype: torch.dtype, count: int, last: bool = True) -> Tensor:
    return torch.empty(count, dtype=dtype, device=frame.device)


def _fake_nothing(*_: Any) -> None:
    return None


_define()


def compile_step(step: RewrittenStep, sizes: Sequence[int]) -> RewrittenStep:
    """The same step with both graphs compiled by Inductor.

    Args:
        sizes: bytes per storage, for what comes back from a tier.

    Raises:
        CaptureError: Inductor cannot compile it (no C++ compiler, above all).
    """
    forward, backward = (compile_graph(graph, sizes) for graph in (step.forward, step.backward))
    return RewrittenStep(forward=forward, backward=backward, crossing=step.crossing, origin={})  # type: ignore[arg-type]


class _Compiled:
    """Stands for a graph module: `forward(list)`; the frame goes in as its number."""

    def __init__(self, function: Callable[[list[Any]], Any]) -> None:
        self._function = function

    def forward(self, args: list[Any]) -> Any:
        args[0] = args[0].capsule()
        return self._function(args)


def compile_graph(graph: GraphModule, sizes: Sequence[int]) -> _Compiled:
    """One of its graphs. Inputs that the graph does not use may be None.

    Raises:
        CaptureError: as `compile_step`.
    """
    from torch._inductor import config
    from torch._inductor.compile_fx import compile_fx_inner
    from torch._inductor.decomposition import select_decomp_table
    from torch.fx.experimental.proxy_tensor import make_fx

    calls = _as_calls(graph, sizes)
    inputs = [n.meta.get("val") for n in calls.graph.nodes if n.op == "placeholder"]
    mode = next(v.fake_mode for v in inputs if isinstance(v, FakeTensor))
    with mode:
        inputs[0] = torch.empty(1, dtype=torch.int64)
        traced = make_fx(calls, decomposition_table=select_decomp_table(), _allow_non_fake_inputs=True)(
            *inputs
        )
    # What crosses the boundary is read by its recorded strides, so Inductor may not choose others.
    output = next(n for n in traced.graph.nodes if n.op == "output")
    output.meta["user_visible_output_idxs"] = list(range(len(output.args[0])))
    settings = config.patch(fallback_random=True, layout_optimization=False)
    try:
        with settings, torch._guards.tracing(torch._guards.TracingContext(mode)):
            return _Compiled(compile_fx_inner(traced, inputs))
    except Exception as error:
        raise CaptureError(
            f"Inductor could not compile the step ({type(error).__name__}: {str(error).splitlines()[0]}); "
            "inner='aten' runs it without Inductor"
        ) from error


def _as_calls(graph: GraphModule, sizes: Sequence[int]) -> GraphModule:
    """The graph with each runtime function replaced by its operator, and the default calling convention."""
    new = Graph()
    known: dict[Node, Any] = {}
    sent: dict[Any, Node] = {}
    for node in graph.graph.nodes:
        if node.op == "call_function" and node.target in vars(ops.OPS).values():
            name = next(k for k, v in vars(ops.OPS).items() if v is node.target)
            frame, *rest = torch.fx.node.map_arg(node.args, lambda n: known[n])
            target, args = _operator(name, list(rest), sent, sizes)
            known[node] = new.call_function(target, (frame, *args))
        else:
            known[node] = new.node_copy(node, lambda n: known[n])
    return GraphModule(graph, new)


def _operator(
    name: str, rest: list[Any], sent: dict[Any, Node], sizes: Sequence[int]
) -> tuple[Any, list[Any]]:
    """The operator for a runtime function, and its arguments behind the frame."""
    if name == "swap_out" and rest[0] is not None:
        sent[rest[1]] = rest[0]
    elif name == "settle":
        rest = [sent.get(rest[0]), *rest]
    elif name == "wait" and rest[1] is None:
        return torch.ops.outsize.wait_encoded.default, rest[:1]
    elif name in ("wait", "decode"):
        slot, dtype, *last = rest
        rest = [slot, dtype, sizes[slot] // dtype.itemsize, *last]
    return getattr(torch.ops.outsize, name).default, rest
