"""A tensor whose bytes are in a tier: what an optimizer's state holds in the place of one that rests there.

An emptied tensor would be read as garbage, or end the process. This one knows its shape and where its bytes are. Who
reads it gets them: an operator, a copy, a print, `torch.save` work on a tensor that is fetched for them and let go of.
What would change it, or hand out a view through which it could be changed, is an error.

Private names of torch: `Tensor._make_wrapper_subclass` (2.11 to 2.15), the documented way to a tensor without storage.
"""

from __future__ import annotations

from typing import Any, final

import torch
from torch.utils._pytree import tree_map

from ..errors import OutsizeError
from .tiers import Arrival, Block, Tier

__all__ = ["Away", "Spent"]


@final
class Away(torch.Tensor):
    """Stands for a tensor with the shape, strides, dtype and device of `like`, whose storage is a block of a tier."""

    #: Read by whoever counts bytes on the device: there are none.
    is_away = True
    tier: Tier
    block: Block

    @staticmethod
    def __new__(cls, tier: Tier, block: Block, like: torch.Tensor) -> Away:
        made: Away = torch.Tensor._make_wrapper_subclass(
            cls, like.shape, strides=like.stride(), dtype=like.dtype, device=like.device
        )
        made.tier, made.block = tier, block
        return made

    def __init__(self, tier: Tier, block: Block, like: torch.Tensor) -> None:
        pass

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    def read(self) -> Arrival:
        """Start to bring the bytes back, into a new storage."""
        return self.tier.read(self.block)

    def over(self, flat: torch.Tensor) -> torch.Tensor:
        """The tensor over the bytes that have come back."""
        return flat.view(self.dtype).as_strided(self.shape, self.stride())

    def again(self) -> Away:
        """Another one over the same bytes."""
        return Away(self.tier, self.block, self)

    def fetched(self) -> torch.Tensor:
        """A tensor with these values, for whoever asks."""
        return self.over(self.read().wait())

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is torch.ops.aten.detach.default:  # the same values, as unchangeable
            return args[0].again()
        given = dict(zip((a.name for a in func._schema.arguments), args)) | (kwargs or {})
        for argument in func._schema.arguments:
            if argument.alias_info is not None and _holds(given.get(argument.name)):
                raise _refusal(func.name().removeprefix("aten::"))
        fetched: dict[int, torch.Tensor] = {}

        def present(value: Any) -> Any:
            if not isinstance(value, Away):
                return value
            if id(value) not in fetched:
                fetched[id(value)] = value.fetched()
            return fetched[id(value)]

        return func(*tree_map(present, args), **tree_map(present, kwargs or {}))

    # What torch does to a tensor without an operator.

    def to(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        return self.fetched().to(*args, **kwargs)

    def cpu(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        return self.fetched().cpu(*args, **kwargs)

    def numpy(self, *, force: bool = False) -> Any:
        return self.fetched().numpy(force=force)

    def tolist(self) -> Any:
        return self.fetched().tolist()

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return repr(self.fetched())

    def __deepcopy__(self, memo: dict[int, Any]) -> torch.Tensor:
        memo[id(self)] = copied = self.fetched()
        return copied

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.fetched().__reduce_ex__(protocol)

    def untyped_storage(self) -> torch.UntypedStorage:
        raise _refusal("untyped_storage")

    def data_ptr(self) -> int:
        raise _refusal("data_ptr")

    def share_memory_(self) -> torch.Tensor:
        raise _refusal("share_memory_")

    @property
    def data(self) -> torch.Tensor:
        return self.again()

    @data.setter
    def data(self, _: torch.Tensor) -> None:
        raise _refusal("data")


@final
class Spent(torch.Tensor):
    """Stands in `parameter.grad` for a gradient that its update has used in the backward: whoever touches it wanted to
    clip, scale, sum or look at what is gone. `optimizer.zero_grad()` takes it away."""

    is_away = True

    @staticmethod
    def __new__(cls, like: torch.Tensor) -> Spent:
        made: Spent = torch.Tensor._make_wrapper_subclass(
            cls, like.shape, strides=like.stride(), dtype=like.dtype, device=like.device
        )
        return made

    def __init__(self, like: torch.Tensor) -> None:
        pass

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = func.name().removeprefix("aten::")
        raise OutsizeError(
            f"{name} of a gradient that is gone: residents='fuse' has updated its parameter in the backward already. To "
            "clip, scale, sum or look at gradients between backward and step, compile with residents='move'"
        )

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"<a gradient of shape {tuple(self.shape)} that its update has used>"


def _holds(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return any(isinstance(v, Away) for v in value)
    return isinstance(value, Away)


def _refusal(name: str) -> OutsizeError:
    return OutsizeError(
        f"{name} of an optimizer's state that rests on a tier: it can be read and copied there, and not be changed or "
        "viewed. Do it under `with outsize.resident(module):`, which brings all of it back"
    )
