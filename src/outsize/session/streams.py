"""Optimizer state that rests on a tier: brought for its update by the plan's order, and back to rest after it.

The update stays the user's `optimizer.step()`. Torch's hooks run around it: the last of those before it does the work,
parameter by parameter with the optimizer's own step, and leaves that step nothing more to do. Gradients were clipped,
summed, unscaled and looked at by then, as in any loop; a step that is skipped updates nothing, and what was fetched for
it goes back unchanged.

With `residents="fuse"` the updates run in the backward itself, each as soon as its gradient is whole and nobody reads the
parameter any more, and the gradient goes at once. What stands in its place is an error for whoever touches it.

Private names of torch (2.11 to 2.15): `Optimizer._optimizer_step_post_hooks`, to stand before the user's hooks there.
"""

from __future__ import annotations

import functools
import warnings
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, final

import torch
from torch.utils.hooks import RemovableHandle

from ..errors import OutsizeError, TierError
from ..measure.alone import step_one, step_only
from ..prepared import Prepared
from ..runtime.away import Spent
from ..runtime.homes import MOVES, Home
from ..runtime.tiers import Tier
from ..values import StateUnit
from .movable import give_up, homes_of
from .stepping import Aside, in_order, updated, with_result

__all__ = ["StateStreams"]


@final
class StateStreams:
    """The state of one module's optimizers, as far as it may move.

    Args:
        optimizers: gives those that update the module.
        tiers: by name; the first is where state rests.
        device: of the module.
        moves: whether any may.
        fuses: whether updates run in the backward.
    """

    def __init__(
        self,
        optimizers: Callable[[], Iterable[torch.optim.Optimizer]],
        tiers: Mapping[str, Tier],
        device: torch.device,
        *,
        moves: bool,
        fuses: bool = False,
    ) -> None:
        self._optimizers, self._tiers, self._device, self._moves = optimizers, tiers, device, moves
        self._fuses = fuses
        #: Storage of an input of the step → its place.
        self._places: dict[int, int] = {}
        self._homes: dict[tuple[int, int], Home] = {}
        self._names: dict[int, str] = {}
        self._seen: list[Any] = []
        #: By slot, of the plan in force; and those among them that rest.
        self._slots: dict[int, Home] = {}
        self._resting: set[Home] = set()
        #: Those that a forward that ran again made room for itself with: the plan in force keeps them on the device.
        self._lent: set[Home] = set()
        #: By slot, of the backward under way: it may be of an earlier plan than the one in force.
        self._running: dict[int, Home] = {}
        self._made: Prepared | None = None
        self._hooks: weakref.WeakKeyDictionary[torch.optim.Optimizer, tuple[RemovableHandle, ...]] = (
            weakref.WeakKeyDictionary()
        )
        #: Parameter → its group, in the backward under way.
        self._groups: dict[int, dict[str, Any]] = {}
        self._aside = Aside()
        #: Backwards since the latest update, and how many there were between the two before.
        self._backwards, self._usual = 0, 1
        #: Whether no call waits for another backward, which would find the state beside it.
        self._last = True

    # What may move.

    @property
    def units(self) -> tuple[StateUnit, ...]:
        """What may rest on a tier, in the order of the updates."""
        return tuple(
            StateUnit(name=home.name, nbytes=home.nbytes, place=self._place(home))
            for home in self._homes.values()
        )

    def _given(self, args: Sequence[Any]) -> None:
        """The step that is planned has these inputs."""
        if self._fuses:
            tensors = ((i, a) for i, a in enumerate(args) if isinstance(a, torch.Tensor))
            self._places = {t.untyped_storage()._cdata: i for i, t in tensors if t.layout is torch.strided}

    def _place(self, home: Home) -> int:
        parameter = home.parameter
        if parameter is None or parameter._backward_hooks or parameter._post_accumulate_grad_hooks:
            return -1  # its hooks are to see the gradient
        return self._places.get(parameter.untyped_storage()._cdata, -1)

    def refresh(
        self,
        module: torch.nn.Module | None,
        args: Sequence[Any] = (),
        *,
        place: int = 0,
        under_way: bool = False,
    ) -> bool:
        """Before a call of the step with these inputs, `place` others before it in its round: look again where an
        optimizer has come or gone, or has other parameters than before. Whether what may move has changed."""
        if place:
            return self._several_calls()
        self._given(args)
        if not self._moves or under_way:
            return False
        self._aside.restore()
        seen = [(id(o), [len(g["params"]) for g in o.param_groups]) for o in self._optimizers()]
        if seen == self._seen:
            return False
        named = module.named_parameters() if module is not None else ()
        self._names = {id(p): name for name, p in named}
        before = list(self._homes.values())
        self._find()
        self._seen = seen
        return list(self._homes.values()) != before

    def _find(self) -> None:
        found = homes_of(self._optimizers(), self._homes, self._names, self._device, self._tiers, self)
        for key, home in self._homes.items():
            if key not in found:
                home.bring()
        self._homes = found

    # Bytes.

    @property
    def expected_bytes(self) -> int:
        """Of all that may move, wherever it is."""
        return sum(home.nbytes for home in self._homes.values())

    @property
    def bytes_here(self) -> int:
        """Of it, on the device."""
        return sum(home.bytes_here for home in self._homes.values())

    def storages(self) -> set[int]:
        """The storages on the device."""
        return {storage for home in self._homes.values() for storage in home.storages()}

    @property
    def kept_bytes(self) -> int:
        """Of what the plan in force keeps on the device, whether it was made yet or not."""
        return sum(home.nbytes for home in self._homes.values() if home not in self._resting)

    # A step.

    def begin(self, made: Prepared, *, under_way: bool = False) -> None:
        """A step under this plan begins: what rests in it goes, what it keeps comes. Nothing changes in one under way."""
        if under_way:
            return
        self._lent.clear()
        if made is not self._made:
            slots = [s.index for s in made.graph.storages if s.kind == "state"]
            self._slots = dict(zip(slots, self._homes.values(), strict=True))
            for slot, home in self._slots.items():
                home.slot = slot
            away = {d.storage for d in made.plan.decisions if d.storage in self._slots}
            self._resting, self._made = {self._slots[s] for s in away}, made
        for home in self._homes.values():
            if home in self._resting:
                home.rest()
            else:
                home.bring()

    def make_room(self, made: Prepared) -> tuple[int, int]:
        """A forward runs again under this plan: what rests in it goes, until the update. Its bytes, and those here."""
        away = {made.rewritten.slots.get(d.storage) for d in made.plan.decisions}
        gone = [h for h in self._homes.values() if h.name in away and h not in self._resting | self._lent]
        freed = sum(home.nbytes for home in gone), sum(home.bytes_here for home in gone)
        for home in gone:
            self._lent.add(home)
            home.rest()
        return freed

    def backward_begins(self, *, last: bool) -> None:
        """A backward of the module begins.

        Args:
            last: no other call waits for its own, and this one's graph is not kept for another.

        Raises:
            OutsizeError: its updates run in it, and this one adds to gradients that are there already.
        """
        self._aside.restore()
        self._last = last
        fused = self._fused()
        if not fused:
            return
        self._groups = {
            id(p): group for o in self._optimizers() for group in o.param_groups for p in group["params"]
        }
        several = torch.distributed.is_available() and torch.distributed.is_initialized()
        if several and torch.distributed.get_world_size() > 1:
            raise OutsizeError(
                "residents='fuse' updates parameters with the gradients of this process alone, and there are "
                f"{torch.distributed.get_world_size()}: compile with residents='move'"
            )
        if self._backwards:
            raise OutsizeError(
                "residents='fuse' updates parameters in every backward, and this is the second before optimizer.step(): "
                "to sum gradients over several, compile with residents='move'"
            )
        if name := next(
            (h.name for h in fused if h.parameter is not None and h.parameter.grad is not None), ""
        ):
            raise OutsizeError(
                f"residents='fuse' updates {name} in the backward, and it has a gradient already: set it to None before "
                "(optimizer.zero_grad() does), or compile with residents='move'"
            )
        for optimizer in self._optimizers():
            self._aside.keep(optimizer)

    def backward_done(self) -> None:
        """A backward of the module has ended."""
        self._aside.restore()
        self._backwards += 1

    def _fused(self) -> list[Home]:
        slots = self._made.fused if self._made is not None else ()
        return [self._slots[slot] for slot in slots]

    def bound(self, slots: Mapping[int, str]) -> StateStreams:
        """For a backward whose graph has the state of these parameters at these slots."""
        named = {home.name: home for home in self._homes.values()}
        self._running = {slot: named[name] for slot, name in slots.items() if name in named}
        return self

    def update(self, slot: int, gradient: torch.Tensor) -> None:
        """The gradient of a parameter is whole, and its update runs at once.

        Raises:
            OutsizeError: the optimizers are not those of the forward.
        """
        home = self._running.get(slot)
        optimizer, parameter = (home.optimizer, home.parameter) if home is not None else (None, None)
        if home is None or optimizer is None or parameter is None:
            raise OutsizeError(
                "the optimizer has changed since the forward of this backward, which updates its parameters "
                "(residents='fuse'): run the forward again"
            )
        home.wait()
        with torch.no_grad():
            parameter.grad = gradient.detach()
            try:
                step_one(optimizer, self._groups[id(parameter)], parameter)
            except BaseException:
                self._aside.restore()
                raise
            finally:
                parameter.grad = Spent(parameter)

    def write(self, slot: int) -> None:
        """It goes to rest again."""
        if (home := self._running.get(slot)) is not None:
            home.write()

    def drop(self, slot: int) -> None:
        """It has gone."""
        if (home := self._running.get(slot)) is not None:
            home.drop()

    def fetch(self, slot: int) -> None:
        """The plan's place to start bringing state back, in the backward; where several backwards come before an update,
        in the last of them."""
        home = self._running.get(slot)
        if home is not None and home in self._resting and self._last and self._backwards + 1 >= self._usual:
            home.fetch()

    def update_begins(self, optimizer: torch.optim.Optimizer) -> None:
        """Its step begins; hooks that were added since must not run after ours."""
        self._aside.restore()
        while self._lent:
            self._lent.pop().bring()
        for handle in self._hooks.pop(optimizer, ()):
            handle.remove()
        if not any(home.optimizer is optimizer for home in (*self._resting, *self._fused())):
            return
        before = optimizer.register_step_pre_hook(functools.partial(_take, self))
        after = optimizer.register_step_post_hook(functools.partial(_give_back, self))
        after_all: Any = optimizer._optimizer_step_post_hooks
        after_all.move_to_end(after.id, last=False)
        self._hooks[optimizer] = (before, after)

    def update_done(self) -> None:
        """A step of an optimizer has ended."""
        self._aside.restore()
        if self._backwards:
            self._usual, self._backwards = self._backwards, 0

    def step(
        self, optimizer: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """Take the step, unit by unit; the optimizer's own has nothing left to do."""
        given = with_result(args[1:], kwargs)
        self._aside.keep(optimizer)
        try:
            with torch.no_grad():
                self._run(optimizer)
            optimizer.param_groups = []
            return None if given is None else ((optimizer, *given[0]), given[1])
        except BaseException:  # before anybody else sees the groups, as `zero_grad` does
            self._aside.restore()
            raise

    def _run(self, optimizer: torch.optim.Optimizer) -> None:
        made = self._made
        assert made is not None
        apart = {id(home.parameter) for home in (*self._resting, *self._fused())}
        groups = {id(p): group for group in optimizer.param_groups for p in group["params"]}
        for home in self._fused():  # a backward under another plan may have left its gradient whole
            if home.optimizer is optimizer and home.updates:
                updated(home, groups)
        ops = made.graph.ops
        for entry in made.updates:
            if entry.op >= 0:
                slots = [s for s in ops[entry.op].reads if s in self._slots and s not in made.fused]
                if not slots:
                    step_only(optimizer, groups.keys() - apart)
                    continue
                home = self._slots[slots[0]]
            else:
                home = self._slots[entry.storage]
            idle = entry.kind in ("op", "fetch") and not home.updates
            if home not in self._resting or home.optimizer is not optimizer or idle:
                continue
            if entry.op >= 0:
                updated(home, groups)
            else:
                MOVES[entry.kind](home)
        in_order(optimizer)

    # Beside the steps.

    def _several_calls(self) -> bool:
        """The module is called again before a backward: the calls would find each other's state, which no plan of one of
        them knows. From now on it stays on the device. Whether it moved before.

        Raises:
            OutsizeError: updates run in the backward.
        """
        if not self._moves:
            return False
        if self._fuses:
            raise OutsizeError(
                "residents='fuse' updates parameters in the backward, and the module is called several times before one: "
                "compile with residents='move'"
            )
        self.bring_all()
        self._moves, self._homes, self._slots = False, {}, {}
        self._resting, self._made = set(), None
        return True

    def bring_all(self) -> None:
        """All state on the device: the plan no longer says where it is, until the next step begins."""
        self._aside.restore()
        for home in self._homes.values():
            home.bring()

    def close(self) -> None:
        """The module is no longer planned; the optimizers have all they had. What cannot be read back is said."""
        self._aside.restore()
        for home in self._fused():
            if (parameter := home.parameter) is not None and isinstance(parameter.grad, Spent):
                parameter.grad = None
        for home in self._homes.values():
            try:
                home.bring()
            except TierError as error:
                warnings.warn(
                    f"the optimizer's state of {home.name} stays in the tier, which is closed: {error}",
                    RuntimeWarning,
                    stacklevel=2,
                )
        for handles in list(self._hooks.values()):
            for handle in handles:
                handle.remove()
        self._hooks.clear()
        give_up(self)
        self._homes, self._slots, self._resting, self._made = {}, {}, set(), None


# Where the optimizer's step is under torch.compile, they run between its graphs. Made once: torch keeps some of each.
_take = torch.compiler.disable(StateStreams.step)
_give_back = torch.compiler.disable(lambda streams, *_: streams._aside.restore())
