"""Train primitives, each apart on its own data, and check them.

Where the tapes declare finite domains the whole domain is the data set and correctness is checked on all of it; elsewhere
a fifth of the pairs is held out and an upper confidence bound on the error is all that can be said.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ...errors import NpiError
from .primitive import Primitive, one_thread
from .rounding import certified_margins

__all__ = ["SURE", "PrimitiveCheck", "PrimitiveSettings", "check_primitive", "check_seed", "error_bound", "held_out",
           "margins", "train_primitive"]  # fmt: skip


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
        work_limit: multiplications of all steps together (rows times weights); what a step costs says how many there
            are. 10,000 inputs of ten answers need 5·10¹⁰; 20,000 inputs of 20,000 answers would need 10¹⁴, hours. With
            fewer than `least_steps` to go a primitive is not attempted.
        least_steps: see `work_limit`.
    """

    domain_limit: int = 1_000_000
    one_hot_limit: int = 32
    hidden: int = 64
    margin: float = 1.0
    max_steps: int = 6_000
    batch: int = 2_048
    rate: float = 1e-2
    work_limit: float = 2e11
    least_steps: int = 200


#: The margin of a primitive that has one answer only.
SURE = 1e9
_SEEDS = 1 << 63


def check_seed(seed: int) -> int:
    """The seed, if torch takes it.

    Raises:
        NpiError: it is no integer from 0 to 2⁶³ - 1.
    """
    if type(seed) is not int or not 0 <= seed < _SEEDS:
        raise NpiError(f"the seed is {str(seed)[:40]}; it must be an integer from 0 to {_SEEDS - 1}")
    return seed


def held_out(data: Iterable[tuple[int, ...]]) -> Tensor:
    """Which fifth of the inputs is not trained on: by their hash, so that whoever checks later finds the same ones."""
    hashes = [hashlib.sha256(repr(tuple(map(int, inputs))).encode()).digest() for inputs in data]
    order = sorted(range(len(hashes)), key=hashes.__getitem__)
    return torch.tensor(order[: max(1, len(order) // 5)], dtype=torch.int64)


@dataclass(frozen=True, kw_only=True)
class PrimitiveCheck:
    """What is known of one primitive's correctness.

    Attributes:
        kind: `exhaustive` (every input of the domain) or `statistical` (held-out pairs).
        inputs: how many inputs were checked.
        errors: how many were answered wrongly.
        least_margin: smallest gap between the right answer and any other one that float32 can give in any order of
            summation (`rounding.py`).
        error_bound: upper bound of the error per call; 0 where exhaustive and exact, else Clopper-Pearson at
            95 %.
    """

    kind: str
    inputs: int
    errors: int
    least_margin: float
    error_bound: float


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
    generator = torch.Generator().manual_seed(check_seed(seed))
    held = torch.zeros(0, dtype=torch.int64) if exhaustive else held_out(data)
    kept = torch.randperm(len(data), generator=generator)
    if not exhaustive and len(data) >= 5:
        kept = kept[~torch.isin(kept, held)]
    ranges = [(int(c.min()), int(c.max())) if d is None else None for c, d in zip(inputs.T, domains)]
    hidden = settings.hidden * (4 if len(data) > 4096 and len(classes) > 2 else 1)
    width = 1 + sum(Primitive.width(d, settings.one_hot_limit) for d in domains)
    weights = hidden * (width + hidden + len(classes))
    steps = _steps(name, len(kept), len(classes), weights, settings)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Primitive(
            name, domains, classes, ranges=ranges, hidden=hidden, one_hot_limit=settings.one_hot_limit
        )
    _fit(model, inputs[kept], wanted[kept], settings, steps, generator)
    return model, check_primitive(model, inputs, wanted, held, exhaustive)


@one_thread()
def check_primitive(
    model: Primitive, inputs: Tensor, wanted: Tensor, held: Tensor, exhaustive: bool
) -> PrimitiveCheck:
    """Check on all inputs where they are the whole domain, else on the held-out ones."""
    checked = torch.arange(len(inputs)) if exhaustive else held
    gaps = torch.cat(
        [
            certified_margins(model.layers, model.features(inputs[i]), wanted[i])
            for i in checked.split(1 << 15)
        ]
    )
    errors = int((~(gaps > 0)).sum())
    return PrimitiveCheck(
        kind="exhaustive" if exhaustive else "statistical",
        inputs=len(checked),
        errors=errors,
        least_margin=min(float(gaps.nan_to_num(-SURE, SURE, -SURE).min()), SURE) if len(gaps) else 0.0,
        error_bound=errors / len(checked) if exhaustive else error_bound(errors, len(checked)),
    )


def _steps(name: str, pairs: int, classes: int, weights: int, settings: PrimitiveSettings) -> int:
    """Steps that the work limit allows, before anything is allocated.

    Raises:
        NpiError: too few to learn anything.
    """
    rows = min(pairs, settings.batch)
    allowed = int(settings.work_limit / (rows * weights))
    if classes > 1 and allowed < settings.least_steps:
        raise NpiError(
            f"primitive {name} has {pairs} pairs and {classes} different answers, and a network for "
            f"them gets {allowed} steps out of PrimitiveSettings.work_limit = {settings.work_limit:.0e}; "
            f"{settings.least_steps} is the least: let it answer digit by digit, or give fewer pairs"
        )
    return min(settings.max_steps, allowed)


def _fit(
    model: Primitive,
    inputs: Tensor,
    wanted: Tensor,
    settings: PrimitiveSettings,
    steps: int,
    generator: torch.Generator,
) -> None:
    """Adam, full batch where it fits; on larger domains half of each batch are the rows of least margin."""
    if len(model.classes) == 1:
        return
    features = model.features(inputs)
    optimizer = torch.optim.Adam(model.parameters(), lr=settings.rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps, eta_min=settings.rate / 10)
    whole, order = len(features) <= settings.batch, torch.arange(len(features))
    hard = torch.arange(min(len(features), settings.batch // 2))
    for step in range(steps):
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
