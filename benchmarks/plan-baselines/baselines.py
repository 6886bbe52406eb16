"""What torch itself offers for recomputation, under our meter: bytes by position and FLOPs of the same step.

`partitioned` asks AOTAutograd's min-cut partitioner (`activation_memory_budget`, each of its knapsack solvers) and reads
its forward and backward back as one step: what it repeats are ordinary nodes there. `checkpointed` runs the eager step
on tensors without bytes, each block in `torch.utils.checkpoint`, and counts what is alive after each operator.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch._functorch import config
from torch._functorch.partitioners import min_cut_rematerialization_partition
from torch._subclasses.fake_tensor import FakeTensor
from torch.fx import Graph, GraphModule, Node
from torch.fx.passes.fake_tensor_prop import FakeTensorProp
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from outsize.capture import compiled_call
from outsize.capture.dropout import split_dropouts
from outsize.capture.graph import build_step
from outsize.fx.flops import call_flops
from outsize.values import StepGraph

SOLVERS = ("dp", "greedy", "ilp", "dp_knapsack_sliding_hirschberg")


class Joint:
    """The joint graph of a training step, as AOTAutograd hands it to a partitioner."""

    def __init__(self, module: nn.Module, args: tuple[Tensor, ...]) -> None:
        from torch._dynamo.backends.common import aot_autograd

        def take(graph: GraphModule, inputs: Any, *, num_fwd_outputs: int, **_: Any) -> Any:
            self.graph, self.inputs, self.outputs = graph, inputs, num_fwd_outputs
            raise _Taken

        taking = aot_autograd(fw_compiler=_none, bw_compiler=_none, partition_fn=take)
        try:
            compiled_call(module, _Backend(taking))(*args)  # type: ignore[arg-type]
        except Exception as error:
            if not hasattr(self, "graph"):
                raise error

    def _copy(self) -> GraphModule:
        return copy.deepcopy(self.graph)

    def plain(self) -> StepGraph:
        """The step as we capture it."""
        graph = self._copy()
        split_dropouts(graph)
        return self._step(graph)

    def _step(self, graph: GraphModule) -> StepGraph:
        return build_step(graph, num_primals=len(self.inputs[0]), num_forward_outputs=self.outputs).graph

    def partitioned(self, budget: float, solver: str) -> StepGraph:
        """The step that torch makes of it under an activation memory budget."""
        graph = self._copy()
        with (
            config.patch(activation_memory_budget=budget, activation_memory_budget_solver=solver),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            halves = min_cut_rematerialization_partition(graph, self.inputs, num_fwd_outputs=self.outputs)
        joined = _joined(*halves, outputs=self.outputs)
        values = [n.meta["val"] for n in joined.graph.nodes if n.op == "placeholder"]
        mode = next(v.fake_mode for v in values if isinstance(v, FakeTensor))
        FakeTensorProp(joined, mode=mode).propagate_dont_convert_inputs(*values)
        return self._step(joined)


class _Taken(Exception):
    pass


class _Backend:
    """What a call is compiled with, and the code objects that the call notes there."""

    casts_weights = False

    def __init__(self, made: Callable[..., Any]) -> None:
        self.made, self.codes = made, []  # type: ignore[var-annotated]

    def __call__(self, graph: GraphModule, example: Sequence[Any]) -> Any:
        return self.made(graph, example)


def _none(*_: Any) -> Any:
    raise AssertionError("nothing is compiled here")


def _joined(forward: GraphModule, backward: GraphModule, *, outputs: int) -> GraphModule:
    graph, made = Graph(), {}
    heads = [n for n in forward.graph.nodes if n.op == "placeholder"]
    heads += [n for n in backward.graph.nodes if n.op == "placeholder" and "tangents" in n.name]
    for node in heads:
        made[node.name] = graph.placeholder(node.name)
        made[node.name].meta = dict(node.meta)
    results: list[Any] = []
    for half in (forward, backward):
        known: dict[Node, Node] = {}
        for node in half.graph.nodes:
            if node.op == "placeholder":
                known[node] = made[node.name]
            elif node.op == "output":
                given = node.args[0][:outputs] if half is forward else node.args[0]
                results += [known[n] if isinstance(n, Node) else n for n in given]
            else:
                known[node] = graph.node_copy(node, known.__getitem__)
                if half is forward:
                    made[node.name] = known[node]
    graph.output(tuple(results))
    return GraphModule(forward, graph)


class _Meter(TorchDispatchMode):
    """Bytes of the storages alive after each operator, and the operators' FLOPs as `StepGraph` counts them."""

    def __init__(self, held: Sequence[Tensor]) -> None:
        super().__init__()
        self.alive: dict[int, tuple[StorageWeakRef, int]] = {}
        self.peak = self.flops = 0
        for tensor in held:
            self._note(tensor)

    def _note(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        self.alive[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = op(*args, **(kwargs or {}))
        self.alive = {k: kept for k, kept in self.alive.items() if not kept[0].expired()}
        leaves = [leaf for leaf in torch.utils._pytree.tree_leaves(result) if isinstance(leaf, Tensor)]
        fresh = [leaf for leaf in leaves if leaf.untyped_storage()._cdata not in self.alive]
        for leaf in leaves:
            self._note(leaf)
        self.peak = max(self.peak, sum(size for _, size in self.alive.values()))
        if fresh:
            self.flops += call_flops(op, args, kwargs or {}, result)
        return result


def checkpointed(module: nn.Module, args: tuple[Tensor, ...], blocks: Iterator[nn.Module]) -> tuple[int, int]:
    """Peak bytes and FLOPs of the eager step with these blocks checkpointed; module and args are fake."""
    for block in blocks:
        block.forward = _wrapped(block.forward)  # type: ignore[method-assign]
    with _Meter([*module.parameters(), *module.buffers(), *args]) as meter:
        result = module(*args)
        result.backward(torch.empty_like(result))
    return meter.peak, meter.flops


def _wrapped(forward: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *args: checkpoint(forward, *args, use_reentrant=False)
