"""Parameters that nobody trains, as far as they rest on a tier and come for each use.

The plan's graphs fetch them themselves, by their slots. Here is what lies around a step: which of them may move, which do
in the plan in force, and that nobody finds one of them empty. Between steps each stands for its bytes
(`runtime/resting.py`); whoever touches it has it back, and it leaves again when the next forward begins.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, final

import torch

from ..errors import MutationError, TierError
from ..prepared import Prepared
from ..runtime.homes import LEAST_MOVED
from ..runtime.resting import ParameterHome, Resting, is_shared
from ..runtime.tiers import Block, Tier
from ..values import ParameterUnit

__all__ = ["Parameters"]


@final
class Parameters:
    """Those of one module.

    Args:
        tiers: by name; the first is where they rest.
        device: of the module.
        moves: whether any may.
    """

    def __init__(self, tiers: Mapping[str, Tier], device: torch.device, *, moves: bool) -> None:
        self._tiers, self._device, self._moves = tiers, device, moves and bool(tiers)
        self._homes: dict[int, ParameterHome] = {}
        #: By name, those that rest in the plan in force.
        self._resting: dict[str, ParameterHome] = {}
        #: What may rest on a tier, in the order of the inputs of the step that is planned.
        self.units: tuple[ParameterUnit, ...] = ()
        #: What would, if nobody else held its bytes.
        self.held: tuple[str, ...] = ()

    # What may move.

    def refresh(self, module: torch.nn.Module | None, args: Sequence[Any], *, place: int = 0) -> bool:
        """Before a call of the step with these inputs, `place` others before it in its round: look again. Whether what
        may move has changed."""
        if not self._moves or module is None:
            return False
        if place:  # the calls would find each other's
            return self.stop()
        places = {id(a): i for i, a in enumerate(args) if isinstance(a, torch.nn.Parameter)}
        found, before = self._found(module), {home.name: home.nbytes for home in self._homes.values()}
        for key, home in self._homes.items():
            if key not in found:
                home.bring()
        self._homes = found
        ordered = sorted(
            (places[key], home.name, home.nbytes) for key, home in found.items() if key in places
        )
        self.units = tuple(ParameterUnit(name=n, nbytes=size, place=i) for i, n, size in ordered)
        return {home.name: home.nbytes for home in found.values()} != before

    def _found(self, module: torch.nn.Module) -> dict[int, ParameterHome]:
        """Frozen, large enough, and nobody else holds their bytes. One that is here may have another dtype by now."""
        away = {id(home.parameter): home for home in self._homes.values() if not home.here}
        found, held = {}, []
        for name, parameter in module.named_parameters():
            if id(parameter) in away:
                found[id(parameter)] = away[id(parameter)]
            elif type(parameter) is torch.nn.Parameter and self._suits(parameter):
                if is_shared(parameter):
                    held.append(name)
                else:
                    found[id(parameter)] = ParameterHome(parameter, name=name, tiers=self._tiers)
        self.held = tuple(held)
        return found

    def _suits(self, parameter: torch.nn.Parameter) -> bool:
        if parameter.requires_grad or parameter.device != self._device or parameter.grad is not None:
            return False
        if parameter.layout is not torch.strided or parameter.is_inference():
            return False
        return parameter.numel() * parameter.element_size() >= LEAST_MOVED

    # Bytes.

    @property
    def bytes_away(self) -> int:
        """Of those that rest now."""
        return sum(home.nbytes for home in self._homes.values() if not home.here)

    # A step.

    @contextlib.contextmanager
    def compiled(self, module: torch.nn.Module) -> Iterator[None]:
        """Around a compiled call: what rests is an ordinary parameter for it, over an empty storage."""
        own = {id(home.parameter) for home in self._homes.values() if not home.here}
        for parameter in module.parameters():
            if type(parameter) is Resting and id(parameter) not in own:  # it rests for another module
                parameter.untyped_storage()
        for home in self._homes.values():
            home.step_back()
        try:
            yield
        finally:
            for home in self._homes.values():
                home.stand_in()

    def begin(self, made: Prepared) -> None:
        """A step under this plan begins: what rests in it goes, the others come."""
        names = set(made.rewritten.parameters.values())
        for home in self._homes.values():
            if home.name not in names:
                home.bring()
        self._resting = {home.name: home for home in self._homes.values() if home.name in names}
        for home in self._resting.values():
            home.rest()

    def blocks(self, slots: Mapping[int, str]) -> dict[int, tuple[Tier, Block, torch.dtype]]:
        """Where the graph's parameters are that have these slots."""
        homes = ((slot, self._resting[name]) for slot, name in slots.items() if name in self._resting)
        return {slot: (*home.block, home.dtype) for slot, home in homes}

    def backward_begins(self) -> None:
        """What somebody has touched since the forward goes to rest again, with the bytes that it has now: a plain
        backward reads those as well.

        Raises:
            MutationError: one was changed in place.
        """
        for home in self._resting.values():
            parameter = home.parameter
            if parameter is None or not home.here:
                continue
            if parameter._version != home.version:
                raise MutationError(
                    f"the parameter {home.name} was changed in place after the forward and before its backward: change "
                    "it after backward(), or compile with residents='move'"
                )
            if not self._moves or is_shared(parameter):
                home.renew()
            else:
                home.rest()
                home.stand_in()

    # Beside the steps.

    def bring_all(self) -> None:
        """All on the device, until the next step begins."""
        for home in self._homes.values():
            home.bring()

    def stop(self) -> bool:
        """From now on all stay. Whether any moved before."""
        moved, self._moves, self.units = bool(self._homes), False, ()
        self.bring_all()
        return moved

    def close(self) -> None:
        """The module is no longer planned, and has all it had. What cannot be read back is said."""
        for home in self._homes.values():
            try:
                home.bring()
            except TierError as error:
                warnings.warn(
                    f"the parameter {home.name} stays in the tier, which is closed: {error}",
                    RuntimeWarning,
                    stacklevel=2,
                )
        self._moves, self._homes, self._resting, self.units = False, {}, {}, ()
