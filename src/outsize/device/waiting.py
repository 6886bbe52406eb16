"""Waiting that may be interrupted anywhere, and work that may not be interrupted at all.

A signal (Ctrl-C) or an asynchronous exception strikes between any two instructions of the thread that it is meant for:
after a lock was taken and before anyone has promised to give it back, after a file was opened and before anyone holds
it. No `with` and no `try` covers that moment. So the thread that runs a step takes no lock and holds nothing that is
not an object yet: it waits at a `Latch`, each of whose operations is one instruction or harmless to repeat, and what
has to be done whole is done `aside`, on a thread that nobody interrupts.
"""

from __future__ import annotations

import _thread
import os
from collections import deque
from collections.abc import Callable
from typing import TypeVar, final

from ..errors import OutsizeError

__all__ = ["Latch", "aside", "check_process"]

T = TypeVar("T")


def check_process(pid: int, what: str) -> None:
    """What a forked child cannot go on with, since threads, tiers and meters stayed with its parent.

    Raises:
        OutsizeError: this is not process `pid`, where `what` happened.
    """
    if os.getpid() != pid:
        raise OutsizeError(
            f"{what} in process {pid}, and this is process {os.getpid()}, forked from it: threads and swapped bytes "
            "stayed there. Finish the step there; to train here, call outsize.compile here and start with a forward"
        )


@final
class Latch:
    """Closed at first, opened once, by anybody; any number of threads wait, and any of them may be interrupted."""

    __slots__ = ("_open", "_waiters")

    def __init__(self) -> None:
        self._open = False
        #: One held lock for each thread that waits. Whoever opens the latch releases them; one whose thread was
        #: interrupted meanwhile is released in vain.
        self._waiters: deque[_thread.LockType] = deque()

    @property
    def is_open(self) -> bool:
        return self._open

    def open(self) -> None:
        self._open = True
        while self._waiters:
            self._waiters.popleft().release()

    def wait(self) -> None:
        if self._open:
            return
        mine = _thread.allocate_lock()
        mine.acquire()
        self._waiters.append(mine)
        if not self._open:  # else whoever opened it may have looked before the lock was there
            mine.acquire()


def aside(work: Callable[[], T]) -> T:
    """Run `work` on a thread of its own and wait for its result.

    Where the caller is interrupted meanwhile, `work` runs to its end; what it returns is then nobody's, so it must go by
    itself when its last reference does.

    Raises:
        BaseException: what `work` raised.
    """
    results: list[T] = []
    errors: list[BaseException] = []
    ended = Latch()

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:
            errors.append(error)
        finally:
            ended.open()

    _thread.start_new_thread(run, ())
    ended.wait()
    if errors:
        raise errors.pop()
    return results.pop()
