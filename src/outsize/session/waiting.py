"""The calls whose backward has yet to come, what they hold meanwhile, and how they make room for others."""

from __future__ import annotations

import weakref
from typing import final

from ..runtime.frame import Frame
from .plans import Plans, least_held
from .state import Call, Round

__all__ = ["Waiting"]


@final
class Waiting:
    """By frame, weakly: a result that is dropped takes its frame along.

    Args:
        plans: of the session.
    """

    def __init__(self, plans: Plans) -> None:
        self._plans = plans
        self._calls: weakref.WeakKeyDictionary[Frame, Call] = weakref.WeakKeyDictionary()

    def __len__(self) -> int:
        return len(self._calls)

    def add(self, frame: Frame, call: Call) -> None:
        """A forward has ended."""
        self._calls[frame] = call

    def of(self, frame: Frame) -> Call | None:
        """The call of a frame."""
        return self._calls.get(frame)

    def gone(self, frame: Frame) -> Call | None:
        """Its last backward has ended. The call of the frame."""
        return self._calls.pop(frame, None)

    def untouched(self) -> list[tuple[Frame, Call]]:
        """Those that had no backward yet."""
        return [(frame, call) for frame, call in self._calls.items() if not call.done]

    def any_in(self, under_way: Round, *, but: Call | None = None) -> bool:
        """Whether a call of the round has its backward yet to come."""
        return any(call in under_way.calls and call is not but for _, call in self.untouched())

    def held(self) -> tuple[dict[int, int], int]:
        """Bytes that they keep meanwhile: of their inputs, by storage, and of saved values."""
        inputs: dict[int, int] = {}
        for frame in (frames := list(self._calls)):
            inputs |= frame.inputs
        return inputs, sum(frame.held_bytes for frame in frames)

    def may_give_up(self, frame: Frame) -> bool:
        """Whether a frame's forward could run again with the same bits."""
        again = frame.again
        return self._plans.may_repeat and not frame.given_up and again is not None and not again.obstacle()

    def let_go(self, frame: Frame, call: Call) -> int:
        """A frame gives up what it saved. The bytes that come free."""
        freed = max(0, frame.held_bytes - least_held(call.made.graph, call.step.boundary))
        frame.give_up()
        frame.held_bytes -= freed
        call.given_up += 0 if call.begun else freed
        return freed

    def give_up(self, needed: int, *, but: Frame | None = None) -> int:
        """Calls give up what they saved, those with the most first, until so many bytes are free.

        Returns:
            the bytes that came free.
        """
        freed = 0
        for frame, call in sorted(self._calls.items(), key=lambda item: -item[0].held_bytes):
            if freed >= needed:
                break
            if frame is not but and self.may_give_up(frame):
                freed += self.let_go(frame, call)
        return freed
