"""What torch's own optimizers hold and take, seen on a twin: two steps on fake tensors, which have no bytes.

The first step makes the state, the second shows the temporary tensors. The twin is made from the class and from copies
of the plain values in the groups, so it shares nothing with the user's optimizer; its step is called without the hooks
that torch keeps for all optimizers of the process.
"""

from __future__ import annotations

import copy
import functools
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

__all__ = ["TORCHS", "bare_step", "plain_group", "state_sizes", "twin_bytes", "twin_class"]

#: Optimizers whose steps are torch's own code.
TORCHS = frozenset(
    kind
    for kind in vars(torch.optim).values()
    if isinstance(kind, type)
    and issubclass(kind, torch.optim.Optimizer)
    and kind is not torch.optim.Optimizer
)
_PLAIN = (bool, int, float, complex, str, type(None))
#: What a step that reads a value of its state is given: in the middle of a training, where RAdam rectifies.
_VALUE = 1000.5
#: What L-BFGS has at once beside its state, in vectors as long as all gradients: three on its own; a line search keeps
#: the start, the bracket's two gradients, the previous one and the new one as well.
_VECTORS, _VECTORS_IN_SEARCH = 3, 8


def twin_bytes(kind: type[torch.optim.Optimizer], groups: list[dict[str, Any]]) -> tuple[int, int] | None:
    """State and workspace, in bytes, of one of torch's optimizers over the parameters of `groups`.

    Returns:
        None where its step cannot be taken on fake tensors.
    """
    if kind is torch.optim.LBFGS:
        return _lbfgs(groups[0])
    with FakeTensorMode():
        for change in ({}, {"fused": None}, {"fused": None, "foreach": False}):
            try:
                return _measured(kind, [_copied(group) | _applied(change, group) for group in groups])
            except Exception:  # a kernel without a fake form: the unfused step holds the same state
                continue
    return None


def _measured(kind: type[torch.optim.Optimizer], groups: list[dict[str, Any]]) -> tuple[int, int]:
    twin = twin_class(kind)(groups)  # type: ignore[arg-type]
    step = bare_step(kind)
    with _Temporary() as temporary:
        step(twin)
        temporary.begin()
        step(twin)
    storages = {
        t.untyped_storage()._cdata: t.untyped_storage().nbytes()
        for t in tree_leaves([dict(state) for state in twin.state.values()])
        if isinstance(t, torch.Tensor)
    }
    return sum(storages.values()), temporary.peak


@functools.cache
def twin_class(kind: type[torch.optim.Optimizer]) -> Any:
    """The class without what its constructor does to the step of all its instances."""
    return type("Twin", (kind,), {"_patch_step_function": lambda self: None})


def state_sizes(
    kind: type[torch.optim.Optimizer], group: dict[str, Any], parameter: torch.Tensor
) -> tuple[int, ...]:
    """Bytes of each tensor that one of torch's optimizers keeps of a parameter; empty where that cannot be told."""
    alone = {**group, "params": [parameter]}
    key = (
        kind,
        repr(plain_group(group)),
        parameter.shape,
        parameter.stride(),
        parameter.dtype,
        parameter.device,
    )
    if key not in _SIZES:
        _SIZES[key] = _state_sizes(kind, alone)
    return _SIZES[key]


def _state_sizes(kind: type[torch.optim.Optimizer], group: dict[str, Any]) -> tuple[int, ...]:
    with FakeTensorMode():
        copied = _copied(group) | _applied({"fused": None, "foreach": False}, group)
        copied["params"][0].grad = torch.empty_like(copied["params"][0])
        try:
            twin = twin_class(kind)([copied])  # type: ignore[arg-type]
            with _Temporary():
                bare_step(kind)(twin)
        except Exception:  # as in `twin_bytes`: a kernel without a fake form
            return ()
        kept = [v for state in twin.state.values() for v in state.values() if isinstance(v, torch.Tensor)]
        return tuple(v.untyped_storage().nbytes() for v in kept)


_SIZES: dict[tuple[Any, ...], tuple[int, ...]] = {}


def plain_group(group: dict[str, Any]) -> dict[str, Any] | None:
    """A group's settings; None where one of them is no plain value, as a learning rate in a tensor."""
    settings = {k: v for k, v in group.items() if k not in ("params", "param_names", "initial_lr")}
    return settings if all(_is_plain(v) for v in settings.values()) else None


def bare_step(kind: type[torch.optim.Optimizer]) -> Callable[[Any], Any]:
    """The step without its hooks, which belong to the user."""
    step: Any = kind.step
    return step.__wrapped__ if getattr(step, "hooked", False) else step  # type: ignore[no-any-return]


def _applied(change: dict[str, Any], group: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in change.items() if key in group}


def _copied(group: dict[str, Any]) -> dict[str, Any]:
    """A group over other parameters. Its tensors become numbers, of which the sizes do not depend."""
    copied = {key: _plain(value) for key, value in group.items() if key not in ("params", "param_names")}
    copied = {key: copy.deepcopy(value) for key, value in copied.items() if _is_plain(value)}
    if copied.get("differentiable"):  # the step is the same, in the graph
        copied["differentiable"] = False
    if _runs_foreach(group):
        copied["foreach"] = True  # torch's choice for tensors, but not for fake ones
    copied["params"] = [_twin(p) for p in group["params"]]
    return copied


def _plain(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return 0.5  # within the bounds of any hyperparameter that may be a tensor: learning rates and betas
    if isinstance(value, (tuple, list)):
        return type(value)(_plain(v) for v in value) if type(value) in (tuple, list) else value
    return value


def _is_plain(value: Any) -> bool:
    if type(value) in (tuple, list):
        return all(_is_plain(v) for v in value)
    return isinstance(value, _PLAIN)


def _runs_foreach(group: dict[str, Any]) -> bool:
    """Whether torch updates all parameters of a group at once, with temporary tensors for all: its default on a GPU."""
    undecided = (
        group.get("foreach", False) is None and not group.get("fused") and not group.get("differentiable")
    )
    by_tensor = isinstance(group.get("lr"), torch.Tensor) and not group.get("capturable")
    return undecided and not by_tensor and all(p.is_cuda for p in group["params"])


def _twin(parameter: torch.Tensor) -> torch.Tensor:
    local = parameter.to_local() if hasattr(parameter, "to_local") else parameter  # a shard's own bytes
    twin = torch.empty(local.shape, dtype=local.dtype, device=local.device)
    if parameter.requires_grad or parameter.grad is not None:
        twin.grad = torch.empty_like(twin)
    return twin


def _lbfgs(group: dict[str, Any]) -> tuple[int, int]:
    """Its step asks for the values of the loss, which a twin does not have; its state is two vectors for each step of
    its history and two more, and three numbers."""
    moved = [p for p in group["params"] if p.requires_grad or p.grad is not None]
    vector = sum(p.numel() * p.element_size() for p in group["params"])
    number = max((p.element_size() for p in moved), default=0)
    history = int(group["history_size"])
    vectors = _VECTORS if group.get("line_search_fn") is None else _VECTORS_IN_SEARCH
    return (2 * history + 2) * vector + (2 * history + 1) * number, vectors * vector


class _Temporary(TorchDispatchMode):
    """Counts the bytes of the tensors that are made since `begin`, and their peak.

    A step that reads a value (its own counter, a norm) is given one: its sizes do not depend on it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.begin()

    def begin(self) -> None:
        """Count anew: what was made so far stays."""
        self.peak = self._alive = 0
        self._tensors: dict[int, int] = {}

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default:
            return _VALUE if args[0].is_floating_point() else int(_VALUE)
        given = {t.untyped_storage()._cdata for t in _tensors((args, kwargs))} - self._tensors.keys()
        result = func(*args, **(kwargs or {}))
        for tensor in _tensors(result):
            storage = tensor.untyped_storage()
            if storage._cdata not in given:  # neither a parameter nor a view of one
                self._note(storage._cdata, storage.nbytes(), tensor)
        return result

    def _note(self, key: int, nbytes: int, tensor: torch.Tensor) -> None:
        if key not in self._tensors:
            self._alive += nbytes
            self.peak = max(self.peak, self._alive)
        self._tensors[key] = self._tensors.get(key, 0) + 1
        weakref.finalize(tensor, self._gone, key, nbytes)

    def _gone(self, key: int, nbytes: int) -> None:
        if key in self._tensors:  # else it was made before `begin`
            self._tensors[key] -= 1
            if not self._tensors[key]:
                del self._tensors[key]
                self._alive -= nbytes


def _tensors(value: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, torch.Tensor)]
