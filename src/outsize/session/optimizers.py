"""The optimizers of one module: the one that was given, and those that are found when they update it.

A user may forget to give an optimizer, wrap it, or have several over parts of a module. Torch tells about each step of
each optimizer (`watch.py`), so one that is not known yet is found at its first step, and counts from then on.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from typing import Any, final

import torch

from ..measure.optimizer import UpdateBytes, optimizers_in, state_storages, update_bytes
from ..runtime.tiers import Tier
from .streams import StateStreams

__all__ = ["Optimizers"]


@final
class Optimizers:
    """What updates a module, held weakly: an optimizer that is gone holds no bytes.

    Args:
        given: to `outsize.compile`, or None.
        device: whose bytes are counted.
        tiers: where their state may rest between updates.
        residents: `move` where it may, `fuse` where updates run in the backward as well, `keep`.
    """

    def __init__(
        self,
        given: Any,
        device: torch.device,
        tiers: Mapping[str, Tier] | None = None,
        *,
        residents: str = "keep",
    ) -> None:
        self._device = device
        self._roots: list[Callable[[], Any]] = []
        self._found: weakref.WeakSet[torch.optim.Optimizer] = weakref.WeakSet()
        self._left_out = False
        self._stepped: weakref.WeakSet[torch.optim.Optimizer] = weakref.WeakSet()
        #: Bytes beside what the optimizers themselves show: a step that took more than expected taught them.
        self.learned_workspace = 0
        self.expected = UpdateBytes()
        #: Whether the update under way runs steps of the module itself, in a closure.
        self.runs_steps = False
        #: Of their state, what may rest on a tier; it is counted by itself.
        moves, fuses = residents != "keep", residents == "fuse"
        tiers = tiers if tiers is not None else {}
        self.streams = StateStreams(self._given, tiers, device, moves=moves, fuses=fuses)
        if given is not None:
            self._add(given)

    def __bool__(self) -> bool:
        return bool(self._live())

    def _live(self) -> list[Any]:
        return [root for reference in self._roots if (root := reference()) is not None]

    def _given(self) -> list[torch.optim.Optimizer]:
        """Those that were given, and those that these hold."""
        return [o for o in self.all() if o not in self._found]

    def all(self) -> list[torch.optim.Optimizer]:
        """Those that are known, and those that these hold."""
        return [optimizer for root in self._live() for optimizer in optimizers_in(root)]

    def _add(self, root: Any) -> None:
        inner = optimizers_in(root)
        self._roots = [r for r in self._roots if not any(r() is one for one in inner)]  # those it wraps
        try:
            self._roots.append(weakref.ref(root))
        except TypeError:  # a wrapper with slots
            self._roots.append(lambda: root)
        self.resize()

    def resize(self) -> None:
        """Size them anew: what is there after a first step counts more than a guess."""
        self.expected = sum((update_bytes(root) for root in self._live()), UpdateBytes())

    def knows(self, optimizer: torch.optim.Optimizer) -> bool:
        """Whether it was given or found before, by itself or inside another."""
        known = self.all()
        if any(optimizer is one for one in known):
            return True
        if not any(inner is one for inner in optimizers_in(optimizer) for one in known):
            return False
        self._add(optimizer)  # a wrapper of one of them, which may have state of its own
        return True

    def found(self, optimizer: torch.optim.Optimizer) -> None:
        """It updates the module and was not known."""
        self._found.add(optimizer)
        self._add(optimizer)

    @property
    def late(self) -> bool:
        """Whether some were not given, but found."""
        return bool(len(self._found))

    def leave_out(self) -> bool:
        """Plan without the state of those that were found. False where there is none, or it is left out already."""
        if self._left_out or not len(self._found):
            return False
        self._left_out = True
        return True

    @property
    def beside(self) -> int:
        """Bytes of state that no plan counts."""
        if not self._left_out:
            return 0
        return sum(update_bytes(one).state for one in self._found)

    def begin(self) -> None:
        """A step of the module begins."""
        self._stepped.clear()

    def stepped(self, optimizer: torch.optim.Optimizer) -> bool:
        """One of them has updated the module. Whether all have since the step began."""
        if self.expected.guessed:
            self.resize()
        self._stepped.add(optimizer)
        return all(one in self._stepped for one in self.all())

    @property
    def workspace(self) -> int:
        """Bytes that an update needs for a moment."""
        return self.expected.workspace + self.learned_workspace

    def storages(self) -> dict[int, int]:
        """Bytes of the state that is there and does not move, by storage."""
        held: dict[int, int] = {}
        for root in self._live():
            held |= state_storages(root, self._device)
        for storage in self.streams.storages():
            held.pop(storage, None)
        return held

    def unborn(self) -> int:
        """Bytes of state that does not move and that updates are yet to make."""
        if not self._roots:
            return 0
        return max(0, self.expected.state - self.streams.expected_bytes - sum(self.storages().values()))
