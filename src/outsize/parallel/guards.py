"""Against updates that would be lost without a word: parameters that are no longer the ones that were distributed, and
weights that are read while an update is half done.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import final

from torch import nn

from ..errors import ParallelError

__all__ = ["Idle", "Places"]


@final
class Idle:
    """Asked before a module's `state_dict()` is read: no update may be half done. Copies of the module ask nobody."""

    def __init__(self, ask: Callable[[], None] = lambda: None) -> None:
        self._ask = ask

    def __call__(self, *_: object) -> None:
        self._ask()

    def __reduce__(self) -> tuple[type[Idle], tuple[()]]:
        return Idle, ()


@final
class Places:
    """That the trainable parameters are still the ones, and where, they were when the module was distributed.

    `module.double()`, `p.data = ...` and `load_state_dict(assign=True)` put other memory or other parameters in their
    place, which nobody would update, without a word.

    Args:
        module: the module.
        names: of `params`.
        params: the trainable parameters.
        shared: whether they live in memory shared by the workers.
    """

    def __init__(
        self, module: nn.Module, names: Sequence[str], params: Sequence[nn.Parameter], shared: bool
    ) -> None:
        self._kept = [
            (name, p, p.dtype, p.data_ptr() if shared else None)
            for name, p in zip(names, params, strict=True)
        ]
        self._module = module
        self._owned: dict[str, list[tuple[str, nn.Parameter]]] = {}
        for name, p in zip(names, params, strict=True):
            path, _, attribute = name.rpartition(".")
            self._owned.setdefault(path, []).append((attribute, p))

    def check_memory(self) -> None:
        """Raise if a parameter has moved or changed its type."""
        for name, p, dtype, address in self._kept:
            if p.dtype != dtype or (address is not None and p.data_ptr() != address):
                raise ParallelError(
                    f"{name} has been moved or converted since distribute() ({dtype} then, {p.dtype} now), so its "
                    "updates would be lost: do that before distribute(), and change values with copy_()"
                )

    def check_identity(self) -> None:
        """Raise if another parameter has taken the name of one."""
        for path, owned in self._owned.items():
            there = self._module.get_submodule(path)._parameters
            for attribute, p in owned:
                if there.get(attribute, p) is not p:
                    raise ParallelError(
                        f"{path}.{attribute} is another parameter than when the module was distributed, so "
                        "nobody updates it: load with load_state_dict(assign=False), replace layers before distribute()"
                    )
