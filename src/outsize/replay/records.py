"""Operators of a forward that may have to run again, kept with the arguments that they had in this very step.

An argument that is a tensor is kept as a reference to its storage, by slot, and the view of it; what is there for the
whole step is kept itself, with its version. Numbers, flags and lists are what they were: a temperature that changes from
step to step is no constant.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten

from ..errors import MutationError
from ..runtime.saved import is_plain
from .program import Operator

__all__ = ["Record", "Wiring"]


@dataclass(frozen=True)
class _Reference:
    """A view of a storage of the step."""

    slot: int
    dtype: torch.dtype
    device: torch.device
    shape: torch.Size
    stride: tuple[int, ...]
    offset: int

    def over(self, storage: torch.UntypedStorage) -> Tensor:
        view = torch.empty(0, dtype=self.dtype, device=self.device)
        return view.set_(storage, self.offset, self.shape, self.stride)


@dataclass(frozen=True)
class _Resident:
    """A tensor that stays, whoever holds it."""

    tensor: Tensor
    version: int
    stale: bool

    def value(self) -> Tensor:
        if self.stale:  # the operator writes its next value there, once is enough
            return self.tensor.clone()
        if self.version >= 0 and self.tensor._version != self.version:
            raise MutationError(
                f"a tensor of shape {tuple(self.tensor.shape)} that the forward read was changed in place before the "
                f"backward could recompute what was made of it (version {self.tensor._version}, expected "
                f"{self.version}): change it after backward(), or leave 'recompute' out of actions="
            )
        return self.tensor.detach()


@final
class Record:
    """One operator, with its arguments."""

    def __init__(self, func: Any, leaves: list[Any], spec: Any, outputs: tuple[int, ...]) -> None:
        self._func, self._leaves, self._spec, self.outputs = func, leaves, spec, outputs

    def sources(self) -> set[int]:
        """Slots that it reads."""
        return {leaf.slot for leaf in self._leaves if isinstance(leaf, _Reference)}

    def run(self, storage: Callable[[int], torch.UntypedStorage]) -> dict[int, torch.UntypedStorage]:
        """Run it again: slot → storage of its results."""

        def value(leaf: Any) -> Any:
            if isinstance(leaf, _Reference):
                return leaf.over(storage(leaf.slot))
            return leaf.value() if isinstance(leaf, _Resident) else leaf

        # Some kernels look whether gradients are enabled (a recurrent layer makes a workspace only then). Nothing among
        # the arguments requires one, so autograd records nothing.
        with torch.enable_grad():
            args, kwargs = tree_unflatten([value(leaf) for leaf in self._leaves], self._spec)
            result = self._func(*args, **kwargs)
        tensors = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        return {s: t.untyped_storage() for s, t in zip(self.outputs, tensors) if s >= 0}


@final
class Wiring:
    """Which storage stands for which slot in this step, as far as operators that may run again are concerned."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[weakref.ref[torch.UntypedStorage], int]] = {}

    def note(self, result: Any, operator: Operator) -> None:
        """The results of an operator have the slots that were observed."""
        tensors = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        for slot, tensor in zip(operator.outputs, tensors):
            if slot in operator.made:
                storage = tensor.untyped_storage()
                self._known[storage._cdata] = (weakref.ref(storage), slot)

    def slot(self, storage: torch.UntypedStorage) -> int:
        """Of a storage, -1 where it is none that was noted."""
        reference, slot = self._known.get(storage._cdata, (None, -1))
        return slot if reference is not None and reference() is storage else -1

    def record(
        self,
        func: Any,
        args: Any,
        kwargs: Any,
        operator: Operator,
        kept: Callable[[int], bool],
    ) -> Record | None:
        """The operator with its arguments; None where they are not those that were observed.

        Args:
            kept: whether a slot is there when the operator runs again, without our doing.
        """
        leaves, spec = tree_flatten((args, kwargs))
        expected, values = iter(operator.inputs), []
        for leaf in leaves:
            if not isinstance(leaf, Tensor):
                values.append(leaf)
                continue
            slot = next(expected, -1)
            if slot < 0 or kept(slot):
                version = -1 if leaf.is_inference() else leaf._version
                values.append(_Resident(leaf, version, slot in operator.stale))
            elif not is_plain(leaf) or self.slot(leaf.untyped_storage()) != slot:
                return None
            else:
                where = (leaf.dtype, leaf.device, leaf.shape, leaf.stride(), int(leaf.storage_offset()))
                values.append(_Reference(slot, *where))
        return Record(func, values, spec, operator.outputs)
