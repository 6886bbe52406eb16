"""From AOTAutograd to a program: what Dynamo traced goes in, a joint graph and what runs it come out.

AOTAutograd wants two graphs from a partitioner: a forward that returns its results and the tensors to save, and a
backward that takes those. The engine keeps what it saves to itself, because a plan may change from step to step:
the forward graph handed to AOTAutograd returns its results and one *capsule*, a one-element tensor whose storage owns
everything that the backward needs. When autograd lets go of the capsule, swapped blocks go with it.

This room alone touches torch's private API; each of its files says which names it uses. Tested with torch 2.13.0 on the
CPU; tried with 2.11.0 on CUDA. Here: `torch._dynamo.backends.common.aot_autograd`, `torch._functorch` (config,
`_aot_autograd.descriptors`, the partitioner's calling convention, `desc` of a joint graph's inputs and outputs),
`torch._C._autograd` (whether the running backward keeps its graph), `torch._inductor.config`,
`torch._decomp.decomposition_table`, and `py_kernels` and `_dispatch_cache` of an operator.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from types import CodeType
from typing import Any, final

import numpy as np
import torch
from torch.fx import Graph, GraphModule, Node

from ..errors import OutsizeError, VersionError
from ..fx import CapturedStep, Program
from .autocast import (
    AffineGrid,
    cast_inside,
    casts_once,
    casts_weights,
    may_cast,
    refuse_casting_kernels,
    refuse_inside,
    uncast,
)
from .checkpoint import refuse_changes
from .draws import IN_PLACE, fold_draws
from .dropout import split_dropouts
from .gradients import as_eager
from .graph import build_step
from .in_place import fold_copies, in_place_layouts
from .layouts import correct_layouts, real_layouts
from .recurrence import eager_recurrence
from .refusals import refuse_replaced
from .spectra import VALUES_ALONE

TESTED_TORCH = ("2.13",)
#: Set, it lets any torch be tried.
TRY_TORCH = "OUTSIZE_TRY_TORCH"


def check_version() -> None:
    """Refuse a torch that this file was not tested with.

    Raises:
        VersionError: naming the versions that work.
    """
    if torch.__version__.startswith(tuple(f"{v}." for v in TESTED_TORCH)):
        return
    if not os.environ.get(TRY_TORCH):
        raise VersionError(
            f"torch {torch.__version__} is outside the tested range ({', '.join(TESTED_TORCH)}.x): outsize reads "
            f"AOTAutograd's graphs, which change between releases; install torch=={TESTED_TORCH[-1]}.*, or set "
            f"{TRY_TORCH}=1 to try this one and compare its losses with a plain run's"
        )
    # Older ones log an error at each capture, because they cannot write the set of `_logging` down; and whoever keeps
    # that record (pytest does) keeps with it the frames of its traceback, and the module's result in one of them.
    logging.getLogger("torch._dynamo.metrics_context").disabled = True


@final
class Backend:
    """A `torch.compile` backend that hands each training step to `on_step` and each plain forward to `on_forward`.

    Attributes:
        graphs: how many graphs were compiled.
        casts_weights: whether an autocast around the module casts weights in one of them.
    """

    def __init__(
        self,
        on_step: Callable[[CapturedStep], Program],
        on_forward: Callable[[GraphModule], Callable[[list[Any]], Any]],
    ) -> None:
        self._on_step, self._on_forward = on_step, on_forward
        self._programs: dict[int, Program] = {}
        #: Of the functions that Dynamo compiles with this backend: it keeps all that it knows on them.
        self.codes: list[CodeType] = []
        #: Names of the graphs whose text torch keeps.
        self.sources: list[str] = []
        #: By graph: an operator of its backward that an autocast around it would cast, and where it runs.
        self._inside: dict[int, tuple[str, torch.device]] = {}
        self.graphs = 0
        self.casts_weights = self._under_autocast = self._casts = False
        self._uncast = frozenset[str]()

    def __call__(self, module: GraphModule, example_inputs: Sequence[Any], **_: Any) -> Callable[..., Any]:
        from torch._dynamo.backends.common import aot_autograd

        refuse_replaced(module)
        self.graphs += 1
        self._under_autocast, self._casts = torch._C._is_any_autocast_enabled(), may_cast(module)
        self._uncast = uncast(module)
        backend = aot_autograd(
            fw_compiler=self._forward,
            bw_compiler=self._backward,
            inference_compiler=self._inference,
            partition_fn=self._partition,
        )
        with (
            _tracing_settings(),
            real_layouts(),
            in_place_layouts(),
            eager_recurrence(),
            _eager_kernels(casts=self._casts),
            casts_once(module, example_inputs),
            as_eager(functools.partial(self._begins, self.graphs)),
        ):
            return backend(module, example_inputs)

    def _begins(self, number: int) -> None:
        refuse_inside(*self._inside[number])

    def _partition(
        self, joint: GraphModule, inputs: Any, *, num_fwd_outputs: int, **_: Any
    ) -> tuple[GraphModule, GraphModule]:
        if self._casts:
            refuse_casting_kernels(joint, self._uncast)
        split_dropouts(joint)
        correct_layouts(joint)
        fold_draws(joint)
        fold_copies(joint)
        updates = _updates(joint)
        step = build_step(
            joint, num_primals=len(inputs[0]), num_forward_outputs=num_fwd_outputs, updates=updates
        )
        _check_checkpoints(step, updates)
        step = replace(step, carrying=_carrying(joint, step.tangents))
        self.casts_weights |= self._under_autocast and casts_weights(step)
        self._inside[self.graphs] = (cast_inside(step), step.device)
        number = len(self._programs)
        self._programs[number] = self._on_step(step)
        forward, backward = _facades(step)
        forward.meta["outsize"] = backward.meta["outsize"] = number
        return forward, backward

    def _forward(self, module: GraphModule, _: Sequence[Any]) -> Callable[..., Any]:
        program = self._programs[module.meta["outsize"]]
        return _boxed(program.forward)

    def _backward(self, module: GraphModule, _: Sequence[Any]) -> Callable[..., Any]:
        self.sources.append(module.forward.__code__.co_filename)  # it is compiled when it first runs
        program = self._programs[module.meta["outsize"]]

        def run(args: list[Any]) -> list[Any]:
            return program.backward(args, keep=torch._C._autograd._get_current_graph_task_keep_graph())

        return _boxed(run)

    def _inference(self, module: GraphModule, _: Sequence[Any]) -> Callable[..., Any]:
        return _boxed(self._on_forward(module))


def _check_checkpoints(step: CapturedStep, updates: Iterable[int]) -> None:
    random = (n for op, n in zip(step.graph.ops, step.nodes) if op.random)
    changed = (step.forward_outputs[i] for i in updates)
    refuse_changes((n for n in changed if isinstance(n, Node)), (n for n in random if n is not None))


def _carrying(joint: GraphModule, tangents: Sequence[Node]) -> tuple[Node, ...]:
    """The result that each tangent is the gradient of; empty where torch does not record that."""
    output = next(n for n in joint.graph.nodes if n.op == "output")
    results = dict(zip(output.meta.get("desc", ()), output.args[0]))
    found = [results.get(getattr(t.meta.get("desc"), "output", None)) for t in tangents]
    return tuple(n for n in found if isinstance(n, Node)) if all(isinstance(n, Node) for n in found) else ()


def _updates(joint: GraphModule) -> dict[int, Node]:
    """Forward result → the primal over which torch copies it when the forward has ended."""
    from torch._functorch._aot_autograd.descriptors import InputMutationAOTOutput

    primals = {n.meta.get("desc"): n for n in joint.graph.nodes if n.op == "placeholder"}
    results = next(n for n in joint.graph.nodes if n.op == "output").meta["desc"]
    return {
        i: primals[d.mutated_input] for i, d in enumerate(results) if isinstance(d, InputMutationAOTOutput)
    }


#: Operators that torch traces through a Python stand-in whose numbers are not those of its own kernel.
_STAND_INS = (
    "upsample_",
    "_upsample_",
    "multi_margin_loss",
    "multilabel_margin_loss_forward",
    "hardshrink",
    "softshrink",
    "matmul",
    "unsafe_chunk",
)
_STAND_IN_KEYS = (torch._C.DispatchKey.Autograd, torch._C.DispatchKey.CompositeImplicitAutograd)


@contextlib.contextmanager
def _eager_kernels(*, casts: bool) -> Iterator[None]:
    """Trace the operators that an eager step would run.

    Torch's compilers take interpolation apart into gathers, which round differently and keep a dozen tensors where the
    kernel keeps none, and multiply a dropout by its scale where the eager one divides its mask.

    Args:
        casts: autocast may be on.
    """
    aten = torch.ops.aten
    lifted: list[tuple[Any, Any, Any]] = []
    # Torch's table lacks some that have stand-ins all the same.
    others = (aten.matmul.default, aten.unsafe_chunk.default, aten.upsample_linear1d.vec)
    for name in dict.fromkeys((*torch._decomp.decomposition_table, *others)):
        kernels = getattr(name, "py_kernels", {})
        if str(name).startswith(tuple(f"aten.{prefix}" for prefix in _STAND_INS)):
            lifted += [(name, key, kernels.pop(key)) for key in _STAND_IN_KEYS if key in kernels]
    dropout, grid = aten.dropout.default, aten.affine_grid_generator.default
    lifted += [(dropout, key, dropout.py_kernels[key]) for key in _STAND_IN_KEYS]
    dropout.py_kernels.update(dict.fromkeys(_STAND_IN_KEYS, _dropout))
    for name, kernel in IN_PLACE.items():
        lifted.append((name, _STAND_IN_KEYS[0], name.py_kernels.get(_STAND_IN_KEYS[0])))
        name.py_kernels[_STAND_IN_KEYS[0]] = kernel
    for name, kernel in VALUES_ALONE.items():
        lifted += [(name, key, name.py_kernels.get(key)) for key in _STAND_IN_KEYS]
        name.py_kernels.update(dict.fromkeys(_STAND_IN_KEYS, kernel))
    if casts:
        key = torch._C.DispatchKey.Autograd
        lifted.append((grid, key, grid.py_kernels.get(key)))
        grid.py_kernels[key] = AffineGrid.apply
    for operator, _, _ in lifted:
        operator._dispatch_cache.clear()
    try:
        yield
    finally:
        for operator, key, kernel in lifted:
            operator.py_kernels[key] = kernel
            if kernel is None:
                del operator.py_kernels[key]
            operator._dispatch_cache.clear()


def _dropout(tensor: torch.Tensor, p: float, train: bool) -> torch.Tensor:
    """The eager dropout: by the operator that keeps one byte an element where that gives the same bits."""
    if not train or p == 0 or tensor.numel() == 0:
        return tensor
    if p == 1:
        return tensor * torch.zeros((), dtype=tensor.dtype, device=tensor.device)
    number: Any = {torch.float32: np.float32, torch.float64: np.float64}.get(tensor.dtype)
    same = number is not None and number(1) / number(1 - p) == number(1 / (1 - p))
    if same or tensor.device.type == "cuda":  # there the eager one is that operator
        result: torch.Tensor = torch.ops.aten.native_dropout(tensor, p, train)[0]
        return result
    return tensor * (torch.empty_like(tensor).bernoulli_(1 - p) / (1 - p))


@contextlib.contextmanager
def _tracing_settings() -> Iterator[None]:
    """Torch's switches while AOTAutograd traces."""
    functorch = torch._functorch.config.patch(
        # Left on, AOTAutograd finds no buffer to reuse (see `_facades`) and says so, which a second backward over a
        # kept graph asks for; switched off, it says nothing and that backward is refused.
        donated_buffer=True,
        # An eager backward runs outside of the autocast that its forward ran under.
        backward_pass_autocast="off",
        # The gradient of a result mostly has the result's strides; a contiguous copy would be summed in another order.
        guess_tangent_strides_as_outputs=True,
    )
    # With this a random operator whose result nobody reads stays in the graph: it draws in the eager step, and what is
    # drawn after it depends on that.
    inductor = torch._inductor.config.patch(fallback_random=True)
    with functorch, inductor:
        yield


def _boxed(function: Callable[[list[Any]], Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def run(args: list[Any]) -> Any:
        return function(args)

    run._boxed_call = True  # type: ignore[attr-defined]
    return run


def _stands_for(*_: Any) -> Any:
    raise OutsizeError("a facade graph was run: only its metadata is meant to be read")


def _facades(step: CapturedStep) -> tuple[GraphModule, GraphModule]:
    """Graphs that tell AOTAutograd what goes in and out, and compute nothing."""
    forward, backward = Graph(), Graph()
    known: dict[object, Any] = {}
    for node in step.primals:
        known[node] = _placeholder(forward, node.name, node.meta.get("val"))
    results = [known[n] if n in known else _result(forward, n) for n in step.forward_outputs]
    witness = next(n.meta["val"] for n in step.primals if isinstance(n.meta.get("val"), torch.Tensor))
    # Recorded as an alias of an input, so that AOTAutograd never counts it as a buffer it may reuse.
    capsule = forward.call_function(_stands_for)
    capsule.meta["val"] = witness
    forward.output((*results, capsule))
    _placeholder(backward, "capsule", witness)
    for node in step.tangents:
        _placeholder(backward, node.name, node.meta["val"])
    backward.output(tuple(_result(backward, n) for n in step.backward_outputs))
    return GraphModule({}, forward), GraphModule({}, backward)


def _placeholder(graph: Graph, name: str, value: Any) -> Node:
    node = graph.placeholder(name)
    node.meta["val"] = value
    return node


def _result(graph: Graph, original: object) -> Any:
    if not isinstance(original, Node):
        return original
    node = graph.call_function(_stands_for)
    node.meta["val"] = original.meta.get("val")
    return node
