"""`outsize train --live`: what a long run is doing, drawn anew four times a second.

Budget, bytes alive and the highest peak stand above each other on one scale; below are the losses, the seconds of a step
and the seconds that a step waited for transfers, as lines of the latest steps.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median
from typing import TYPE_CHECKING, Any, final

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.table import Table

from ..units import format_bytes, format_seconds

if TYPE_CHECKING:
    import torch

    from ..zoo.training import Step

__all__ = ["View", "live"]

#: Columns of the bars and of the lines, and so steps that a line shows.
WIDTH = 48
_BLOCKS, _ASCII = "▁▂▃▄▅▆▇█", "_.:-=+*#"


@final
class View:
    """The table; it reads the bytes alive whenever it is drawn.

    Args:
        steps: of the run.
        budget: in bytes; None where there is none.
        in_use: bytes that the process has allocated on the device now.
    """

    def __init__(self, steps: int, budget: int | None, in_use: Callable[[], int]) -> None:
        self._steps, self._budget, self._in_use = steps, budget, in_use
        self._latest: Step | None = None
        self._beside = 0
        self._losses, self._seconds, self._stalls = (deque[float](maxlen=WIDTH) for _ in range(3))

    def add(self, step: Step) -> None:
        """A step has ended. What the process holds beside it (the interpreter, the libraries) is taken off."""
        self._latest, self._beside = step, self._in_use() - step.alive_bytes
        self._losses.append(step.loss)
        self._seconds.append(step.seconds)
        self._stalls.append(step.record.stall_seconds)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        table = Table(box=None, show_header=False, pad_edge=False)
        table.add_column(style="bold", no_wrap=True)
        table.add_column(justify="right", no_wrap=True)
        table.add_column(no_wrap=True)
        step, blocks = self._latest, _ASCII if options.ascii_only else _BLOCKS
        if step is None:
            table.add_row("step", f"0 of {self._steps}", "planning, first step")
            yield table
            return
        peak, alive = step.record.measured_peak_bytes, max(0, self._in_use() - self._beside)
        most = max(self._budget or 0, peak, alive, 1)
        table.add_row("step", f"{step.index + 1} of {self._steps}", _bar(step.index + 1, self._steps, blocks))
        if self._budget is not None:
            table.add_row("budget", format_bytes(self._budget), _bar(self._budget, most, blocks))
        table.add_row("alive", format_bytes(alive), _bar(alive, most, blocks))
        table.add_row("peak", format_bytes(peak), _bar(peak, most, blocks))
        table.add_row("loss", f"{step.loss:.4g}", _line(self._losses, blocks, lowest=min(self._losses)))
        table.add_row("step time", format_seconds(step.seconds), _line(self._seconds, blocks))
        table.add_row("stall", format_seconds(step.record.stall_seconds), _line(self._stalls, blocks))
        yield table


def _bar(value: int, most: int, blocks: str) -> str:
    return blocks[-1] * max(1 if value else 0, round(WIDTH * value / most))


def _line(values: deque[float], blocks: str, *, lowest: float = 0.0) -> str:
    """One character a step, from the lowest value to the highest of those shown. A first step, which is planned, takes a
    hundred times as long as the others: what is above twice the median is drawn as that."""
    usual = 2 * (median(values) - lowest)
    span = min(max(values) - lowest, usual) if usual > 0 else max(values) - lowest
    top = len(blocks) - 1
    return "".join(blocks[round(top * min(1.0, (v - lowest) / span)) if span > 0 else 0] for v in values)


@contextmanager
def live(console: Console, steps: int, limit: int | None, device: torch.device) -> Iterator[Any]:
    """The view on stderr; gives the function to call after each step. Where that is no terminal, its last state stays."""
    from ..device import memory

    view = View(steps, limit, lambda: memory.bytes_in_use(device))
    with Live(view, console=console, refresh_per_second=4):
        yield view.add
    if not console.is_terminal:
        console.line()
