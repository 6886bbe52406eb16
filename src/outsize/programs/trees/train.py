"""Training the detector on bugs drawn anew for every batch.

The corpus stays on disk (a memory-mapped file); a step selects some functions, injects a bug into half of
them, and minimises the two losses of `Detector`. The products run in bfloat16 where the processor multiplies
it natively (measured: 430 GFLOP/s against 90 in single precision on one core of an AVX-512 machine; on one
with AVX2 only, where bfloat16 is emulated, 1 against 11 under load), everything else, and the parameters, in
single precision. The learning rate follows the share of the budget
that is spent, whichever of steps and minutes is nearer to its end, so a run on a busy machine still ends with
a small rate.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from typing import Any, Protocol, cast

import numpy as np
import torch
from torch import Tensor, nn

from ...errors import TreesError
from .batch import Batch, collate
from .budget import BudgetedTree
from .functions import Functions
from .grammar import ATTRIBUTE
from .inject import KINDS, inject
from .localized import LocalizedTreeConv
from .words import WordTable


def native_half() -> bool:
    """Whether this processor multiplies bfloat16 without emulation."""
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


class Trainable(Protocol):
    """What `train` needs of a network besides being a module."""

    def losses(self, batch: Batch) -> tuple[Tensor, Tensor]: ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How long and how.

    Attributes:
        steps: at most so many.
        minutes: at most so long; 0 sets no limit.
        batch: functions in a step. 64 keeps a layer's activations in the second-level cache: 458 functions/s
            against 413 with 256, on the machine of `benchmarks/trees-detector`.
        rate: the largest learning rate.
        warm: steps of a linear rise to it.
        decay: weight decay.
        average: decay of the running average of the weights that is kept as the result.
        place_weight: weight of the loss by place.
        half: bfloat16 products; None takes them where the processor multiplies them natively.
        weights: how often each kind of bug is drawn, in the order of `grammar.PLACES`. Variables occur in
            most functions and calls with two arguments in few, so uneven weights draw the kinds about evenly.
        likely: share of the bugs that are drawn as people make them (`likely`), the others evenly.
        meet_every: steps between two meetings of several workers (`workers`): 3 s of work at a cost of 10 ms.
        seed: of the weights, the order and the bugs.
        budget: bytes for a step, as `outsize.compile` takes them; None trains without a budget.
    """

    steps: int = 20_000
    minutes: float = 0.0
    batch: int = 64
    rate: float = 1.5e-3
    warm: int = 300
    decay: float = 0.01
    average: float = 0.999
    place_weight: float = 1.0
    half: bool | None = None
    weights: tuple[float, ...] = (0.7, 1.4, 1.2, 1.2, 0.6)
    likely: float = 0.5
    meet_every: int = 16
    seed: int = 0
    budget: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Progress:
    """What a training run says of itself now and then."""

    step: int
    functions: int
    seconds: float
    answer_loss: float
    place_loss: float
    rate: float


def train(
    model: nn.Module, functions: Functions, config: TrainConfig, *,
    said: Callable[[Progress, nn.Module], None] = lambda progress, average: None, every: int = 500,
    meet: Callable[[nn.Module], None] | None = None,
) -> nn.Module:  # fmt: skip
    """Train a detector (or a baseline with the same `losses`) and return the average of its weights.

    Args:
        model: changed in place.
        functions: the training split; not changed.
        config: see there.
        said: called every `every` steps with the progress and the averaged model.
        meet: called every `config.meet_every` steps with the model, whose weights it may move (`workers`).

    Raises:
        TreesError: nothing to train on.
    """
    if functions.count < 1:
        raise TreesError("there are no functions to train on")
    torch.manual_seed(config.seed)
    rng = np.random.default_rng(config.seed)
    rows = getattr(getattr(model, "config", None), "rows", 16384)
    table = WordTable(functions.forest.tokens, rows)
    kinds = (*KINDS, ATTRIBUTE)[: len(config.weights)]
    average = torch.optim.swa_utils.AveragedModel(
        model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(config.average)
    )
    plain = getattr(model, "tree", None)
    if config.budget is not None:
        # After the average was set up: it keeps the plain network, and meets the same parameters in order.
        model.tree = BudgetedTree(cast(LocalizedTreeConv, plain), config.budget)
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.rate, weight_decay=config.decay, fused=True)
    started, seen, sums = time.monotonic(), 0, np.zeros(2)
    for step in range(1, config.steps + 1):
        spent = max(step / config.steps, (time.monotonic() - started) / (60 * config.minutes or math.inf))
        if spent > 1:
            break
        rate = (
            config.rate * min(1.0, step / config.warm) * (0.02 + 0.98 * (1 + math.cos(math.pi * spent)) / 2)
        )
        for group in optimizer.param_groups:
            group["lr"] = rate
        batch = _draw(functions, table, kinds, config, rng)
        sums += _step(model, batch, optimizer, config)
        if meet is not None and step % config.meet_every == 0:
            meet(model)
        if step >= config.warm:
            average.update_parameters(model)
        seen += batch.functions
        if step % every == 0:
            answer, place = sums / every
            sums[:] = 0
            elapsed = time.monotonic() - started
            said(Progress(step=step, functions=seen, seconds=elapsed, answer_loss=float(answer),
                          place_loss=float(place), rate=rate), average.module)  # fmt: skip
    if config.budget is not None:
        model.tree = cast(nn.Module, plain)
    result = average.module if int(average.n_averaged) else model
    result.eval()
    return result


def _draw(
    functions: Functions,
    table: WordTable,
    kinds: tuple[int, ...],
    config: TrainConfig,
    rng: np.random.Generator,
) -> Batch:
    """A batch with at least one candidate."""
    while True:
        chosen = np.sort(rng.choice(functions.count, min(config.batch, functions.count), replace=False))
        drawn = functions.select(chosen)
        bugs = inject(drawn, rng, kinds=kinds, weights=config.weights, likely=config.likely)
        batch = collate(drawn, table, bugs, kinds)
        if batch.table.count:
            return batch


def _step(
    model: Any, batch: Batch, optimizer: torch.optim.Optimizer, config: TrainConfig
) -> np.ndarray[Any, Any]:
    half = native_half() if config.half is None else config.half
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        answer, place = model.losses(batch)
    optimizer.zero_grad(set_to_none=True)
    (answer + config.place_weight * place).backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return np.array([answer.item(), place.item()])
