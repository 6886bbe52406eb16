"""A forward that runs again: what that takes, and whether it would give the same bits.

A call whose backward has yet to come keeps its saved values meanwhile. Where the budget has no room for them, because
other forwards run before that backward or because autograd keeps the graph for another one, they are given up and the
forward is run once more when the backward comes. That is gradient checkpointing of the whole call, and it is right under
the same two conditions: random operators draw what they drew (the generator's state is kept), and what the forward
reads has not changed. A normaliser's running statistics may have: in training mode nothing but their own next value
depends on them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from ..errors import MutationError
from ..fx import CapturedStep
from ..plan.repeat import stale_reads_allowed
from ..values import Op

__all__ = ["Again", "RepeatFacts", "repeat_facts"]


@dataclass(frozen=True, kw_only=True)
class RepeatFacts:
    """What a step's forward does beside computing.

    Attributes:
        random: it draws from a generator.
        written: places of the inputs that its operators change in place.
        refused: why it may never run again; empty where it may.
    """

    random: bool
    written: frozenset[int]
    refused: str = ""


def repeat_facts(step: CapturedStep) -> RepeatFacts:
    """Read off the graph, once for a step."""
    forward = [op for op in step.graph.ops if op.phase == "forward"]
    changed = {s for op in forward for s in op.mutates}
    written = frozenset(i for i, node in enumerate(step.primals) if step.storage.get(node) in changed)
    talks = next((op.name for op in forward if op.effect and not op.mutates), "")
    return RepeatFacts(
        random=any(op.random for op in forward),
        written=written,
        refused=f"{talks} does more than compute" if talks else "",
    )


@final
class Again:
    """What one call of a forward was given.

    Args:
        step: the captured step.
        facts: of it.
        args: its inputs; a tensor among them is kept alive, not copied.
    """

    def __init__(self, step: CapturedStep, facts: RepeatFacts, args: list[Any]) -> None:
        self.step, self._facts = step, facts
        # A tensor that autograd made would keep its whole graph.
        self._args = [a.detach() if isinstance(a, Tensor) and a.grad_fn is not None else a for a in args]
        self._versions = [_version(a) for a in args]
        self._random = _random_state(step.device) if facts.random else None

    def storages(self) -> dict[int, int]:
        """Bytes of the inputs' storages, by storage."""
        held = (a.untyped_storage() for a in self._args if isinstance(a, Tensor))
        return {s._cdata: s.nbytes() for s in held}

    def obstacle(self) -> str:
        """Why the forward cannot run again now with the same bits; empty where it can."""
        if self._facts.refused:
            return self._facts.refused
        changed = {i for i, (a, v) in enumerate(zip(self._args, self._versions)) if v != _version(a)}
        return _reads_changed(self.step, changed) if changed else ""

    def args(self) -> list[Any]:
        """The inputs once more; what the forward changes in place is a copy.

        Raises:
            MutationError: one of them was changed since in a way that would change the results.
        """
        if obstacle := self.obstacle():
            raise MutationError(
                f"the forward of a call has to run again for its backward, since the budget has no room for what it "
                f"saved, and {obstacle}: change it after backward(), or give a larger budget"
            )
        written = self._facts.written
        return [a.clone() if i in written else a for i, a in enumerate(self._args)]

    @contextlib.contextmanager
    def replayed(self) -> Iterator[None]:
        """The random state of the call; the training loop's own comes back behind."""
        if self._random is None:
            yield
            return
        devices = [self.step.device] if self.step.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            if devices:
                torch.cuda.set_rng_state(self._random, self.step.device)
            else:
                torch.set_rng_state(self._random)
            yield


def _random_state(device: torch.device) -> Tensor:
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def _version(value: Any) -> int:
    """How often a tensor was changed in place; -1 where nobody counts (no tensor, or one of inference mode)."""
    return value._version if isinstance(value, Tensor) and not value.is_inference() else -1


def _reads_changed(step: CapturedStep, changed: set[int]) -> str:
    """What the backward would see of inputs that have changed: the first such input in words, or empty."""
    names = {
        step.storage[step.primals[i]]: step.primals[i].name
        for i in changed
        if step.primals[i] in step.storage
    }
    tainted = dict(names)
    for op in step.graph.ops:
        if op.target in ("outside", "update"):
            continue
        read = [s for s in op.reads if s in tainted and not _harmless(step, op, s)]
        if op.phase == "backward" and read:
            return f"its input {tainted[read[0]]} was changed in place since"
        if read:
            tainted.update(dict.fromkeys(op.writes, tainted[read[0]]))
        elif stale := [s for s in op.reads if s in tainted]:
            tainted.update(dict.fromkeys(op.writes[3:], tainted[stale[0]]))
    return ""


def _harmless(step: CapturedStep, op: Op, storage: int) -> bool:
    """The operator's first results do not depend on what it reads there: running statistics, in training mode."""
    if stale_reads_allowed(op, storage):
        return True
    node = step.nodes[op.index]
    if node is None or "native_batch_norm_backward" not in op.target or node.args[7] is not True:
        return False
    others = [a for i, a in enumerate(node.args) if i not in (3, 4)]
    return all(step.storage.get(a) != storage for a in others if isinstance(a, torch.fx.Node))
