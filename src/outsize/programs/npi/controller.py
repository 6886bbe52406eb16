"""The programmer-interpreter: an LSTM that says which system call comes next (method 3, claim 9).

Input at each step: the program that runs and the answer to the last action (nothing, no, yes). Output: a
key, a tuple of registers, a primitive id. No datum goes in or comes out. The state is zero at the start of
every call, so what the network does in a call is a function of that call's answers alone.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn

from ...errors import NpiError
from .calls import OBSERVATIONS, Row
from .fitting import check_seed, margins
from .primitive import one_thread, weights_hash
from .template import Vocabulary

__all__ = ["Controller", "ControllerCheck", "ControllerSettings", "check_controller", "train_controller"]


@dataclass(frozen=True, kw_only=True)
class ControllerSettings:
    """How controllers are trained.

    Attributes:
        hidden: LSTM width; quick_sort is learned in 1.2 s with 32 and in 0.2 s with 64.
        embedding: width of the program and observation embeddings.
        margin: smallest gap between the best and second-best answer of any head at which training stops. One row
            alone and among 2,400 gives logits that differ by less than 6e-6, so 2 leaves room.
        max_steps: Adam steps before giving up.
        rate: Adam's learning rate.
    """

    hidden: int = 64
    embedding: int = 32
    margin: float = 2.0
    max_steps: int = 3_000
    rate: float = 1e-2


#: Stands for what is not finite, so that a certificate is plain JSON.
NO_MARGIN = 1e9


@dataclass(frozen=True, kw_only=True)
class ControllerCheck:
    """The controller against rows.

    Attributes:
        states: decisions checked.
        errors: those that are wrong, or not a number.
        least_margin: smallest gap between the right answer of a head and the next.
        noise: largest difference between a logit in float32 and the same in float64.
        worst: where the least margin is.
    """

    states: int
    errors: int
    least_margin: float
    noise: float
    worst: str


@final
class Controller(nn.Module):
    """LSTM over one call; three heads.

    Args:
        vocabulary: what it may say.
        hidden: LSTM width.
        embedding: embedding width.
    """

    def __init__(self, vocabulary: Vocabulary, *, hidden: int = 64, embedding: int = 32) -> None:
        super().__init__()
        self.vocabulary, self.hidden, self.embedding = vocabulary, hidden, embedding
        self.program = nn.Embedding(len(vocabulary.programs), embedding)
        self.seen = nn.Embedding(len(OBSERVATIONS), embedding)
        self.cell = nn.LSTMCell(embedding, hidden)
        self.heads = nn.Linear(hidden, sum(self.widths))
        self.float()  # whatever torch's default is

    @property
    def widths(self) -> list[int]:
        v = self.vocabulary
        return [len(v.keys), len(v.tuples), len(v.slots)]

    def start(self, batch: int) -> tuple[Tensor, Tensor]:
        """The state at the start of a call: two zeros [batch, hidden]."""
        kind = self.heads.weight.dtype
        return torch.zeros(batch, self.hidden, dtype=kind), torch.zeros(batch, self.hidden, dtype=kind)

    def forward(self, program: Tensor, seen: Tensor, state: tuple[Tensor, Tensor]) -> Any:
        """One step: logits [batch, keys + tuples + slots] and the next state."""
        h, c = self.cell(self.program(program) + self.seen(seen), state)
        return self.heads(h), (h, c)

    def describe(self) -> dict[str, Any]:
        v = self.vocabulary
        return {
            "programs": list(v.programs),
            "keys": list(v.keys),
            "tuples": [list(t) for t in v.tuples],
            "slots": list(v.slots),
            "hidden": self.hidden,
            "embedding": self.embedding,
        }

    def fingerprint(self) -> str:
        """SHA-256 of weights and vocabulary: of everything that its decisions depend on."""
        about = json.dumps(self.describe(), sort_keys=True)
        return hashlib.sha256(f"{about}\n{weights_hash(self)}".encode()).hexdigest()


@final
@dataclass(frozen=True)
class Batch:
    """Rows as tensors: inputs and wanted answers [rows, T], padded, with a mask."""

    program: Tensor
    seen: Tensor
    wanted: Tensor
    mask: Tensor

    @classmethod
    def of(cls, vocabulary: Vocabulary, rows: Sequence[Row]) -> Batch:
        length = max(len(row.steps) for row in rows)
        seen = torch.zeros(len(rows), length, dtype=torch.int64)
        wanted = torch.zeros(len(rows), length, 3, dtype=torch.int64)
        mask = torch.zeros(len(rows), length, dtype=torch.bool)
        for i, row in enumerate(rows):
            for t, step in enumerate(row.steps):
                seen[i, t], mask[i, t] = step.seen, True
                wanted[i, t] = torch.tensor(vocabulary.encode(step.action))
        program = torch.tensor([vocabulary.programs.index(row.program) for row in rows])
        return cls(program, seen, wanted, mask)


def unroll(controller: Controller, batch: Batch) -> Tensor:
    """Logits [rows, T, width] along each row, from the zero state."""
    state, out = controller.start(len(batch.program)), []
    for t in range(batch.seen.shape[1]):
        logits, state = controller(batch.program, batch.seen[:, t], state)
        out.append(logits)
    return torch.stack(out, 1)


def gaps(controller: Controller, logits: Tensor, batch: Batch) -> Tensor:
    """Least margin over the three heads at every decision that counts, [decisions]."""
    heads = logits[batch.mask].split(controller.widths, 1)
    wanted = batch.wanted[batch.mask]
    return torch.stack([margins(head, wanted[:, i]) for i, head in enumerate(heads)]).amin(0)


@torch.no_grad()
def check_controller(controller: Controller, rows: Sequence[Row]) -> ControllerCheck:
    """Every decision of every row, in one batched pass."""
    batch = Batch.of(controller.vocabulary, rows)
    logits = unroll(controller, batch)
    exact = unroll(copy.deepcopy(controller).double(), batch)
    noise = float((logits.double() - exact).abs()[batch.mask].max())
    gap = gaps(controller, logits, batch).nan_to_num(-NO_MARGIN, NO_MARGIN, -NO_MARGIN)
    where = batch.mask.nonzero()[int(gap.argmin())].tolist()
    row = rows[where[0]]
    return ControllerCheck(
        states=len(gap),
        errors=int((gap <= 0).sum()),
        least_margin=float(gap.min()),
        noise=noise if math.isfinite(noise) else NO_MARGIN,
        worst=f"{row.program}, decision {where[1]}: {row.steps[where[1]].action}",
    )


@one_thread()
def train_controller(
    vocabulary: Vocabulary, rows: Sequence[Row], settings: ControllerSettings | None = None, seed: int = 0
) -> Controller:
    """Learn the rows, full batch, until every decision has the wanted margin.

    Args:
        vocabulary: what the controller may say.
        rows: distinct, short and independent: one per way through a call.
        settings: see `ControllerSettings`.
        seed: of the weights.

    Raises:
        NpiError: the margin is not reached within `max_steps`.
    """
    settings = settings or ControllerSettings()
    with torch.random.fork_rng():
        torch.manual_seed(check_seed(seed))
        controller = Controller(vocabulary, hidden=settings.hidden, embedding=settings.embedding)
    batch = Batch.of(vocabulary, rows)
    wanted = batch.wanted[batch.mask]
    optimizer = torch.optim.Adam(controller.parameters(), lr=settings.rate)
    gap = float("-inf")
    for step in range(settings.max_steps):
        logits = unroll(controller, batch)
        if step % 10 == 0:
            gap = float(gaps(controller, logits.detach(), batch).min())
            if gap >= settings.margin:
                return controller
        heads = logits[batch.mask].split(controller.widths, 1)
        losses = [nn.functional.cross_entropy(head, wanted[:, i]) for i, head in enumerate(heads)]
        optimizer.zero_grad()
        torch.stack(losses).sum().backward()
        optimizer.step()
    raise NpiError(
        f"the controller's least margin is {gap:.3g} after {settings.max_steps} steps, {settings.margin} "
        "was asked for: raise ControllerSettings.max_steps or hidden"
    )
