"""Where one parameter's optimizer state is: on the device, on its way, or in a tier.

Nothing here remembers that. The optimizer's own dictionary says it: a tensor there is on the device, an `Away` is not.
So whatever a user does to the state (loads another, deletes it, changes it) is seen when it is next moved.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import Any, final

import torch

from ..errors import TierError
from .away import Away, Spent
from .tiers import Arrival, Tier

__all__ = ["LEAST_MOVED", "MOVES", "Home"]

#: Tensors of fewer bytes stay: a disk's answer takes as long as reading 160 KB more.
LEAST_MOVED = 64 * 1024


@final
class Home:
    """The state that an optimizer keeps of one parameter.

    Args:
        optimizer: held weakly.
        parameter: held weakly.
        name: of the parameter.
        nbytes: of the tensors that move, once they are there.
        tiers: by name; they rest in the first.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        parameter: torch.Tensor,
        *,
        name: str,
        nbytes: int,
        tiers: Mapping[str, Tier],
    ) -> None:
        self._optimizer, self._parameter = weakref.ref(optimizer), weakref.ref(parameter)
        self.name, self.nbytes, self._tiers = name, nbytes, tiers
        #: In the plan in force, for recordings.
        self.slot: int | None = None
        self._arrivals: dict[str, tuple[Away, Arrival]] = {}
        #: What is on the device and in the tier as well, until it is dropped here.
        self._written: dict[str, tuple[torch.Tensor, Away]] = {}

    @property
    def optimizer(self) -> torch.optim.Optimizer | None:
        return self._optimizer()

    @property
    def parameter(self) -> torch.Tensor | None:
        return self._parameter()

    @property
    def updates(self) -> bool:
        """Whether its update will do something: without a gradient it does not."""
        gradient = self.parameter.grad if self.parameter is not None else None
        return gradient is not None and not isinstance(gradient, Spent)

    def _state(self) -> dict[str, Any]:
        optimizer, parameter = self.optimizer, self.parameter
        if optimizer is None or parameter is None or parameter not in optimizer.state:
            return {}
        found: dict[str, Any] = optimizer.state[parameter]
        return found

    def _here(self) -> Iterator[tuple[str, torch.Tensor]]:
        """What is on the device and may move."""
        parameter = self.parameter
        for key, value in list(self._state().items()):
            if type(value) is torch.Tensor and parameter is not None and _movable(value, parameter.device):
                yield key, value

    def storages(self) -> dict[int, int]:
        """Bytes on the device, by storage; those of reads under way are not among them."""
        held = (value.untyped_storage() for _, value in self._here())
        return {storage._cdata: storage.nbytes() for storage in held}

    @property
    def bytes_here(self) -> int:
        arriving = sum(away.block.nbytes for away, _ in self._arrivals.values())
        return sum(self.storages().values()) + arriving

    # What the entries of a schedule do.

    def fetch(self) -> None:
        """Start to bring back what is away."""
        for key, value in self._state().items():
            if isinstance(value, Away) and key not in self._arrivals:
                self._arrivals[key] = value, value.read()

    def wait(self) -> None:
        """Wait for it: the state is whole. What was not fetched yet is fetched."""
        self.fetch()
        while self._arrivals:
            key, (away, arrival) = self._arrivals.popitem()
            tensor, state = away.over(arrival.wait()), self._state()
            if state.get(key) is away:
                state[key] = tensor

    def write(self) -> None:
        """Start to write what is on the device. Nothing may change it until `drop`."""
        tier = next(iter(self._tiers.values()))
        for key, tensor in self._here():
            self._written[key] = (
                tensor,
                Away(tier, tier.write(tensor.untyped_storage(), slot=self.slot), tensor),
            )

    def settle(self) -> None:
        """Wait for the writes."""
        for _, away in self._written.values():
            away.block.settle()

    def drop(self) -> None:
        """Let go of what was written."""
        self.settle()
        state = self._state()
        while self._written:
            key, (tensor, away) = self._written.popitem()
            if state.get(key) is tensor:
                state[key] = away

    # Whatever it is at the moment.

    def bring(self) -> None:
        """To the device; a read that failed before is tried again."""
        self._forget_reads()
        self.wait()

    def rest(self) -> None:
        """To the tier: made or loaded by the user, left by another plan's step, or fetched for an update that did not
        come."""
        self._forget_reads()
        self.write()
        self.drop()

    def _forget_reads(self) -> None:
        while self._arrivals:
            arrival = self._arrivals.popitem()[1][1]
            with contextlib.suppress(TierError):  # nobody needs these bytes; the tier still has them
                arrival.wait()


def _movable(tensor: torch.Tensor, device: torch.device) -> bool:
    """One dense run of bytes, all its own, on the device and worth a transfer."""
    if tensor.layout is not torch.strided or tensor.device != device or tensor.requires_grad:
        return False
    nbytes = tensor.numel() * tensor.element_size()
    return nbytes >= LEAST_MOVED and tensor.untyped_storage().nbytes() == nbytes


#: What the entries of a schedule do, by their kind.
MOVES: dict[str, Callable[[Home], None]] = {
    "fetch": Home.fetch,
    "wait": Home.wait,
    "swap_out": Home.write,
    "settle": Home.settle,
    "drop": Home.drop,
}
