"""The nodes of autograd's graph that a forward has made, found from what it returned."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

__all__ = ["nodes_of", "tensors_of"]

#: Objects inside of objects that a result is looked through for tensors.
_DEEPEST = 6


def tensors_of(value: Any) -> list[Tensor]:
    """The tensors of a result, whatever it is: nested containers, mappings, dataclasses, objects with attributes."""
    found: dict[int, Tensor] = {}
    seen: set[int] = set()

    def look(item: Any, depth: int) -> None:
        if isinstance(item, Tensor):
            found[id(item)] = item
            return
        if item is None or isinstance(item, (str, bytes, int, float, type)) or depth > _DEEPEST:
            return
        if id(item) in seen or isinstance(item, torch.nn.Module):
            return
        seen.add(id(item))
        for part in _parts(item):
            look(part, depth + 1)

    look(value, 0)
    return list(found.values())


def _parts(item: Any) -> Iterator[Any]:
    if isinstance(item, Mapping):
        yield from item.values()
    elif isinstance(item, (list, tuple, set, frozenset)):
        yield from item
    else:
        leaves = tree_leaves(item)
        if len(leaves) != 1 or leaves[0] is not item:
            yield from leaves
    yield from getattr(item, "__dict__", {}).values()


def nodes_of(results: Iterable[Tensor], inputs: Iterable[Tensor]) -> list[Any]:
    """The nodes between the results and the inputs, those that add gradients up for parameters among them."""
    known: set[Any] = {t.grad_fn for t in inputs if t.grad_fn is not None}
    stack: list[Any] = [t.grad_fn for t in results if t.grad_fn is not None]
    found = []
    while stack:
        node = stack.pop()
        if node is None or node in known:
            continue
        known.add(node)
        found.append(node)
        stack += [following for following, _ in node.next_functions]
    return found
