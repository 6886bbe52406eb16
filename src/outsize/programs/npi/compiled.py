"""The tables in C: one execution after the other, a hundred million system calls a second.

A controller that was read off to tables and primitives whose whole domains were tabulated need no network
any more. This file lays both out as plain arrays and hands their addresses to `native/npi.c`; the numpy
machine runs the same tables and is the oracle in the tests.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import final

import numpy as np

from ...errors import NpiError
from ...native import available, kernels
from .calls import COPY, RETURNS, Action
from .machine import Limits, Stats
from .memory import Memory
from .primitive import Filling
from .sound import Registers
from .tables import Tables
from .tape import Head

__all__ = ["Compiled", "can_compile"]

#: Positions match the enum in npi.c.
_VERBS = ("read", "write", "test", "right", "left", "at end", "at start", "before", "meets", "goto", "copy", "middle",
          "seek", "call", "tail", "return", "compute")  # fmt: skip
_OUT = 22  # first word of the block that the machine writes
_WORDS = 28
_MOST_OPERANDS = 250
#: Steps and depth of an execution, as the C machine counts them.
_MOST = (1 << 62) - 1
#: A domain from its least to its largest value that is looked up by offset (64 MiB of ranks); in a wider one, or one
#: with many holes, values are searched.
_LARGEST_SPAN, _HOLES = 1 << 24, 64


def can_compile(primitives: Mapping[str, Filling]) -> bool:
    """Whether the C machine is there and every primitive has a domain that a table covers."""
    return available() and all(p.finite and p.domain_size <= 1 << 22 for p in primitives.values())


def _ranks(domain: np.ndarray) -> tuple[int, np.ndarray]:
    """How C finds a value's rank: the length of an array of ranks by offset, or minus the number of values to search."""
    span = int(domain[-1]) - int(domain[0]) + 1
    if span > min(_LARGEST_SPAN, max(1 << 16, _HOLES * len(domain))):
        return -len(domain), domain
    ranks = np.full(span, -1, dtype=np.int32)
    ranks[domain - domain[0]] = np.arange(len(domain))
    return span, ranks


@final
class Compiled:
    """Tables and primitives as arrays for the C machine.

    Args:
        tables: the controller's automaton.
        registers: from `check_decisions`: the C machine carries out what it is given unchecked.
        primitives: by slot; each of a finite domain.

    Raises:
        NpiError: a primitive has no finite domain, or the C module was not built.
    """

    def __init__(self, tables: Tables, registers: Registers, primitives: Mapping[str, Filling]) -> None:
        if kernels is None or not can_compile(primitives):
            raise NpiError(
                "the C machine needs the C module and primitives of finite domains; use engine='tables'"
            )
        self.tables, self.names = tables, [COPY, *primitives]
        self._keep: list[np.ndarray] = []
        self.ops = self._operations(tables.actions)
        self.slots = self._slots(primitives)
        # One more of each, so that an array is never empty.
        self.pointers, self.values = registers.pointers + 1, registers.values + 1

    def _operations(self, actions: Sequence[Action]) -> np.ndarray:
        width = 4 + max((len(a.operands) for a in actions), default=0)
        if width > 4 + _MOST_OPERANDS:
            raise NpiError(f"an action has {width - 4} operands, the C machine takes {_MOST_OPERANDS}")
        ops = np.zeros((len(actions), width), dtype=np.int32)
        for row, (key, operands, slot) in zip(ops, actions):
            verb, _, called = key.partition(" ")
            verb = verb if verb in ("call", "tail", "return") else key
            program = self.tables.programs.index(called) if verb in ("call", "tail") else RETURNS.get(key, 0)
            # A call has no slot; how many of its operands are pointers stands there.
            index = self.names.index(slot) if slot else sum(o[0] == "p" for o in operands)
            row[: 4 + len(operands)] = [
                _VERBS.index(verb),
                index,
                program,
                len(operands),
                *(int(o[1:]) for o in operands),
            ]
        return ops

    def _slots(self, primitives: Mapping[str, Filling]) -> np.ndarray:
        width = 3 + 4 * max((len(p.domains) for p in primitives.values()), default=0)
        rows = np.zeros((1 + len(primitives), width), dtype=np.int64)
        rows[0, 0] = -1
        for row, model in zip(rows[1:], primitives.values()):
            table, stride = model.table(), 1
            if table.dtype != np.int64 or len(table) != model.domain_size:
                raise NpiError(
                    f"the table of primitive {model.name} has {len(table)} entries of {table.dtype}"
                )
            self._keep.append(table)
            row[:3] = len(model.domains), table.ctypes.data, len(table)
            for i in reversed(range(len(model.domains))):
                domain = np.array(model.domains[i], dtype=np.int64)
                size, ranks = _ranks(domain)
                self._keep.append(ranks)
                row[3 + 4 * i : 7 + 4 * i] = domain[0], size, ranks.ctypes.data, stride
                stride *= len(domain)
        return rows

    def run(self, executions: Sequence[Sequence[Head]], limits: Limits | None = None) -> Stats:
        """As `Machine.run`; tapes and pointers change in place.

        Raises:
            NpiError: see `Machine.run`.
        """
        limits = limits or Limits()
        if not executions:
            return Stats(steps=0, rounds=0, depth=0)
        memory = Memory(executions, 1, np.dtype(np.int32))
        arity = len(executions[0])
        tape = np.ascontiguousarray(memory.tape[:, :arity])
        position = np.ascontiguousarray(memory.position[:, :arity])
        block = np.zeros(_WORDS, dtype=np.int64)
        block[:_OUT] = [
            len(executions), arity,
            *(a.ctypes.data for a in (memory.cells, memory.offset, memory.length, tape, position)),
            *(a.ctypes.data for a in (self.tables.start, self.tables.act, self.tables.follow, self.ops)),
            self.ops.shape[1], self.slots.ctypes.data, self.slots.shape[1],
            -1 if limits.steps is None else min(limits.steps, _MOST), min(limits.depth, _MOST),
            max(self.pointers, arity), self.values,
            len(self.tables.act), len(self.ops), len(self.slots), len(self.tables.start),
        ]  # fmt: skip
        assert kernels is not None
        kernels.npi_run(block.ctypes.data)
        memory.position[:, :arity] = position
        memory.unload(executions)
        steps, error, execution, a, b, deepest = block[_OUT:].tolist()
        if error:
            self._raise(error, f" (execution {execution})" if len(executions) > 1 else "", execution, a, b)
        return Stats(steps=steps, rounds=steps, depth=deepest + 1)

    def _raise(self, error: int, which: str, execution: int, a: int, b: int) -> None:
        slot = self.names[a] if error == 2 else ""
        raise NpiError(
            {
                1: f"position {a} is off the tape: -1..{b} are allowed here{which}",
                9: f"position {a} is off the tape: 0..{b} are allowed here{which}",
                2: f"primitive {slot} is called on {b} in execution {execution}, outside of its domain; train it on a "
                f"wider domain (`outsize npi swap … --primitive {slot}=FILE`) or keep the input inside",
                3: f"execution {execution} has made {a} system calls and not ended; the limit is --max-steps "
                "(Limits.steps): raise it if the input is long, else run verify",
                4: f"the stack of execution {execution} is {a} frames deep, the limit is {b}",
                8: "the tables name a register or a state that is not there: they were read off an untrained network",
                5: "the tables have no answer to an observation: they were read off an untrained network",
            }.get(error, "no memory is left for the stacks")
        )
