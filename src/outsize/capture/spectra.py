"""Eigenvalues and singular values alone, by the kernels that the eager step takes.

`torch.linalg.eigvalsh`, `svdvals`, and what is made of them (`cond`, spectral and nuclear norms) compute vectors as well
where a gradient may ask for them, and whenever torch traces. LAPACK then takes another algorithm, and the values have
other last bits. So while torch traces the two ask as in eager: whether the tensor needs a gradient.

Private names used: `py_kernels` of an operator (set in `aot.py`), `aten._linalg_eigh` and `aten._linalg_svd`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

__all__ = ["VALUES_ALONE"]


def _with_vectors(tensor: torch.Tensor) -> bool:
    return torch.is_grad_enabled() and tensor.requires_grad


def _eigvalsh(tensor: torch.Tensor, UPLO: str = "L") -> torch.Tensor:
    values: torch.Tensor = torch.ops.aten._linalg_eigh(tensor, UPLO, _with_vectors(tensor))[0]
    return values


def _svdvals(tensor: torch.Tensor, *, driver: str | None = None) -> torch.Tensor:
    values: torch.Tensor = torch.ops.aten._linalg_svd(tensor, False, _with_vectors(tensor), driver=driver)[1]
    return values


#: What stands in for the two while torch traces.
VALUES_ALONE: dict[Any, Callable[..., torch.Tensor]] = {
    torch.ops.aten.linalg_eigvalsh.default: _eigvalsh,
    torch.ops.aten.linalg_svdvals.default: _svdvals,
}
