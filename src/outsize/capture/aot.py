"""The one file that touches torch's private API: Dynamo and AOTAutograd in, a joint graph and a program out.

AOTAutograd wants two graphs from a partitioner: a forward that returns its results and the tensors to save, and a
backward that takes those. The engine keeps what it saves to itself, because a plan may change from step to step:
the forward graph handed to AOTAutograd returns its results and one *capsule*, a one-element tensor whose storage owns
everything that the backward needs. When autograd lets go of the capsule, swapped blocks go with it.

Tested with torch 2.13.0 on the CPU; tried with 2.11.0 on CUDA. Private names used: `torch._dynamo` (config, exc,
backends.common.aot_autograd), `torch._functorch` (config, the partitioner's calling convention), `torch._C._autograd`
(whether the running backward keeps its graph).
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import re
import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import CodeType
from typing import Any, final

import numpy as np
import torch
from torch.fx import Graph, GraphModule, Node

from ..errors import CaptureError, OutsizeError, VersionError
from ..fx import CapturedStep, Program
from .dropout import split_dropouts
from .graph import build_step

TESTED_TORCH = ("2.13",)
#: Set, it lets any torch be tried.
TRY_TORCH = "OUTSIZE_TRY_TORCH"
#: Graphs of one module (shapes, modes); torch's own default, 8, is less than a bucketed data set has lengths.
MOST_SHAPES = 256


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
        self.graphs = 0

    def __call__(self, module: GraphModule, example_inputs: Sequence[Any], **_: Any) -> Callable[..., Any]:
        from torch._dynamo.backends.common import aot_autograd

        self.graphs += 1
        backend = aot_autograd(
            fw_compiler=self._forward,
            bw_compiler=self._backward,
            inference_compiler=self._inference,
            partition_fn=self._partition,
        )
        # Left on, AOTAutograd finds no buffer to reuse (see `_facades`) and says so, which a second backward over a
        # kept graph asks for; switched off, it says nothing and that backward is refused.
        with torch._functorch.config.patch(donated_buffer=True), _trainable_lstm(), _eager_kernels():
            return backend(module, example_inputs)

    def _partition(
        self, joint: GraphModule, inputs: Any, *, num_fwd_outputs: int, **_: Any
    ) -> tuple[GraphModule, GraphModule]:
        split_dropouts(joint)
        step = build_step(joint, num_primals=len(inputs[0]), num_forward_outputs=num_fwd_outputs)
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


@contextlib.contextmanager
def _trainable_lstm() -> Iterator[None]:
    """Decompose an LSTM step by step: torch 2.13 otherwise picks oneDNN's inference kernel, which has no backward,
    whenever the layer's input needs no gradient."""
    from torch._decomp import decompositions

    inference = decompositions.mkldnn_one_layer_lstm
    decompositions.mkldnn_one_layer_lstm = decompositions.one_layer_lstm
    try:
        yield
    finally:
        decompositions.mkldnn_one_layer_lstm = inference


#: Operators that torch traces through a Python stand-in whose numbers are not those of its own kernel.
_STAND_INS = ("upsample_", "_upsample_", "multi_margin_loss", "multilabel_margin_loss_forward")
_STAND_IN_KEYS = (torch._C.DispatchKey.Autograd, torch._C.DispatchKey.CompositeImplicitAutograd)


@contextlib.contextmanager
def _eager_kernels() -> Iterator[None]:
    """Trace the operators that an eager step would run.

    Torch's compilers take interpolation apart into gathers, which round differently and keep a dozen tensors where the
    kernel keeps none, and multiply a dropout by its scale where the eager one divides its mask.
    """
    aten = torch.ops.aten
    lifted: list[tuple[Any, Any, Any]] = []
    for name in torch._decomp.decomposition_table:
        kernels = getattr(name, "py_kernels", {})
        if str(name).startswith(tuple(f"aten.{prefix}" for prefix in _STAND_INS)):
            lifted += [(name, key, kernels.pop(key)) for key in _STAND_IN_KEYS if key in kernels]
    dropout = aten.dropout.default
    lifted += [(dropout, key, dropout.py_kernels[key]) for key in _STAND_IN_KEYS]
    dropout.py_kernels.update(dict.fromkeys(_STAND_IN_KEYS, _dropout))
    for operator, _, _ in lifted:
        operator._dispatch_cache.clear()
    try:
        yield
    finally:
        for operator, key, kernel in lifted:
            operator.py_kernels[key] = kernel
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


def compiled_call(module: torch.nn.Module, backend: Backend) -> Callable[..., Any]:
    """The module's call, traced whole: what `module._compiled_call_impl` is set to, so that keys stay as they are.

    Inlined through a frame of this file, because Dynamo skips the frames of torch's own containers and would
    otherwise leave an `nn.Sequential` or an `nn.LSTM` uncompiled.
    """
    reference = weakref.ref(module)  # what the module runs must not keep it

    def whole(module: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
        return module._call_impl(*args, **kwargs)

    whole_step, bare_steps = _traced(whole, backend), dict[Any, Callable[..., Any]]()

    def run(*args: Any, **kwargs: Any) -> Any:
        module = reference()
        assert module is not None  # it is being called
        with dynamo_settings():
            if module._backward_hooks or module._backward_pre_hooks:
                return around(module, args, kwargs)
            return whole_step(module, *args, **kwargs)

    def around(module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        # Hooks on the module's own backward stand around its graph, where autograd can call them.
        replaced = module.__dict__.get("forward")  # some libraries put another one on the instance
        forward = replaced or type(module).forward
        if replaced not in bare_steps:
            bare_steps[replaced] = _traced(lambda *a, **k: forward(*a, **k), backend)
        bare = bare_steps[replaced]
        module.__dict__["forward"] = bare if replaced else functools.partial(bare, module)
        try:
            return module._call_impl(*args, **kwargs)
        finally:
            del module.__dict__["forward"]
            if replaced is not None:
                module.__dict__["forward"] = replaced

    return run


def _traced(function: Callable[..., Any], backend: Backend) -> Callable[..., Any]:
    # Dynamo keeps what it compiled, and counts shapes, on the code object: each module needs its own.
    function.__code__ = function.__code__.replace()
    backend.codes.append(function.__code__)
    return torch.compile(function, backend=backend, dynamic=False, fullgraph=True)


_LOGS = {"debug", "info", "warning", "error", "exception", "critical", "log"}


def _logging() -> set[Any]:
    """What writes logs, `warning_once` and the like that libraries add to loggers included.

    A log is no part of the step: it is left out where it stands in a forward, rather than break the graph.
    """
    return {f for name, f in vars(logging.Logger).items() if callable(f) and name.split("_")[0] in _LOGS}


@contextlib.contextmanager
def dynamo_settings() -> Iterator[None]:
    """Dynamo's switches while a module under plan is traced or run; its refusals come out as `CaptureError`.

    Raises:
        CaptureError: a graph break or an operator that cannot be captured, with its place in the user's code.
    """
    from torch._dynamo import config, exc

    try:
        with config.patch(
            allow_rnn=True,
            recompile_limit=MOST_SHAPES,
            fail_on_recompile_limit_hit=True,
            ignore_logging_functions=_logging(),
        ):
            yield
    except exc.BackendCompilerFailed as error:
        if isinstance(error.inner_exception, OutsizeError):
            raise error.inner_exception from None
        raise
    except (exc.Unsupported, exc.UserError) as error:
        raise CaptureError(
            f"the module cannot be captured as one graph: {_short(str(error))}\n{_advice(str(error))}"
        ) from error
    except exc.FailOnRecompileLimitHit as error:
        raise CaptureError(
            f"the module was called with more than {MOST_SHAPES} different shapes, modes or Python numbers, and "
            "each needs a plan of its own: pad the inputs to fewer sizes, and hand numbers that change (a counter, "
            "a temperature) over as tensors"
        ) from error


#: What to do instead, by what Dynamo's message holds.
_ADVICE = {
    "multi_head_attention_forward": "Torch looks into a mask to see whether it is causal: say so, as in "
    "nn.Transformer()(…, tgt_is_causal=True) or nn.TransformerEncoder()(…, is_causal=False).",
    "backwards hooks": "Register the hook on the compiled module itself, or on a tensor: tensor.register_hook(f).",
    "ynamic shape operator": "That operator's result has a size that depends on data, and a plan needs sizes before it "
    "runs: use a masked form (torch.where, masked_fill, one_hot with num_classes), or move it out of forward().",
    "ata-dependent": "Use torch.where in place of the branch, keep .item() and Python's if out of forward(), or give "
    "outsize.compile the submodules around that place.",
}


def _advice(message: str) -> str:
    found = next((text for key, text in _ADVICE.items() if key in message), None)
    return found or "Move that code out of forward(), or give outsize.compile the submodules around it."


#: What stands before frames in Dynamo's messages, and what stands before that which its developers want to know.
_FRAMES = re.compile(r"from user code:|User Stack \(most recent call last\):")
_APPENDIX = re.compile(
    "Set TORCHDYNAMO_VERBOSE|Developer debug context|consider using data-dependent|For C\\+\\+ stack|For more information"
)


def _short(message: str) -> str:
    """Dynamo's message without its developer appendix: what it met, and where in the user's code."""
    what, *where = (_APPENDIX.split(section)[0].strip() for section in _FRAMES.split(message))
    lines = [line for line in what.splitlines() if line.strip() and not line.strip().startswith("Hint:")]
    frames = list(dict.fromkeys(f"File {f.strip()}" for w in where for f in w.split("File ")[1:]))
    inside = tuple(f'"{Path(file).parent}' for file in (torch.__file__, __file__))
    users = [f for f in frames if not f.removeprefix("File ").startswith(inside)]
    return "\n".join([*lines, *(users or frames)[-3:]])
