"""Any elementwise torch optimizer, run on one worker's slices.

Problem: the C module knows three rules; torch has a dozen, and users write more. An update that treats every
element alone can be run on slices of parameters by the optimizer's own code; one that looks at a whole matrix
(Muon, Adafactor, LAMB) cannot.

Mechanism: a probe runs the optimizer on a small matrix and on the two halves of the same matrix; equal results
mean elementwise, and the probe's state tells which entries are elementwise and which are numbers per
parameter. Entries live in the arena, so a slice may change hands when the chunk plan changes.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch

from ..errors import ParallelError
from .rules import FLAT, HYPER, LENGTH, STAGED, Addresses, Memory, Rule, Table, borrow

_WIDTH = 8  # numbers per parameter that the arena has room for


@dataclass(frozen=True, kw_only=True)
class Schema:
    """What one parameter's state holds after a step.

    Attributes:
        elementwise: names of tensors of the parameter's shape.
        numbers: names of scalars, and whether each is a tensor.
    """

    elementwise: tuple[str, ...]
    numbers: tuple[tuple[str, bool], ...]

    @classmethod
    def probe(cls, template: torch.optim.Optimizer) -> Schema:
        """Find out by trying.

        Raises:
            ParallelError: the optimizer is not elementwise, or cannot be stepped without a closure.
        """
        kind = type(template)
        schemas = [cls._probe_group(template, group) for group in template.param_groups]
        if any(schema != schemas[0] for schema in schemas):
            raise ParallelError(
                f"{kind.__name__} keeps different state in different groups, which slices cannot share: give all "
                "groups the same kind of options, or use update='device'"
            )
        return schemas[0]

    @classmethod
    def _probe_group(cls, template: torch.optim.Optimizer, group: Mapping[str, Any]) -> Schema:
        kind, defaults = type(template), constructor_options(template)
        options = {key: value for key, value in group.items() if key not in ("params", "param_names")}
        generator = torch.Generator().manual_seed(0)
        start = torch.randn(6, 8, generator=generator)
        whole = torch.nn.Parameter(start.clone())
        halves = [torch.nn.Parameter(part.clone()) for part in start.view(-1).split(24)]
        try:
            trials = (
                kind([{"params": [whole], **options}], **defaults),
                kind([{"params": halves, **options}], **defaults),
            )
            for _ in range(3):
                grad = torch.randn(6, 8, generator=generator)
                whole.grad = grad.clone()
                for half, part in zip(halves, grad.view(-1).split(24)):
                    half.grad = part.clone()
                for trial in trials:
                    trial.step()
        except Exception as error:
            raise _refuse(kind, f"it could not be run on slices of parameters ({error})") from error
        if not torch.allclose(whole.detach().view(-1), torch.cat([h.detach() for h in halves]), rtol=1e-6):
            raise _refuse(kind, "it treats a parameter as a whole, so slices of one give another result")
        return cls._read(kind, whole, trials[0].state[whole])

    @classmethod
    def _read(cls, kind: type[torch.optim.Optimizer], p: torch.Tensor, state: Mapping[str, Any]) -> Schema:
        elementwise, numbers = [], []
        for name, value in state.items():
            if isinstance(value, torch.Tensor) and value.shape == p.shape:
                elementwise.append(name)
            elif isinstance(value, (int, float)) or (isinstance(value, torch.Tensor) and value.numel() == 1):
                numbers.append((name, isinstance(value, torch.Tensor)))
            elif value is not None:
                raise _refuse(kind, f"its state {name!r} is neither a number nor of the parameter's shape")
        if len(numbers) > _WIDTH:
            raise _refuse(kind, f"it keeps {len(numbers)} numbers per parameter, {_WIDTH} fit")
        return cls(elementwise=tuple(elementwise), numbers=tuple(numbers))


def constructor_options(template: torch.optim.Optimizer) -> dict[str, Any]:
    """The defaults that the class takes as arguments (some, such as Adagrad's first value, act only there)."""
    accepted = inspect.signature(type(template).__init__).parameters
    return {key: value for key, value in template.defaults.items() if key in accepted}


def _refuse(kind: type[torch.optim.Optimizer], reason: str) -> ParallelError:
    return ParallelError(
        f"{kind.__name__} cannot be updated on the CPU by slices: {reason}. Use update='device', which hands "
        "whole gradients to it, or SGD, Adam or AdamW"
    )


@final
class GenericRule(Rule):
    """Steps the user's optimizer class on this worker's runs.

    Args:
        template: an instance, for its class and groups.
        memory: the space's tensors; state entries are of the master's type.
        schema: of the state.
        scalars: `(slots, 8)` fp64 in the arena, the numbers of each parameter's state.
    """

    fuses = False

    def __init__(
        self, template: torch.optim.Optimizer, memory: Memory, schema: Schema, scalars: torch.Tensor
    ) -> None:
        self._kind, self._memory, self._schema, self._scalars = type(template), memory, schema, scalars
        self._defaults = constructor_options(template)

    def begin(self, groups: Sequence[Mapping[str, Any]], group_of: Sequence[int], steps: np.ndarray) -> None:
        self._options = [
            {key: value for key, value in group.items() if key not in ("params", "param_names")}
            for group in groups
        ]
        self._group_of, self._steps = group_of, steps.copy()
        # Several chunks of one parameter follow in a step; all must see the numbers from before it.
        self._before = self._scalars.clone()

    @torch.no_grad()
    def update(self, rows: Table, sources: Addresses, own: int, half: bool, scale: float) -> None:
        """See `Rule`. There is one source, of the master's type: sums are made before."""
        if len(rows) == 0:
            return
        master = self._memory.master
        runs = []
        for row in rows.tolist():
            part = torch.nn.Parameter(master[row[FLAT] : row[FLAT] + row[LENGTH]])
            address = int(sources[0]) + row[STAGED] * master.element_size()
            part.grad = borrow(address, row[LENGTH], master.dtype) * scale
            runs.append((row, part))
        members: dict[int, list[torch.nn.Parameter]] = {}
        for row, part in runs:
            members.setdefault(self._group_of[row[HYPER]], []).append(part)
        groups = [{"params": parts, **self._options[g]} for g, parts in members.items()]
        inner = self._kind(groups, **self._defaults)
        for row, part in runs:
            if self._steps[row[HYPER]] > 0:
                inner.state[part] = self._recall(row)
        inner.step()
        for row, part in runs:
            self._keep(row, inner.state[part])
            if self._memory.half:
                self._memory.param[row[FLAT] : row[FLAT] + row[LENGTH]] = part

    def _recall(self, row: Sequence[int]) -> dict[str, Any]:
        state: dict[str, Any] = {}
        for name in self._schema.elementwise:
            state[name] = self._memory.state[name][row[FLAT] : row[FLAT] + row[LENGTH]]
        for column, (name, tensor) in enumerate(self._schema.numbers):
            value = self._before[row[HYPER], column].item()
            state[name] = torch.tensor(value, dtype=torch.float32) if tensor else value
        return state

    def _keep(self, row: Sequence[int], state: Mapping[str, Any]) -> None:
        for name in self._schema.elementwise:
            place = self._memory.state[name][row[FLAT] : row[FLAT] + row[LENGTH]]
            if state[name].data_ptr() != place.data_ptr():
                place.copy_(state[name])
        for column, (name, _) in enumerate(self._schema.numbers):
            self._scalars[row[HYPER], column] = float(state[name])
