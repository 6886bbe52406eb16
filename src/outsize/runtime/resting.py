"""A parameter whose bytes rest on a tier: the same object, which is whole again as soon as somebody reads it.

Between steps the object stands for its bytes: another tensor is behind it, which has shape, dtype and device and no
storage. Python code that touches it brings the bytes back first, and from then on it is what it was. Code that comes
past Python (a functional transform, an operator in C++) is handed a tensor that was read for it; what would change that,
or hand out a view of it, is an error.

For the compiled step the object is an ordinary parameter again, so that nothing is compiled anew, but over an empty
storage: the step's graph fetches the bytes into tensors of its own and never reads it.

Private names of torch (2.11 to 2.15): `Tensor._make_wrapper_subclass`; `_C._swap_tensor_impl`, by which the public
`torch.utils.swap_tensors` works, which refuses tensors that anybody refers to weakly; `_C._storage_Use_Count`;
`_C._set_throw_on_mutable_data_ptr`, which makes a read of the missing bytes an error.
"""

from __future__ import annotations

import copy
import enum
import weakref
from collections.abc import Mapping
from typing import Any, final

import torch
from torch.utils._pytree import tree_map

from ..errors import OutsizeError
from .tiers import Block, Tier

__all__ = ["ParameterHome", "Resting", "is_shared"]

_T = torch.Tensor
_GETTERS = (
    "shape", "dtype", "device", "layout", "requires_grad", "grad", "grad_fn", "is_leaf", "ndim", "is_cuda", "is_cpu",
    "is_sparse", "is_quantized", "is_meta", "is_nested", "itemsize", "nbytes", "_backward_hooks",
    "_post_accumulate_grad_hooks",
)  # fmt: skip
#: What needs no bytes.
_FACTS = frozenset(
    [getattr(_T, name).__get__ for name in _GETTERS]
    + [_T.size, _T.numel, _T.nelement, _T.dim, _T.ndimension, _T.stride, _T.storage_offset, _T.element_size]
    + [
        _T.is_contiguous,
        _T.is_floating_point,
        _T.is_complex,
        _T.is_inference,
        _T.get_device,
        _T.is_conj,
        _T.is_neg,
    ]
    + [_T.__len__, _T.is_shared, _T.is_same_size, _T.type]
)
_VERSION: Any = _T._version.__get__  # type: ignore[attr-defined]
#: Parameters that stand for their bytes just now, by `id`.
_HOMES: weakref.WeakValueDictionary[int, ParameterHome] = weakref.WeakValueDictionary()


class _Where(enum.Enum):
    """Here, in the tier under an empty parameter, or in the tier under one that stands for it."""

    HERE = enum.auto()
    EMPTY = enum.auto()
    AWAY = enum.auto()


def is_shared(tensor: torch.Tensor) -> bool:
    """Whether somebody else holds its bytes, or it is not all of them: a view, a `.data`, an array over them."""
    storage = tensor.untyped_storage()
    whole = storage.nbytes() == tensor.numel() * tensor.element_size()
    return not whole or torch._C._storage_Use_Count(storage._cdata) > 2  # the tensor, and `storage`


class Resting(torch.nn.Parameter):
    """The class of a parameter that stands for its bytes."""

    #: Read by whoever counts bytes on the device: there are none.
    is_away = True

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        if func == _VERSION:
            return _home(args[0]).version
        if func not in _FACTS:
            tree_map(_bring, (args, given))
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **given)

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = dict(zip((a.name for a in func._schema.arguments), args)) | (kwargs or {})
        changed = [
            a.name for a in func._schema.arguments if a.alias_info is not None and a.alias_info.is_write
        ]
        if func is torch.ops.aten.set_.source_Tensor or any(_holds(given.get(name)) for name in changed):
            raise OutsizeError(
                f"{func.name().removeprefix('aten::')} of a parameter that rests on a tier: do it under "
                "`with outsize.resident(module):`, which brings all of them back"
            )
        fetched: dict[int, torch.Tensor] = {}

        def present(value: Any) -> Any:
            if not isinstance(value, Resting):
                return value
            if id(value) not in fetched:
                fetched[id(value)] = _home(value).read()
            return fetched[id(value)]

        return func(*tree_map(present, args), **tree_map(present, kwargs or {}))

    # These make another of the same class: first it is what it was.

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return copy.deepcopy(_bring(self), memo)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return _bring(self).__reduce_ex__(protocol)

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return repr(_bring(self))


def _home(parameter: torch.Tensor) -> ParameterHome:
    home = _HOMES.get(id(parameter))
    if home is None:
        raise OutsizeError("the bytes of a parameter are gone with the module that they belonged to")
    return home


def _bring(value: Any) -> Any:
    if type(value) is Resting:
        _home(value).bring()
    return value


def _holds(value: Any) -> bool:
    return isinstance(value, Resting) or (
        isinstance(value, (list, tuple)) and any(isinstance(v, Resting) for v in value)
    )


@final
class ParameterHome:
    """One parameter that nobody trains: its bytes are on the device or in a tier.

    Args:
        parameter: held weakly.
        name: in the module.
        tiers: by name; it rests in the first.
    """

    def __init__(self, parameter: torch.nn.Parameter, *, name: str, tiers: Mapping[str, Tier]) -> None:
        self._parameter = weakref.ref(parameter)
        self._id, self._where = id(parameter), _Where.HERE
        self.name, self.nbytes = name, parameter.numel() * parameter.element_size()
        self.dtype, self._shape, self._stride = parameter.dtype, tuple(parameter.shape), parameter.stride()
        self._tiers = tiers
        self._block: tuple[Tier, Block] | None = None
        #: What is behind the parameter when the parameter itself is not, and what it is then.
        self._behind: Any = None
        self._empty: torch.Tensor | None = None
        #: How often torch had counted a change in place when it went to rest.
        self.version = parameter._version

    @property
    def parameter(self) -> torch.nn.Parameter | None:
        return self._parameter()

    @property
    def here(self) -> bool:
        """Whether its bytes are on the device."""
        return self._where is _Where.HERE

    @property
    def block(self) -> tuple[Tier, Block]:
        """Where they rest."""
        assert self._block is not None
        return self._block

    def rest(self) -> None:
        """To the tier; the parameter is empty. Whatever it was on the device, somebody may have changed it there."""
        parameter = self.parameter
        if parameter is None or not self.here:
            return
        self.renew()
        with torch.no_grad():
            if self._empty is None:
                parameter.data = torch.empty(0, dtype=self.dtype, device=parameter.device)
                self._empty = torch.empty_strided(
                    self._shape, self._stride, dtype=self.dtype, device=parameter.device
                )
                self._empty.untyped_storage().resize_(0)
            parameter.data = self._empty
        self.version, self._where = parameter._version, _Where.EMPTY

    def renew(self) -> None:
        """The tier has the bytes that are on the device now."""
        parameter = self.parameter
        if parameter is None or not self.here:
            return
        tier = next(iter(self._tiers.values()))
        block = tier.write(parameter.untyped_storage())
        block.settle()
        self._block = (tier, block)

    def stand_in(self) -> None:
        """The empty parameter stands for its bytes."""
        parameter = self.parameter
        if parameter is None or self._where is not _Where.EMPTY:
            return
        if self._behind is None:
            self._behind = _T._make_wrapper_subclass(
                Resting, self._shape, strides=self._stride, dtype=self.dtype, device=parameter.device
            )
            torch._C._set_throw_on_mutable_data_ptr(self._behind)
        try:
            self._swap(parameter)
        except RuntimeError:  # C++ code refers to it weakly, and would find the other tensor
            self.bring()
            return
        _HOMES[self._id] = self
        self._where = _Where.AWAY

    def step_back(self) -> None:
        """It is an empty parameter again, for a compiled step."""
        parameter = self.parameter
        if parameter is None or self._where is not _Where.AWAY:
            return
        self._swap(parameter)
        self._where = _Where.EMPTY
        _HOMES.pop(self._id, None)

    def _swap(self, parameter: Any) -> None:
        behind = self._behind
        torch._C._swap_tensor_impl(parameter, behind)
        parameter.__class__, behind.__class__ = type(behind), type(parameter)

    def read(self) -> torch.Tensor:
        """A tensor with its values, beside the parameter."""
        tier, block = self.block
        return tier.read(block).wait().view(self.dtype).as_strided(self._shape, self._stride)

    def bring(self) -> None:
        """To the device.

        Raises:
            TierError: it cannot be read back; it stays where it is.
            OutsizeError: C++ code refers to it weakly, as a trace under way does.
        """
        parameter = self.parameter
        if parameter is None or self.here:
            return
        values = self.read()
        try:
            self.step_back()
        except RuntimeError as error:
            raise OutsizeError(
                f"the parameter {self.name} rests on a tier and cannot be brought back in the middle of this: do it "
                "under `with outsize.resident(module):`"
            ) from error
        with torch.no_grad():
            parameter.data = values
        self._where, self._block = _Where.HERE, None
