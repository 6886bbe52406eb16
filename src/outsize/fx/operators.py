"""What is known of an ATen operator by its name, its schema and its arguments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

__all__ = ["CHECKPOINTS", "ZEROS", "argument", "casts_inside", "draws", "is_mutable", "is_named", "written"]

#: Operators that one does not want to redo: they head units (method 4).
CHECKPOINTS = (
    "convolution",
    "mm",
    "addmm",
    "bmm",
    "baddbmm",
    "_scaled_dot_product",
    "_grouped_mm",
    "_trilinear",
)
#: Kernels of torch's own that call products: found by running each operator with autocast on and off beneath it.
#: `_euclidean_dist` does too, but autocast runs `cdist` in float32 as a whole.
_CALLS_PRODUCTS = ("affine_grid_generator", "linalg_matrix_exp", "linalg_lstsq", "linalg_pinv", "_trilinear")
_TORCHS = frozenset(
    (
        "aten",
        "prims",
        "rngprims",
        "mkldnn",
        "quantized",
        "_quantized",
        "c10d",
        "_c10d_functional",
        "fsdp",
        "outsize",
    )
)
#: Operators whose results hold many zeros.
ZEROS = ("relu", "native_dropout", "masked_dropout", "threshold", "hardtanh", "clamp_min")


def is_named(target: object, names: Sequence[str]) -> bool:
    """Whether an operator has one of the names; one that begins with an underscore stands for all that begin with it."""
    if not isinstance(target, torch._ops.OpOverload):
        return False
    name = target._schema.name.split("::")[-1]
    return any(name == n or (n.startswith("_") and name.startswith(n)) for n in names)


def casts_inside(target: object) -> bool:
    """Whether its kernel calls operators that autocast casts, so that it computes otherwise where autocast is on: some of
    torch's own, and any that is not torch's and has no kernels for autocast."""
    if not isinstance(target, torch._ops.OpOverload) or target.namespace in _TORCHS:
        return is_named(target, _CALLS_PRODUCTS)
    has = torch._C._dispatch_has_kernel_for_dispatch_key
    return not (has(target.name(), "AutocastCPU") and has(target.name(), "AutocastCUDA"))


def draws(target: object, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """It takes random numbers; an attention that may drop out, but does so with probability 0, takes none."""
    if not isinstance(target, torch._ops.OpOverload) or torch.Tag.nondeterministic_seeded not in target.tags:
        return False
    return bool(argument(target, args, kwargs, "dropout_p") != 0)


def argument(target: torch._ops.OpOverload, args: Sequence[Any], kwargs: Mapping[str, Any], name: str) -> Any:
    """What is given for an argument, or its default; None where there is none of that name."""
    for place, wanted in enumerate(target._schema.arguments):
        if wanted.name == name:
            given = args[place] if place < len(args) else kwargs.get(name)
            return wanted.default_value if given is None else given
    return None


def is_mutable(target: object) -> bool:
    """Its schema says that it changes an argument in place."""
    return isinstance(target, torch._ops.OpOverload) and target._schema.is_mutable


def written(target: object, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Any]:
    """The arguments that the schema says are changed in place."""
    if not isinstance(target, torch._ops.OpOverload) or not target._schema.is_mutable:
        return []
    given = dict(zip((a.name for a in target._schema.arguments), args)) | dict(kwargs)
    return [
        given.get(a.name)
        for a in target._schema.arguments
        if a.alias_info is not None and a.alias_info.is_write
    ]
