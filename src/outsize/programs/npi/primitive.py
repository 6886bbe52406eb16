"""One fully connected network per primitive, trained apart on its own data (method 3, claims 1, 8 and 10).

A primitive is a classifier: its inputs are values under pointers, its answer one of the values it may write,
or no/yes. Where the tapes declare finite domains the whole domain is the data set and correctness is checked
on all of it; elsewhere a fifth of the pairs is held out and an upper confidence bound on the error is all
that can be said.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from typing import Any, NoReturn, final

import numpy as np
import torch
from torch import Tensor, nn

from ...errors import NpiError
from .slots import UNDEFINED

__all__ = ["Primitive", "PrimitiveCheck", "PrimitiveSettings", "error_bound", "train_primitive"]


@dataclass(frozen=True, kw_only=True)
class PrimitiveSettings:
    """How primitives are trained.

    Attributes:
        domain_limit: largest domain that is enumerated. `x < y` on 1,000 values (10⁶ inputs) was learned exactly,
            in 83 s; on 256 values in 0.7 s.
        one_hot_limit: an input with at most this many values is one-hot, a larger one is given in bits, which
            keeps the first layer small.
        hidden: width of the two hidden layers; four times that from 4,096 inputs of more than two answers on
            (`(x·y + z + c) mod 10` has 10,000).
        margin: smallest gap between the two best answers at which training stops; float noise is below 1e-5.
        max_steps: Adam steps before giving up.
        batch: rows per step of a domain larger than this; half of them are the rows with the least margin. Of 1,024,
            2,048 and 4,096, 2,048 learned the 10,000 inputs above soonest (4.4 s; 4,096 took 6.7 s).
        rate: Adam's learning rate at the start; it falls to a tenth.
    """

    domain_limit: int = 1_000_000
    one_hot_limit: int = 32
    hidden: int = 64
    margin: float = 1.0
    max_steps: int = 6_000
    batch: int = 2_048
    rate: float = 1e-2


@dataclass(frozen=True, kw_only=True)
class PrimitiveCheck:
    """What is known of one primitive's correctness.

    Attributes:
        kind: `exhaustive` (every input of the domain) or `statistical` (held-out pairs).
        inputs: how many inputs were checked.
        errors: how many were answered wrongly.
        least_margin: smallest gap between the best and the second-best answer.
        error_bound: upper bound of the error per call; 0 where exhaustive and exact, else Clopper-Pearson at
            95 %.
    """

    kind: str
    inputs: int
    errors: int
    least_margin: float
    error_bound: float


@final
class Primitive(nn.Module):
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
        self.name, self.domains, self.classes = name, tuple(domains), classes
        self.ranges = tuple(ranges) or (None,) * len(domains)
        self.hidden, self.one_hot_limit = hidden, one_hot_limit
        self.sizes = [self._width(d) for d in self.domains]
        self.layers = nn.Sequential(
            nn.Linear(1 + sum(self.sizes), hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Linear(hidden, len(classes)),
        )
        self._sorted = [None if d is None else torch.tensor(d) for d in self.domains]
        self._classes = torch.tensor(classes)

    def _width(self, domain: tuple[int, ...] | None) -> int:
        if domain is None:
            return 64
        return len(domain) if len(domain) <= self.one_hot_limit else (len(domain) - 1).bit_length()

    @property
    def finite(self) -> bool:
        return None not in self.domains

    @property
    def domain_size(self) -> int:
        return prod(len(d) for d in self.domains if d is not None)

    def features(self, inputs: Tensor) -> Tensor:
        """Encode `inputs` [n, arity] int64 as [n, width] float32: a one, then each input one-hot or in
        bits.
        """
        parts = [torch.ones(len(inputs), 1)]
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
            return int(self.answer(torch.tensor(inputs, dtype=torch.int64).reshape(1, -1))[0])
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
        return torch.cat([self.raw(part) for part in self.every_input().split(1 << 16)]).numpy()

    def fingerprint(self) -> str:
        return weights_hash(self)

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


def error_bound(errors: int, samples: int, confidence: float = 0.95) -> float:
    """Clopper-Pearson upper bound of an error rate from `errors` in `samples` independent trials."""
    from scipy.stats import beta

    if samples == 0 or errors >= samples:
        return 1.0
    return float(beta.ppf(confidence, errors + 1, samples - errors))


@torch.no_grad()
def margins(logits: Tensor, wanted: Tensor) -> Tensor:
    """Gap [n] between the wanted class's logit and the best other one; negative where it is wrong."""
    if logits.shape[1] == 1:
        return torch.full((len(logits),), float("inf"))
    right = logits.gather(1, wanted[:, None])[:, 0]
    return right - logits.scatter(1, wanted[:, None], -torch.inf).amax(1)


@one_thread()
def train_primitive(
    name: str,
    data: Mapping[tuple[int, ...], int],
    *,
    domains: Sequence[tuple[int, ...] | None],
    exhaustive: bool,
    settings: PrimitiveSettings | None = None,
    seed: int = 0,
) -> tuple[Primitive, PrimitiveCheck]:
    """Train one primitive on its pairs.

    Args:
        name: its slot.
        data: answers by inputs.
        domains: the values of each input, or None.
        exhaustive: whether `data` holds the whole domain; then all of it is learned and checked, else a
            fifth is held out.
        settings: see `PrimitiveSettings`.
        seed: of the weights and of the split.

    Raises:
        NpiError: no data.
    """
    settings = settings or PrimitiveSettings()
    if not data:
        raise NpiError(f"primitive {name} has no input/output pair to learn from")
    arity = len(domains)
    inputs = torch.tensor(list(data), dtype=torch.int64).reshape(len(data), arity)
    classes = tuple(sorted(set(data.values())))
    wanted = torch.searchsorted(torch.tensor(classes), torch.tensor(list(data.values())))
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(data), generator=generator)
    held = torch.zeros(0, dtype=torch.int64) if exhaustive else order[: max(1, len(data) // 5)]
    kept = order if exhaustive or len(data) < 5 else order[len(held) :]
    ranges = [(int(c.min()), int(c.max())) if d is None else None for c, d in zip(inputs.T, domains)]
    hidden = settings.hidden * (4 if len(data) > 4096 and len(classes) > 2 else 1)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Primitive(
            name, domains, classes, ranges=ranges, hidden=hidden, one_hot_limit=settings.one_hot_limit
        )
    _fit(model, inputs[kept], wanted[kept], settings, generator)
    return model, check_primitive(model, inputs, wanted, held, exhaustive)


@one_thread()
def check_primitive(
    model: Primitive, inputs: Tensor, wanted: Tensor, held: Tensor, exhaustive: bool
) -> PrimitiveCheck:
    """Check on all inputs where they are the whole domain, else on the held-out ones."""
    checked = torch.arange(len(inputs)) if exhaustive else held
    parts = [margins(model(inputs[i]), wanted[i]) for i in checked.split(1 << 16)]
    gaps = torch.cat(parts)
    errors = int((gaps <= 0).sum())
    return PrimitiveCheck(
        kind="exhaustive" if exhaustive else "statistical",
        inputs=len(checked),
        errors=errors,
        least_margin=float(gaps.min()),
        error_bound=errors / len(checked) if exhaustive else error_bound(errors, len(checked)),
    )


def _fit(
    model: Primitive, inputs: Tensor, wanted: Tensor, settings: PrimitiveSettings, generator: torch.Generator
) -> None:
    """Adam, full batch where it fits; on larger domains half of each batch are the rows of least margin."""
    if len(model.classes) == 1:
        return
    features = model.features(inputs)
    optimizer = torch.optim.Adam(model.parameters(), lr=settings.rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(
        optimizer, settings.max_steps, eta_min=settings.rate / 10
    )
    whole, order = len(features) <= settings.batch, torch.arange(len(features))
    hard = torch.arange(min(len(features), settings.batch // 2))
    for step in range(settings.max_steps):
        if step % 50 == 0:
            with torch.no_grad():
                gaps = margins(model.layers(features), wanted)
            if float(gaps.min()) >= settings.margin:
                return
            hard = gaps.topk(min(len(gaps), settings.batch // 2), largest=False).indices
        rows = order
        if not whole:
            rows = torch.cat(
                [hard, torch.randint(len(features), (settings.batch // 2,), generator=generator)]
            )
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model.layers(features[rows]), wanted[rows])
        loss.backward()
        optimizer.step()
        schedule.step()
