"""Execution on explicit stacks, many inputs at once.

The controller says what to do; the machine does it: it owns tapes, pointers, frames and calls the
primitives. All executions of a batch advance together, one system call each; those that do the same thing
are done in one go. Frames are rows of arrays, so depth costs memory and no recursion, and a tail call takes
its caller's frame over.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np

from ...errors import NpiError
from .brains import Brain
from .calls import COPY, NOTHING, RETURNS, Action
from .memory import Memory
from .tape import Head

__all__ = ["UNPROVED_STEPS", "Limits", "Machine", "Stats"]

#: System calls of an execution that nobody proved to end, by engine: about half a minute each.
UNPROVED_STEPS = {"network": 500_000, "tables": 500_000, "native": 1_000_000_000}

#: A primitive: values under pointers, int64 [n, arity], to answers, int64 [n].
Primitive = Callable[[np.ndarray, np.ndarray], np.ndarray]
#: Called with (action, execution, observation) after every system call of a traced run.
Hear = Callable[[Action, int, int], None]


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Where an execution is stopped.

    Attributes:
        steps: system calls per execution. None: as many as it takes where a model is proved to end
            (`Trained.certified`), else `UNPROVED_STEPS`.
        depth: frames per execution. A frame of a network of 64 units holds 512 bytes of state and its registers.
    """

    steps: int | None = None
    depth: int = 1_000_000

    def __post_init__(self) -> None:
        for name, value in (("steps", self.steps), ("depth", self.depth)):
            if value is not None and (type(value) is not int or value < 1):
                raise NpiError(f"Limits.{name} is {value!r}; it must be an integer from 1 on")


@dataclass(frozen=True, kw_only=True)
class Stats:
    """What a run took.

    Attributes:
        steps: system calls of all executions.
        rounds: of the batch: each takes one step in every execution that is not done.
        depth: frames of the deepest stack.
    """

    steps: int
    rounds: int
    depth: int


@final
class Machine:
    """One batch of executions.

    Args:
        brain: who decides.
        primitives: by slot name.
        limits: see `Limits`.
        hear: told of every system call, if given.
        flat: value registers count from the last read, as in `long.py`.
    """

    def __init__(
        self,
        brain: Brain,
        primitives: Mapping[str, Primitive],
        limits: Limits | None = None,
        hear: Hear | None = None,
        flat: bool = False,
    ) -> None:
        self.brain, self.primitives = brain, primitives
        self.limits, self.hear, self.flat = limits or Limits(), hear, flat
        self._does: dict[Action, Callable[[np.ndarray], np.ndarray | int]] = {}

    def run(self, executions: Sequence[Sequence[Head]]) -> Stats:
        """Run the entry program on each tuple of pointers; tapes and pointers are changed in place.

        Raises:
            NpiError: a position off a tape, a primitive outside of its domain, the step or depth limit, a
                low margin under a strict brain.
        """
        self.memory = memory = Memory(executions, self.brain.width, self.brain.kind)
        self._does.clear()
        active, rounds, total, deepest = np.arange(len(executions)), 0, 0, 1
        while len(active):
            if self.limits.steps is not None and rounds >= self.limits.steps:
                memory.unload(executions)
                raise NpiError(
                    f"{len(active)} of {len(executions)} executions have made {rounds} system calls and not "
                    "ended; the limit is --max-steps (Limits.steps): raise it if the input is long, else run verify"
                )
            actions, memory.state[active] = self.brain.decide(
                memory.program[active], memory.seen[active], memory.state[active]
            )
            rounds, total = rounds + 1, total + len(active)
            for action, members in actions:
                self._do(action, active[members])
            deepest = max(deepest, memory.deepest)
            if memory.deepest > self.limits.depth:
                raise NpiError(f"the stack is {memory.deepest} frames deep, the limit is {self.limits.depth}")
            if memory.ended:
                active = active[memory.depth[active] >= 0]
                memory.ended = False
        memory.unload(executions)
        return Stats(steps=total, rounds=rounds, depth=deepest)

    def _do(self, action: Action, who: np.ndarray) -> None:
        does = self._does.get(action)
        if does is None:
            does = self._does[action] = self._compile(action)
        seen = does(who)
        self.memory.seen[who] = seen
        if self.hear is not None:
            for i, b in enumerate(who):
                self.hear(action, int(b), int(seen if isinstance(seen, int) else seen[i]))

    def _compile(self, action: Action) -> Callable[[np.ndarray], np.ndarray | int]:
        """What an action does, as a function of the executions that do it; it answers their observations."""
        memory = self.memory
        verb, _, called = action.key.partition(" ")
        pointers = [int(o[1:]) for o in action.operands if o[0] == "p"]
        values = [int(o[1:]) for o in action.operands if o[0] == "v"]
        match verb:
            case "return":
                return lambda who: memory.pop(who, RETURNS[action.key], values)
            case "call" | "tail":
                program, push = self.brain.programs.index(called), verb == "call"
                return lambda who: memory.enter(who, program, pointers, values, push)
            case "test":
                return lambda who: 1 + (self._answer(action.slot, who, values) != 0).astype(np.int64)
            case "compute":
                return lambda who: memory.compute(who, values, self._answer(action.slot, who, values))
            case "write":
                return lambda who: memory.write(who, pointers[0], self._answer(action.slot, who, values))
            case "left" | "right":
                step = 1 if verb == "right" else -1
                return lambda who: memory.shift(who, pointers, step)
        simple: dict[str, Callable[[np.ndarray], np.ndarray | int]] = {
            "read": lambda who: memory.read(who, pointers, self.flat),
            "copy": lambda who: memory.duplicate(who, pointers[0], None),
            "middle": lambda who: memory.duplicate(who, pointers[0], pointers[1]),
            "goto": lambda who: memory.place(who, pointers[0], memory.positions(who, pointers[1])),
            "seek": lambda who: memory.place(who, pointers[0], memory.values[who, values[0]]),
            "at end": lambda who: 1 + memory.at_end(who, pointers[0]),
            "at start": lambda who: 1 + (memory.positions(who, pointers[0]) < 0),
            "before": lambda who: (
                1 + (memory.positions(who, pointers[0]) < memory.positions(who, pointers[1]))
            ),
            "meets": lambda who: (
                1 + (memory.positions(who, pointers[0]) == memory.positions(who, pointers[1]))
            ),
        }
        return simple[action.key]

    def _answer(self, slot: str, who: np.ndarray, values: list[int]) -> np.ndarray:
        inputs = self.memory.values[who[:, None], values]
        if slot == COPY:
            return inputs[:, 0]
        primitive = self.primitives.get(slot)
        if primitive is None:
            raise NpiError(f"no primitive fills the slot {slot}; there are {sorted(self.primitives)}")
        near = self.memory.cells_near(who, values[0]) if len(values) == 1 else inputs
        return primitive(inputs, near)


assert NOTHING == 0
