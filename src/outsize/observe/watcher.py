"""The forward, operator by operator: a dispatch mode below autograd sees what runs, on which storages, for how long."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, final

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ..device.clock import now
from ..fx.flops import call_flops
from ..fx.operators import ZEROS, draws, is_mutable, is_named, written
from ..runtime.keeper import Keeper
from ..runtime.saved import is_plain
from .ledger import Ledger
from .record import Forward
from .spectra import ValuesAlone

__all__ = ["Gauge", "Watcher", "tensors_in"]

#: Arguments that batch normalisation reads in training only to compute their next values, though its schema does not
#: say that it changes them.
_STATISTICS = ("running_mean", "running_var")
#: They give memory as it comes: running them again gives other values.
_UNFILLED = ("empty", "new_empty", "empty_like", "empty_strided", "new_empty_strided", "empty_permuted")


class Gauge(ABC):
    """The memory meter of the step under way."""

    @property
    @abstractmethod
    def now(self) -> int:
        """Bytes of the step that are alive."""

    @abstractmethod
    def peak(self) -> int:
        """The highest since this was last asked."""


def tensors_in(values: Any) -> list[Tensor]:
    """The tensors among arguments or results, in order."""
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]


@final
class Watcher(TorchDispatchMode):
    """Notes each operator of a forward.

    Args:
        ledger: of the storages.
        gauge: of the bytes.
        known: bytes of the step that were alive when the forward began.
        keeper: of the same forward; what it does itself is not noted.
        give_way: called before each operator, so that there is room for it.
    """

    def __init__(
        self, ledger: Ledger, gauge: Gauge, known: int, keeper: Keeper, give_way: Callable[[int], None]
    ) -> None:
        super().__init__()
        self._keeper, self._give_way = keeper, give_way
        self.operators: list[Forward] = []
        #: Places of those that wrote what autograd had saved, without its version telling of it.
        self.rewriting: set[int] = set()
        self._ledger, self._gauge, self._known = ledger, gauge, known
        self._names: Counter[str] = Counter()
        self.values_alone = ValuesAlone()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs, ledger, place = kwargs or {}, self._ledger, len(self.operators)
        if self._keeper.inside:
            return func(*args, **kwargs)
        args = self.values_alone.arguments(func, args)
        given = tensors_in((args, kwargs))
        inputs = tuple(self._slot(t, f"input_{len(ledger.entries)}", -1) for t in given)
        ledger.place = place
        device = ledger.device
        self._gauge.peak()
        self._give_way(0)
        before, alive = self._gauge.now, ledger.alive
        begin = now(device)
        result = self._keeper.casting.run(func, args, kwargs)
        seconds = now(device) - begin
        peak = self._gauge.peak()
        seen = len(ledger.entries)
        name = self._named(func)
        zeros = is_named(func, ZEROS)
        outputs = tuple(self._slot(t, name, place, zeros=zeros) for t in tensors_in(result))
        made = tuple(range(seen, len(ledger.entries)))
        changes = written(func, args, kwargs)
        changed = tuple(dict.fromkeys(self._slots(changes)))
        if changed and self._wrote(changes):
            self.rewriting.add(place)
        self._note_uses(place, inputs, changed)
        stale = _statistics(func, args, kwargs)
        self.operators.append(
            Forward(
                target=func,
                name=name,
                inputs=inputs,
                outputs=outputs,
                made=made,
                changed=changed,
                stale=tuple(self._slots(stale)),
                signature=_signature(func, args, kwargs),
                flops=_flops(func, args, kwargs, result),
                random=draws(func, args, kwargs),
                effect=is_mutable(func)
                or "c10d" in str(func)
                or is_named(func, _UNFILLED)
                or self._keeper.casting.concerns(func)
                or not all(s >= 0 or self._ledger.is_resident(t) for s, t in zip(inputs, given)),
                seconds=seconds,
                workspace=max(0, peak - before - sum(ledger.entries[s].nbytes for s in made)),
                other=max(0, before - self._known - alive),
            )
        )
        return result

    def _slot(self, tensor: Tensor, name: str, born: int, *, zeros: bool = False) -> int:
        if not is_plain(tensor):
            return -1
        return self._ledger.enter(tensor, name, born, zeros=zeros).slot

    def _slots(self, values: Sequence[Any]) -> list[int]:
        found = (self._ledger.known(t) for t in tensors_in(values) if is_plain(t))
        return [entry.slot for entry in found if entry is not None]

    def _wrote(self, changes: Sequence[Any]) -> bool:
        self._keeper.inside = True  # copies of ours
        try:
            return self._keeper.wrote(tensors_in(changes))
        finally:
            self._keeper.inside = False

    def _note_uses(self, place: int, inputs: Sequence[int], changed: Sequence[int]) -> None:
        for slot in dict.fromkeys(s for s in inputs if s >= 0):
            self._ledger.entries[slot].uses.append(place)
        for slot in changed:
            self._ledger.entries[slot].changed.append(place)

    def _named(self, func: Any) -> str:
        base = func._schema.name.split("::")[-1] if isinstance(func, torch._ops.OpOverload) else str(func)
        self._names[base] += 1
        return f"{base}_{self._names[base]}" if self._names[base] > 1 else base


def _statistics(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> list[Any]:
    """Running statistics that a batch normalisation in training updates."""
    if not isinstance(func, torch._ops.OpOverload) or "batch_norm" not in func._schema.name:
        return []
    given = dict(zip((a.name for a in func._schema.arguments), args)) | kwargs
    trains = given.get("training") is True or given.get("train") is True or "_with_update" in str(func)
    return [given[n] for n in _STATISTICS if given.get(n) is not None] if trains else []


def _signature(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> str:
    def describe(value: Any) -> str:
        if isinstance(value, Tensor):
            strides = tuple(value.stride()) if value.layout is torch.strided else value.layout
            return f"{str(value.dtype)[6:]}{tuple(value.shape)}{strides}"
        if isinstance(value, (list, tuple)):
            return "[" + ",".join(map(describe, value)) + "]"
        return repr(value)

    parts = [describe(a) for a in args] + [f"{k}={describe(v)}" for k, v in sorted(kwargs.items())]
    return f"{func}({', '.join(parts)})"


def _flops(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> int:
    try:
        return call_flops(func, args, kwargs, result)
    except Exception:  # a formula of torch's that does not know these arguments
        return 0
