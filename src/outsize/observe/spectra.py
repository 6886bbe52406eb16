"""Eigenvalues and singular values alone, as the plain step computes them.

`torch.linalg.eigvalsh`, `svdvals`, and what is made of them compute vectors as well where a gradient may ask for them,
and under any dispatch mode. LAPACK then takes another algorithm, and the values have other last bits. A dispatch mode
sees the operator beneath only, which is the one of `eigh` and `svd` too; so the functions that people call are noted
here.
"""

from __future__ import annotations

from typing import Any, final

import torch
from torch.overrides import TorchFunctionMode

from ..fx import tensor_leaves
from ..fx.operators import is_named

__all__ = ["ValuesAlone"]

#: Functions that read values and drop vectors, by name: `Tensor.norm` and `torch.norm` are one here.
_FUNCTIONS = {
    "eigvalsh", "svdvals", "cond", "matrix_norm", "nuclear_norm", "norm",
    "linalg_eigvalsh", "linalg_svdvals", "linalg_cond", "linalg_matrix_norm", "linalg_norm",
}  # fmt: skip
#: The operators beneath, and the place of their argument that asks for vectors.
_OPERATORS = {"_linalg_eigh": 2, "_linalg_svd": 2}


@final
class ValuesAlone(TorchFunctionMode):
    """Knows whether such a function is running, of a tensor that needs no gradient."""

    def __init__(self) -> None:
        super().__init__()
        self._running = False

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__name__", None) not in _FUNCTIONS:
            return func(*args, **kwargs)
        read = tensor_leaves([*args, *kwargs.values()])
        before = self._running
        self._running = not (torch.is_grad_enabled() and any(t.requires_grad for t in read))
        try:
            return func(*args, **kwargs)
        finally:
            self._running = before

    def arguments(self, func: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """The arguments of an operator as the plain step gives them."""
        if not self._running or not is_named(func, tuple(_OPERATORS)):
            return args
        place = _OPERATORS[func._schema.name.removeprefix("aten::")]
        given = [*args, *(a.default_value for a in func._schema.arguments[len(args) : place + 1])]
        given[place] = False
        return tuple(given)
