"""How a sum of gradients becomes new parameters, on one worker's slices.

A rule is told once per step what the hyperparameters are, then handed tables of runs (see `update.c`) and
where the gradients lie. SGD, Adam and AdamW run in the C module, which sums over the workers in the same
pass; what other optimizers need is in `generic`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import numpy.typing as npt
import torch

from .. import native
from ..errors import ParallelError

Table = npt.NDArray[np.int64]
Addresses = npt.NDArray[np.uint64]

#: Columns of a table row, in elements; `HYPER` is the slot; `OWN` an address (0: read what was staged).
FLAT, STAGED, LENGTH, HYPER, OUT, OWN = range(6)
_RULES = {torch.optim.SGD: 0, torch.optim.Adam: 1, torch.optim.AdamW: 2}
_SUM = 3
#: Options that mean something only for torch's own loops over tensors.
_IGNORED = {"foreach", "fused"}


@dataclass(frozen=True, kw_only=True)
class Memory:
    """One element type's part of the arena: flat tensors over all its slots.

    Attributes:
        param: what the modules' parameters are views of.
        master: fp32 (fp64 for double) parameters that the rule updates; `param` itself where that is exact.
        state: the rule's elementwise state, by name, of the master's type.
        total: summed gradients kept until `step()` (deferred update), else None.
    """

    param: torch.Tensor
    master: torch.Tensor
    state: Mapping[str, torch.Tensor]
    total: torch.Tensor | None

    @property
    def half(self) -> bool:
        return self.master is not self.param


def master_type(dtype: torch.dtype) -> torch.dtype:
    """The type that sums and updates are made in."""
    return torch.float64 if dtype == torch.float64 else torch.float32


class Rule(ABC):
    """Updates runs of one space from gradients in memory."""

    #: Whether the rule can sum several workers' staged gradients itself, in one pass with the update.
    fuses: bool

    @abstractmethod
    def begin(self, groups: Sequence[Mapping[str, Any]], group_of: Sequence[int], steps: np.ndarray) -> None:
        """Take the hyperparameters for the step after `steps[slot]` updates of each slot."""

    @abstractmethod
    def update(self, rows: Table, sources: Addresses, own: int, half: bool, scale: float) -> None:
        """Update the runs from `scale` times the sum of the gradients at `sources` (one per worker).

        `own` is the place of this worker among the sources, for rows with an `OWN` address.
        """


@final
class NativeRule(Rule):
    """SGD, Adam and AdamW in the C module: fp32 arithmetic, sums in the order of the workers."""

    fuses = True

    def __init__(self, kind: type[torch.optim.Optimizer], memory: Memory, slots: int) -> None:
        self._kind, self._memory = kind, memory
        self._hyper = np.zeros((slots, 8))
        self._level = -1

    def begin(self, groups: Sequence[Mapping[str, Any]], group_of: Sequence[int], steps: np.ndarray) -> None:
        owner = np.asarray(group_of)
        for index, group in enumerate(groups):
            mine = owner == index
            if self._kind is torch.optim.SGD:
                self._hyper[mine] = _sgd_rows(group, steps[mine])
            else:
                self._hyper[mine] = _adam_rows(group, steps[mine])

    def update(self, rows: Table, sources: Addresses, own: int, half: bool, scale: float) -> None:
        if len(rows) == 0:
            return
        memory, states = self._memory, [t.data_ptr() for t in self._memory.state.values()]
        first, second = (states + [0, 0])[:2]
        assert native.kernels is not None
        native.kernels.reduce(
            _RULES[self._kind], rows.ctypes.data, len(rows), sources.ctypes.data, len(sources), own, half, scale,
            self._hyper.ctypes.data, memory.master.data_ptr(), first, second,
            memory.param.data_ptr() if memory.half else 0, self._level,
        )  # fmt: skip


def add_up(
    rows: Table, sources: Addresses, own: int, dtype: torch.dtype, scale: float, out: torch.Tensor
) -> float:
    """Write `scale` times the sum over `sources` of each run to `out[row[OUT]:]`; return its sum of squares.

    Args:
        rows: runs; `STAGED` is the offset in every source, `OUT` the one in `out`.
        sources: one address per worker.
        own: this worker's place among them, for rows with an `OWN` address.
        dtype: of the sources. fp32 and bf16 are summed in fp32 by the C module, others by torch.
        out: flat; bf16 only if the sources are.
    """
    if len(rows) == 0:
        return 0.0
    if dtype in (torch.float32, torch.bfloat16):
        assert native.kernels is not None
        half_out = out.dtype == torch.bfloat16
        return float(
            native.kernels.reduce(
                _SUM, rows.ctypes.data, len(rows), sources.ctypes.data, len(sources), own, dtype == torch.bfloat16,
                scale, 0, 0 if half_out else out.data_ptr(), 0, 0, out.data_ptr() if half_out else 0, -1,
            )
        )  # fmt: skip
    squares = 0.0
    for row in rows.tolist():
        starts = [int(source) + row[STAGED] * dtype.itemsize for source in sources]
        if row[OWN]:
            starts[own] = row[OWN]
        parts = [borrow(start, row[LENGTH], dtype) for start in starts]
        total = parts[0].to(master_type(dtype))
        for part in parts[1:]:
            total = total + part
        total = total * scale
        out[row[OUT] : row[OUT] + row[LENGTH]] = total
        squares += float(total.double().square().sum())
    return squares


def borrow(address: int, count: int, dtype: torch.dtype) -> torch.Tensor:
    """A tensor over memory that somebody else keeps alive."""
    import ctypes

    return torch.frombuffer((ctypes.c_char * (count * dtype.itemsize)).from_address(address), dtype=dtype)


def native_state(kind: type[torch.optim.Optimizer], defaults: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Names of the elementwise state if the C module covers `kind` with these options, else None."""
    if kind not in _RULES or defaults.get("amsgrad"):
        return None
    if kind is torch.optim.SGD:
        return ("momentum_buffer",) if defaults.get("momentum") else ()
    return ("exp_avg", "exp_avg_sq")


def check_options(groups: Sequence[Mapping[str, Any]]) -> None:
    """Refuse options that have no meaning for an update outside the backward graph.

    Raises:
        ParallelError: `differentiable` or `capturable` is set.
    """
    for group in groups:
        for option in ("differentiable", "capturable"):
            if group.get(option):
                raise ParallelError(
                    f"{option}=True cannot be kept when chunks are updated outside the graph: leave it out, "
                    "or use update='device'"
                )


def hyperparameters(groups: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The values of the groups, comparable and detached from later changes."""
    return [
        {
            key: _number(value)
            for key, value in group.items()
            if key not in {"params", "param_names", *_IGNORED}
        }
        for group in groups
    ]


def _number(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.item() if value.numel() == 1 else value.tolist()
    return tuple(map(_number, value)) if isinstance(value, (list, tuple)) else value


def _adam_rows(group: Mapping[str, Any], steps: np.ndarray) -> np.ndarray:
    (beta1, beta2), t = map(float, map(_number, group["betas"])), steps + 1
    rows = np.empty((len(steps), 8))
    rows[:, 0], rows[:, 1], rows[:, 2] = _number(group["lr"]), beta1, beta2
    rows[:, 3], rows[:, 4] = group["eps"], group["weight_decay"]
    rows[:, 5], rows[:, 6] = 1 - beta1**t, np.sqrt(1 - beta2**t)
    rows[:, 7] = -1 if group["maximize"] else 1
    return rows


def _sgd_rows(group: Mapping[str, Any], steps: np.ndarray) -> np.ndarray:
    rows = np.zeros((len(steps), 8))
    rows[:, 0], rows[:, 1] = _number(group["lr"]), group["momentum"]
    rows[:, 2] = np.where(steps == 0, 1.0, 1 - group["dampening"])
    rows[:, 3], rows[:, 4] = group["weight_decay"], bool(group["nesterov"])
    rows[:, 7] = -1 if group["maximize"] else 1
    return rows
