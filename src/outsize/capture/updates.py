"""What a forward writes when it has ended: buffers that it updates, inputs that it changes in place.

AOTAutograd makes every such change a result of the forward, and torch copies the results over the inputs afterwards. In
the graph an input therefore keeps the value that it had at the start; in memory it does not. Whoever reads it later than
the forward's end, the backward or a repeated op, sees the next value:

- an op may not be repeated then (the `outside` op of the step mutates the storage, so versions say it);
- where the backward itself reads the first value, the step copies it at the start. Eager PyTorch mostly refuses such a
  backward; where it does not, it had saved a value of its own.

Batch normalisation in training is no reader: it is given its running statistics only to compute the next ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.fx import GraphModule, Node

from ..fx import map_nodes, node_inputs

_STATISTICS = ("running_mean", "running_var")
_TRAINS = ("training", "train")
#: Batch normalisations that have no flag because they always train.
_ALWAYS = "_batch_norm_with_update"


def any_version(node: Node) -> list[Node]:
    """Inputs whose values do not matter to the results that a rerun keeps: running statistics in training."""
    target = node.target
    if not isinstance(target, torch._ops.OpOverload):
        return []
    given = dict(zip((a.name for a in target._schema.arguments), node.args)) | dict(node.kwargs)
    trains = any(given.get(name) is True for name in _TRAINS) or _ALWAYS in str(target)
    statistics = [given.get(name) for name in _STATISTICS] if trains else []
    return [n for n in statistics if isinstance(n, Node)]


def keep_old_values(module: GraphModule, updated: Sequence[Node], backward: Sequence[Node]) -> list[Node]:
    """Copy, at the start, every updated input whose first value the backward reads.

    Args:
        updated: placeholders that are written when the forward has ended.
        backward: the backward's nodes.

    Returns:
        The copies, which are part of the forward; the graph reads them in place of the inputs.
    """
    late = set(backward)
    read = {
        _bytes(source)
        for node in backward
        for source in node_inputs(node)
        if source not in late and source not in any_version(node)
    }
    computing = next(n for n in module.graph.nodes if n.op != "placeholder")
    copies = []
    for primal in updated:
        if _bytes(primal) in read:
            with module.graph.inserting_before(computing):
                copy = module.graph.call_function(torch.ops.aten.clone.default, (primal,))
            copies.append(copy)
            _read_instead(module, primal, copy)
    return copies


def _read_instead(module: GraphModule, primal: Node, copy: Node) -> None:
    """Views of the input become views of its copy, and what is recorded of them says so."""
    old = _bytes(primal)
    with torch.no_grad():
        copy.meta = dict(primal.meta, val=primal.meta["val"].clone())
        primal.replace_all_uses_with(
            copy, delete_user_cb=lambda user: user.op != "output" and user is not copy
        )
        for node in module.graph.nodes:
            if node.op == "call_function" and _bytes(node) == old:
                args, kwargs = map_nodes((node.args, node.kwargs), lambda n: n.meta["val"])
                node.meta["val"] = node.target(*args, **kwargs)


def _bytes(node: Node) -> Any:
    """What stands for the storage of a node's recorded tensor; the node itself where it is none."""
    value = node.meta.get("val")
    return value.untyped_storage()._cdata if isinstance(value, torch.Tensor) else node
