"""Who decides: the network, or the tables that were read off it. The machine does not know which."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, final

import numpy as np
import torch

from ...errors import NpiError
from .calls import Action
from .controller import Controller
from .primitive import Filling
from .slots import UNDEFINED
from .tables import Tables

__all__ = ["Brain", "NetworkBrain", "PrimitiveCaller", "TableBrain"]

#: Actions of one round, each with the members of the batch that do it.
Decisions = Iterator[tuple[Action, np.ndarray]]


class Brain(ABC):
    """Decides for a batch of frames.

    Attributes:
        programs: names by index; the entry is first.
        width: numbers of state per frame.
        kind: their dtype. An integer state starts at -1, a float one at 0.
    """

    programs: Sequence[str]
    width: int
    kind: np.dtype

    @abstractmethod
    def decide(
        self, program: np.ndarray, seen: np.ndarray, state: np.ndarray
    ) -> tuple[Decisions, np.ndarray]:
        """The next actions and the new states."""


def _groups(codes: np.ndarray, decode: Any) -> Decisions:
    """Members of each distinct code. One sort, no Python per member."""
    if len(codes) == 1:
        yield decode(int(codes[0])), np.zeros(1, dtype=np.int64)
        return
    order = np.argsort(codes, kind="stable")
    ordered = codes[order]
    cuts = np.flatnonzero(ordered[1:] != ordered[:-1]) + 1
    for members in np.split(order, cuts):
        yield decode(int(codes[members[0]])), members


@final
class NetworkBrain(Brain):
    """The LSTM.

    Args:
        controller: the network.
        strict: least margin of a decision; a smaller one is an error. None: not looked at.
    """

    def __init__(self, controller: Controller, strict: float | None = None) -> None:
        self.controller, self.strict = controller, strict
        self.programs = controller.vocabulary.programs
        self.width, self.kind = 2 * controller.hidden, np.dtype(np.float32)
        self._actions: dict[int, Action] = {}

    def _decode(self, code: int) -> Action:
        if code not in self._actions:
            _, tuples, slots = self.controller.widths
            self._actions[code] = self.controller.vocabulary.decode(
                code // (tuples * slots), code // slots % tuples, code % slots
            )
        return self._actions[code]

    @torch.no_grad()
    def decide(
        self, program: np.ndarray, seen: np.ndarray, state: np.ndarray
    ) -> tuple[Decisions, np.ndarray]:
        h, c = torch.from_numpy(state).split(self.controller.hidden, 1)
        logits, pair = self.controller(torch.from_numpy(program), torch.from_numpy(seen), (h, c))
        heads = logits.split(self.controller.widths, 1)
        if self.strict is not None:
            self._check(heads, program)
        keys, tuples, slots = (head.argmax(1) for head in heads)
        codes = (keys * self.controller.widths[1] + tuples) * self.controller.widths[2] + slots
        return _groups(codes.numpy(), self._decode), torch.cat(pair, 1).numpy()

    def _check(self, heads: Sequence[torch.Tensor], program: np.ndarray) -> None:
        for head in heads:
            if head.shape[1] > 1:
                best = head.topk(2, 1).values
                gap = best[:, 0] - best[:, 1]
                if float(gap.min()) < (self.strict or 0.0):
                    where = self.programs[int(program[int(gap.argmin())])]
                    raise NpiError(
                        f"a decision in {where} has margin {float(gap.min()):.3g}, --strict asks for "
                        f"{self.strict}; "
                        "train with a larger margin or run without --strict"
                    )


@final
class TableBrain(Brain):
    """The tables."""

    def __init__(self, tables: Tables) -> None:
        self.tables, self.programs = tables, tables.programs
        self.width, self.kind = 1, np.dtype(np.int32)

    def decide(
        self, program: np.ndarray, seen: np.ndarray, state: np.ndarray
    ) -> tuple[Decisions, np.ndarray]:
        last = state[:, 0]
        now = np.where(last < 0, self.tables.start[program], self.tables.follow[last, seen])
        if (now < 0).any():
            raise NpiError(
                "the tables have no answer to an observation: they were read off an untrained network"
            )
        return _groups(self.tables.act[now], self.tables.actions.__getitem__), now[:, None]


@final
class PrimitiveCaller:
    """A primitive's network behind the machine's calls.

    A primitive of one input is asked ahead: the first miss answers all cells of the tapes that are being
    read in one forward pass, so `map` and `filter` cost one pass per list, not one per element.
    """

    def __init__(self, model: Filling) -> None:
        self.model, self.forwards, self._raw = model, 0, model.started()
        self.known: dict[int, int] = {}

    def _forward(self, inputs: np.ndarray) -> np.ndarray:
        self.forwards += 1
        return self._raw(torch.from_numpy(np.ascontiguousarray(inputs))).numpy()

    def __call__(self, inputs: np.ndarray, near: np.ndarray) -> np.ndarray:
        answers = self._answers(inputs, near)
        if (answers == UNDEFINED).any():
            self.model.refuse(inputs[answers == UNDEFINED][0].tolist())
        return answers

    def _answers(self, inputs: np.ndarray, near: np.ndarray) -> np.ndarray:
        if inputs.shape[1] == 0:
            answer = self.known[0] if self.known else int(self._forward(inputs[:1])[0])
            self.known[0] = answer
            return np.full(len(inputs), answer, dtype=np.int64)
        if inputs.shape[1] > 1 or not self.model.finite:
            return self._forward(inputs)
        asked = inputs[:, 0].tolist()
        if not all(a in self.known for a in asked):
            fresh = np.unique(np.concatenate([near[:, 0], inputs[:, 0]]))
            domain = np.array(self.model.domains[0])
            # Cells that the program never hands to this primitive may lie outside of its domain; those asked
            # may not.
            fresh = fresh[np.isin(fresh, domain) | np.isin(fresh, inputs[:, 0])]
            self.known.update(zip(fresh.tolist(), self._forward(fresh[:, None]).tolist()))
        return np.array([self.known[a] for a in asked], dtype=np.int64)
