"""Tapes, pointers and frames of a batch of executions, as arrays.

All tapes lie in one flat array. A pointer is a row of `(tape, position)` in its execution's stack of
pointers; a frame's registers name such rows, which is what passes pointers by reference. `base` is where a
frame's own pointers begin, and returning drops them. A tail call keeps those of its own pointers that it
passes on, moved down to `base`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import numpy as np

from ...errors import NpiError
from .tape import Head, Tape

__all__ = ["Memory"]


@final
class Memory:
    """See the module. The current frame of each execution is kept apart from the stack of those below it.

    Args:
        executions: pointers of each execution; tapes are copied in, and back by `unload`.
        width: numbers of controller state per frame.
        kind: their dtype.
    """

    def __init__(self, executions: Sequence[Sequence[Head]], width: int, kind: np.dtype) -> None:
        n = len(executions)
        arity = len(executions[0]) if n else 0
        self.tapes: list[Tape] = list({id(h.tape): h.tape for heads in executions for h in heads}.values())
        number = {id(tape): i for i, tape in enumerate(self.tapes)}
        self.length = np.array([len(t) for t in self.tapes], dtype=np.int64)
        self.offset = np.concatenate([[0], np.cumsum(self.length)[:-1]]).astype(np.int64)
        self.cells = _cells(self.tapes)
        self.tape = np.zeros((n, max(arity, 8)), dtype=np.int64)
        self.position = np.zeros((n, max(arity, 8)), dtype=np.int64)
        for b, heads in enumerate(executions):
            if len(heads) != arity:
                raise NpiError(f"execution {b} has {len(heads)} pointers, execution 0 has {arity}")
            self.tape[b, :arity] = [number[id(h.tape)] for h in heads]
            self.position[b, :arity] = [h.position for h in heads]
        self.top = np.full(n, arity, dtype=np.int64)
        self.registers = np.zeros((n, max(arity, 8)), dtype=np.int64)
        self.registers[:, :arity] = np.arange(arity)
        self.values = np.zeros((n, 8), dtype=np.int64)
        self.origin = np.zeros((n, 8), dtype=np.int64)
        # program, base, registers in use, values in use
        self.fields = np.zeros((n, 4), dtype=np.int64)
        self.program, self.base, self.used, self.read_count = self.fields.T
        self.base[:], self.used[:] = arity, arity
        self.seen = np.zeros(n, dtype=np.int64)
        self.state = np.zeros((n, width), dtype=kind)
        self.fresh = self.state.copy()[:1]
        if np.issubdtype(kind, np.integer):
            self.state[:] = -1
            self.fresh[:] = -1
        self.depth = np.zeros(n, dtype=np.int64)
        self.deepest, self.ended = 1, False
        self._stack: list[np.ndarray] = [
            np.zeros((n, 4, *a.shape[1:]), dtype=a.dtype) for a in self._frame_arrays()
        ]

    def _frame_arrays(self) -> list[np.ndarray]:
        return [self.fields, self.registers, self.values, self.origin, self.state]

    def unload(self, executions: Sequence[Sequence[Head]]) -> None:
        """Copy cells and the entry's pointers back."""
        for i, tape in enumerate(self.tapes):
            tape.cells[:] = self.cells[self.offset[i] : self.offset[i] + self.length[i]].tolist()
        for b, heads in enumerate(executions):
            for i, head in enumerate(heads):
                head.position = int(self.position[b, i])

    # -- positions and cells

    def positions(self, who: np.ndarray, register: int) -> np.ndarray:
        result: np.ndarray = self.position[who, self.registers[who, register]]
        return result

    def at_end(self, who: np.ndarray, register: int) -> np.ndarray:
        row = self.registers[who, register]
        result: np.ndarray = self.position[who, row] >= self.length[self.tape[who, row]]
        return result

    def place(self, who: np.ndarray, register: int, position: np.ndarray) -> int:
        row = self.registers[who, register]
        bad = (position < -1) | (position > self.length[self.tape[who, row]])
        if bad.any():
            self._off(who[bad], position[bad], -1, self.length[self.tape[who, row]][bad])
        self.position[who, row] = position
        return 0

    def shift(self, who: np.ndarray, registers: list[int], step: int) -> int:
        for register in registers:
            self.place(who, register, self.positions(who, register) + step)
        return 0

    def _cell(self, who: np.ndarray, register: int) -> tuple[np.ndarray, np.ndarray]:
        row = self.registers[who, register]
        tape, position = self.tape[who, row], self.position[who, row]
        bad = (position < 0) | (position >= self.length[tape])
        if bad.any():
            self._off(who[bad], position[bad], 0, self.length[tape][bad] - 1)
        return self.offset[tape] + position, tape

    def _off(self, who: np.ndarray, position: np.ndarray, low: int, high: np.ndarray) -> None:
        """The error of the first execution that goes astray, in the words of a plain pointer."""
        which = f" (execution {who[0]})" if len(self.program) > 1 else ""
        raise NpiError(f"position {position[0]} is off the tape: {low}..{high[0]} are allowed here{which}")

    def read(self, who: np.ndarray, registers: list[int], flat: bool) -> int:
        if flat:
            self.read_count[who] = 0
        for register in registers:
            cell, tape = self._cell(who, register)
            self.keep(who, self.cells[cell], tape)
        return 0

    def keep(self, who: np.ndarray, data: np.ndarray, origin: np.ndarray | int) -> int:
        """A new value register, of values read from (or computed from what was read from) tapes `origin`."""
        k = self.read_count[who]
        if k.max(initial=0) >= self.values.shape[1]:
            self._widen_values()
        self.values[who, k], self.origin[who, k] = data, origin
        self.read_count[who] = k + 1
        return 0

    def compute(self, who: np.ndarray, values: list[int], data: np.ndarray) -> int:
        return self.keep(who, data, self.origin[who, values[0]] if values else 0)

    def write(self, who: np.ndarray, register: int, data: np.ndarray) -> int:
        self.cells[self._cell(who, register)[0]] = data
        return 0

    def cells_near(self, who: np.ndarray, value: int) -> np.ndarray:
        """All cells of the tapes that a value register of these executions was read from, [cells, 1]."""
        tapes = np.unique(self.origin[who, value])
        parts = [self.cells[self.offset[t] : self.offset[t] + self.length[t]] for t in tapes]
        return np.concatenate(parts)[:, None]

    # -- frames

    def duplicate(self, who: np.ndarray, register: int, other: int | None) -> int:
        """A new pointer in the current frame: a copy, or half-way to another one."""
        row, new, k = self.registers[who, register], self.top[who], self.used[who]
        position = self.position[who, row]
        if other is not None:
            position = (position + self.positions(who, other)) // 2
            length = self.length[self.tape[who, row]]
            if (bad := position > length).any():
                self._off(who[bad], position[bad], -1, length[bad])
        if new.max() >= self.tape.shape[1]:
            self.tape, self.position = (_widened(a, 1) for a in (self.tape, self.position))
        if k.max() >= self.registers.shape[1]:
            self.registers = _widened(self.registers, 1)
            self._stack[1] = _widened(self._stack[1], 2)
        self.tape[who, new], self.position[who, new] = self.tape[who, row], position
        self.registers[who, k] = new
        self.top[who], self.used[who] = new + 1, k + 1
        return 0

    def enter(
        self, who: np.ndarray, program: int, registers: list[int], values: list[int], push: bool
    ) -> int:
        rows = self.registers[who[:, None], registers]
        passed, origin = (a[who[:, None], values] for a in (self.values, self.origin))
        if push:
            self._push(who)
            base = self.top[who]
        else:
            base = self.base[who]
            own = rows >= base[:, None]
            kept = np.where(own, base[:, None] + np.cumsum(own, 1) - 1, rows)
            at = who[:, None]
            tape, position = self.tape[at, rows], self.position[at, rows]
            self.tape[at, kept], self.position[at, kept] = tape, position
            self.top[who] = base + own.sum(1)
            rows = kept
        if len(registers) > self.registers.shape[1]:
            self.registers = _widened(self.registers, 1)
            self._stack[1] = _widened(self._stack[1], 2)
        self.registers[who, : len(registers)] = rows
        self.program[who], self.base[who], self.used[who], self.read_count[who] = (
            program,
            base,
            len(registers),
            len(values),
        )
        while len(values) > self.values.shape[1]:
            self._widen_values()
        self.values[who, : len(values)], self.origin[who, : len(values)] = passed, origin
        self.state[who] = self.fresh
        return 0

    def _push(self, who: np.ndarray) -> None:
        depth = self.depth[who]
        top = int(depth.max())
        if top >= self._stack[0].shape[1]:
            self._stack = [_widened(a, 1) for a in self._stack]
        for stack, current in zip(self._stack, self._frame_arrays()):
            stack[who, depth] = current[who]
        self.depth[who] = depth + 1
        self.deepest = max(self.deepest, top + 2)

    def pop(self, who: np.ndarray, answer: int, values: list[int]) -> int:
        passed = [(self.values[who, v], self.origin[who, v]) for v in values]
        self.top[who] = self.base[who]
        self.depth[who] -= 1
        depth = self.depth[who]
        if (depth < 0).any():
            self.ended = True
            passed = [(v[depth >= 0], o[depth >= 0]) for v, o in passed]
            who, depth = who[depth >= 0], depth[depth >= 0]
        for stack, current in zip(self._stack, self._frame_arrays()):
            current[who] = stack[who, depth]
        for value, tape in passed:
            self.keep(who, value, tape)
        return answer

    def _widen_values(self) -> None:
        self.values, self.origin = _widened(self.values, 1), _widened(self.origin, 1)
        self._stack[2], self._stack[3] = _widened(self._stack[2], 2), _widened(self._stack[3], 2)


def _cells(tapes: Sequence[Tape]) -> np.ndarray:
    cells = [v for t in tapes for v in t.cells]
    if strange := next((v for v in cells if type(v) is not int and type(v) is not bool), None):
        raise NpiError(f"a tape holds {strange!r}; tapes hold integers")
    try:
        return np.array(cells, dtype=np.int64)
    except OverflowError as error:
        raise NpiError("a tape holds an integer of more than 64 bits; cells have 64") from error


def _widened(array: np.ndarray, axis: int) -> np.ndarray:
    """The array with an axis twice as long, its new half zero."""
    return np.concatenate([array, np.zeros_like(array)], axis)
