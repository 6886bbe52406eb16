"""A frame: everything one running step keeps between its forward and its backward.

Autograd decides when that is no longer needed, so the frame hangs on a *capsule*: a one-element tensor that autograd
saves like any other, over a NumPy array that owns the frame. When the last reference to the capsule's bytes goes, so
does the frame, and with it every block in a tier, whether the backward ran or not.
"""

from __future__ import annotations

import itertools
import os
import weakref
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol, final

import numpy as np
import torch
from torch import Tensor

from ..device.waiting import check_process
from .encoding import Form
from .leaves import Leaves
from .tiers import Arrival, Block, Tier
from .watch import Watched

if TYPE_CHECKING:
    from .recording import Recorder

_NUMBERS = itertools.count(1)
_FRAMES: weakref.WeakValueDictionary[int, Frame] = weakref.WeakValueDictionary()


def storage_bytes(values: list[Any]) -> int:
    """Bytes of the storages behind the tensors among the values, each once."""
    storages = (v.untyped_storage() for v in values if isinstance(v, Tensor))
    return sum({s._cdata: s.nbytes() for s in storages}.values())


class StateMoves(Protocol):
    """What a backward does with an optimizer's state, by slot."""

    def bound(self, slots: Mapping[int, str]) -> StateMoves:
        """For a backward whose graph has the state of these parameters at these slots."""
        ...

    def fetch(self, slot: int) -> None: ...
    def update(self, slot: int, gradient: Tensor) -> None: ...
    def write(self, slot: int) -> None: ...
    def drop(self, slot: int) -> None: ...


class ParameterMoves(Protocol):
    """Parameters that rest on a tier while a step runs."""

    def blocks(self, slots: Mapping[int, str]) -> dict[int, tuple[Tier, Block, torch.dtype]]:
        """Where those are that a graph has at these slots, by slot."""
        ...


class _Owner(np.ndarray):
    """An array that keeps its frame alive."""

    frame: Frame


@final
class Frame:
    """Saved values, and the storages that are away, of one running step.

    Attributes:
        tiers: by name.
        blocks: storage → its bytes in a tier.
        arrivals: storage → its read under way.
        dtypes: storage → dtype of the tensor that went away.
        forms: storage → its encoded form.
        densities: storage → share of nonzero elements, where an encoding or a sample told it.
        sampling: whether this step samples what it does not encode.
        encoded_bytes: bytes of the encoded forms, together.
        reported: whether its densities were taken note of.
        overflowed: storages that were denser than planned and went to a tier instead.
        program: whoever runs this frame's backward.
        held_bytes: device bytes that the frame kept when its forward ended, as its host measured them.
        inputs: bytes of the storages that the forward was given and that the frame keeps alive, by storage.
        recorder: of the step, where it is recorded.
        again: what its forward was given, to run it once more.
        given_up: its saved values are gone; the forward runs again for a backward.
        leaves: those among the inputs of the forward.
        state: moves and updates an optimizer's state, by its slot; None where none of it moves.
        kept: whether autograd may ask for another backward, which will read the encoded forms once more.
    """

    def __init__(self, program: Any, tiers: dict[str, Tier], *, sampling: bool = True) -> None:
        self.number, self._pid = next(_NUMBERS), os.getpid()
        self.program = program
        self.tiers = tiers
        self.blocks: dict[int, tuple[Tier, Block]] = {}
        self.arrivals: dict[int, Arrival] = {}
        self.dtypes: dict[int, torch.dtype] = {}
        self.forms: dict[int, Form] = {}
        self.densities: dict[int, float] = {}
        self.sampling = sampling
        self.encoded_bytes = 0
        self.reported = False
        self.overflowed: list[int] = []
        self.held_bytes = 0
        self.inputs: dict[int, int] = {}
        self.recorder: Recorder | None = None
        self.again: Any = None
        self.given_up = False
        self.kept = False
        self.leaves = Leaves(())
        self.state: StateMoves | None = None
        self._saved: list[Any] = []
        self._watched: list[Watched] = []

    def capsule(self) -> Tensor:
        """The tensor that autograd saves in the frame's place: int64 `[1]`, the frame's number."""
        owner = np.full(1, self.number, dtype=np.int64).view(_Owner)
        owner.frame = self
        _FRAMES[self.number] = self
        return torch.from_numpy(owner)

    @staticmethod
    def of(capsule: Tensor) -> Frame:
        """The frame behind a capsule."""
        return _FRAMES[int(capsule.item())]

    def lend(self, blocks: Mapping[int, tuple[Tier, Block, torch.dtype]]) -> None:
        """Storages that were in a tier before the step began."""
        for slot, (tier, block, dtype) in blocks.items():
            self.blocks[slot], self.dtypes[slot] = (tier, block), dtype

    def save(self, values: list[Any], watched: list[Watched]) -> None:
        """Keep what the backward reads; `watched` are those among them that somebody else can change in place."""
        self._saved, self._watched = values, watched

    def give_up(self) -> None:
        """Let go of all that was saved, on the device and in the tiers."""
        self.given_up = True
        self._saved, self._watched = [], []
        for held in (self.blocks, self.arrivals, self.forms, self.dtypes):
            held.clear()

    def take(self, *, keep: bool) -> list[Any]:
        """The saved values; unless `keep`, the frame lets go of them.

        Raises:
            MutationError: one of the watched tensors was changed in place since the forward.
            OutsizeError: the forward ran in the process that this one was forked from.
        """
        check_process(self._pid, "the forward of this step ran")
        for watched in self._watched:
            watched.check()
        values, self.kept = list(self._saved), keep
        if not keep:
            self._saved, self._watched = [], []
        return values
