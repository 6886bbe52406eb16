"""One fully connected network per primitive (method 3, claims 1, 8 and 10).

A primitive is a classifier: its inputs are values under pointers, its answer one of the values it may write, or no/yes.
`fitting.py` trains and checks them. `Filling` is what may stand in a slot: such a network, or a program (`filler.py`).
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from math import prod
from typing import Any, NoReturn, final

import numpy as np
import torch
from torch import Tensor, nn

from ...errors import NpiError
from .slots import UNDEFINED

__all__ = ["Filling", "Primitive", "one_thread", "weights_hash"]


class Filling(ABC):
    """What answers in a slot: values in, one value out.

    Attributes:
        name: its slot.
    """

    name: str

    @property
    @abstractmethod
    def domains(self) -> tuple[tuple[int, ...] | None, ...]:
        """The values of each input, sorted; None for an input without a finite domain."""

    @property
    def finite(self) -> bool:
        return None not in self.domains

    @property
    def domain_size(self) -> int:
        return prod(len(d) for d in self.domains if d is not None)

    @abstractmethod
    def raw(self, inputs: Tensor) -> Tensor:
        """Answers, int64 [n], to `inputs` [n, arity] int64, with `UNDEFINED` where the program has none."""

    def started(self) -> Callable[[Tensor], Tensor]:
        """`raw` for one run, during which nothing changes."""
        return self.raw

    @abstractmethod
    def refuse(self, inputs: list[int]) -> NoReturn:
        """Say that there is no answer to these inputs."""

    @abstractmethod
    def table(self) -> np.ndarray:
        """Every answer of a finite domain, int64, last input fastest."""

    @abstractmethod
    def fingerprint(self) -> str:
        """SHA-256 of everything that the answers depend on."""

    @torch.no_grad()
    def answer(self, inputs: Tensor) -> Tensor:
        """The answers, int64 [n], to `inputs` [n, arity] int64.

        Raises:
            NpiError: an input lies outside of the domain that the network was trained on, or the program has no
                answer to it.
        """
        answers = self.raw(inputs)
        if bool((answers == UNDEFINED).any()):
            self.refuse(inputs[answers == UNDEFINED][0].tolist())
        return answers

    def one(self, inputs: tuple[int, ...]) -> int:
        """One plain answer to plain integers."""
        return int(self.answer(torch.tensor(inputs, dtype=torch.int64).reshape(1, -1))[0])


@final
class Primitive(nn.Module, Filling):
    """A small classifier from integers to an integer.

    Args:
        name: its slot.
        domains: the values of each input, sorted; None for an input without a finite domain.
        classes: the answers, sorted.
        ranges: for each input without a domain, the least and the largest value that it was trained on.
        hidden: width of the hidden layers.
    """

    def __init__(
        self,
        name: str,
        domains: Sequence[tuple[int, ...] | None],
        classes: tuple[int, ...],
        *,
        ranges: Sequence[tuple[int, int] | None] = (),
        hidden: int = 64,
        one_hot_limit: int = 32,
    ) -> None:
        super().__init__()
        self.name, self._domains, self._answers = name, tuple(domains), tuple(map(int, classes))
        self._ranges = tuple(ranges) or (None,) * len(domains)
        self.hidden, self.one_hot_limit = hidden, one_hot_limit
        self.sizes = [self.width(d, one_hot_limit) for d in self.domains]
        self.layers = nn.Sequential(
            nn.Linear(1 + sum(self.sizes), hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Linear(hidden, len(classes)),
        )
        self.float()  # whatever torch's default is
        self._sorted = [None if d is None else torch.tensor(d, dtype=torch.int64) for d in self.domains]
        self._classes = torch.tensor(self._answers, dtype=torch.int64)

    @property
    def domains(self) -> tuple[tuple[int, ...] | None, ...]:
        return self._domains

    @property
    def classes(self) -> tuple[int, ...]:
        return self._answers

    @property
    def ranges(self) -> tuple[tuple[int, int] | None, ...]:
        return self._ranges

    @staticmethod
    def width(domain: tuple[int, ...] | None, one_hot_limit: int) -> int:
        """Numbers that stand for one input: its 64 bits, one-hot, or the bits of its rank in the domain."""
        if domain is None:
            return 64
        return len(domain) if len(domain) <= one_hot_limit else (len(domain) - 1).bit_length()

    def features(self, inputs: Tensor) -> Tensor:
        """Encode `inputs` [n, arity] int64 as [n, width] float32: a one, then each input one-hot or in
        bits.
        """
        parts = [torch.ones(len(inputs), 1, dtype=torch.float32)]
        for i, (known, width) in enumerate(zip(self._sorted, self.sizes)):
            column = inputs[:, i].contiguous()
            if known is not None:
                rank = torch.searchsorted(known, column).clamp_(max=len(known) - 1)
                if not torch.equal(known[rank], column):
                    self._outside(inputs[known[rank] != column][0].tolist(), i)
                column = rank
                if len(known) <= self.one_hot_limit:
                    parts.append(nn.functional.one_hot(column, width).float())
                    continue
            elif bounds := self.ranges[i]:
                strange = (column < bounds[0]) | (column > bounds[1])
                if bool(strange.any()):
                    self._outside(inputs[strange][0].tolist(), i)
            bits = (column[:, None] >> torch.arange(width)) & 1
            parts.append(bits.float() * 2 - 1)
        return torch.cat(parts, 1)

    def _outside(self, inputs: list[int], i: int) -> None:
        domain, bounds = self.domains[i], self.ranges[i]
        held = (
            f"one of {len(domain)} values from {min(domain)} to {max(domain)}" if domain else "a known value"
        )
        raise NpiError(
            f"primitive {self.name} is called on {inputs}, outside of its domain: input {i} must be "
            + (f"from {bounds[0]} to {bounds[1]}, as in the examples" if bounds else held)
            + f"; give the tape a wider domain, or more examples, and train again (`outsize npi swap … --primitive "
            f"{self.name}=FILE`), or keep the input inside"
        )

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits [n, classes] for `inputs` [n, arity] int64."""
        return self.layers(self.features(inputs))  # type: ignore[no-any-return]

    def refuse(self, inputs: list[int]) -> NoReturn:
        raise NpiError(
            f"primitive {self.name} is called on {inputs}, outside of its domain: the program has no answer there, or "
            "none that fits the tape it is written to; give that tape a wider domain and train again"
        )

    @torch.no_grad()
    def raw(self, inputs: Tensor) -> Tensor:
        """As `answer`, with `UNDEFINED` where the program has no answer."""
        return self._classes[self(inputs).argmax(1)]

    def __call__(self, inputs: Any) -> Any:
        """As `forward`; given a plain tuple of integers, one plain answer."""
        if isinstance(inputs, tuple):
            return self.one(inputs)
        return super().__call__(inputs)

    def every_input(self) -> Tensor:
        """The whole domain, int64 [domain_size, arity], last input fastest."""
        assert self.finite
        grids = np.meshgrid(
            *[np.array(d, dtype=np.int64) for d in self.domains if d is not None], indexing="ij"
        )
        if not grids:
            return torch.zeros(1, 0, dtype=torch.int64)
        return torch.from_numpy(np.stack([g.reshape(-1) for g in grids], 1))

    @torch.no_grad()
    def table(self) -> np.ndarray:
        """Every answer, int64 in the order of `every_input`."""
        parts = [self.raw(part) for part in self.every_input().split(1 << 16)]
        return np.ascontiguousarray(torch.cat(parts).numpy(), dtype=np.int64)

    def fingerprint(self) -> str:
        """SHA-256 of everything that its answers depend on: weights, domains, classes, ranges, sizes."""
        about = json.dumps(self.describe(), sort_keys=True)
        return hashlib.sha256(f"{about}\n{weights_hash(self)}".encode()).hexdigest()

    def describe(self) -> dict[str, Any]:
        """What `load` needs besides the weights."""
        return {
            "name": self.name,
            "domains": [None if d is None else list(d) for d in self.domains],
            "classes": list(self.classes),
            "ranges": [None if r is None else list(r) for r in self.ranges],
            "hidden": self.hidden,
            "one_hot_limit": self.one_hot_limit,
        }


@contextmanager
def one_thread() -> Iterator[None]:
    """Networks this small lose more to handing over between threads than they gain."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def weights_hash(module: nn.Module) -> str:
    """SHA-256 of all weights, by name, shape and bytes."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
