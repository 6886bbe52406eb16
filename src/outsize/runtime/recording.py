"""A real step over time: each operator with its start, its end and its peak bytes, each transfer of the tiers.

The generated code of a graph says nothing of time, so a step that is recorded runs node by node instead: the same
operators on the same values, each value let go at the same place.
"""

from __future__ import annotations

import bisect
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from operator import getitem
from typing import Any, final

import torch
from torch.fx import GraphModule, Node

from ..device.clock import computed
from ..device.memory import PeakMeter
from ..device.place import CPU
from ..fx import format_target, map_nodes, node_inputs
from ..units import format_bytes
from ..values import LaneSpan, Timeline
from .ops import OPS
from .tiers import Moved, Tier

__all__ = ["Recorder"]

#: In these the step waits for a transfer; all that they do beside it takes microseconds.
_WAITS = (OPS.settle, OPS.wait)
_RUNTIME = tuple(vars(OPS).values())
#: Seconds from which on they did wait.
LEAST_WAIT = 5e-5


@final
class Recorder:
    """Records one step from now on.

    Args:
        names: of the storages, by slot.
        tiers: whose transfers are recorded.
        offset: bytes to add to those in use for those of the step: read at each operator.
        device: that the step runs on.

    On an accelerator, where operators return before they ran, each is waited for, so that a recorded step takes longer;
    its transfers run beside it. Reading clock and meter takes some 0.1 ms, which counts to the operator that follows.
    """

    def __init__(
        self,
        names: Sequence[str],
        tiers: Iterable[Tier],
        offset: Callable[[], int],
        device: torch.device = CPU,
    ) -> None:
        self._names, self._tiers, self._offset = names, tuple(tiers), offset
        self._moved: deque[Moved] = deque()
        self._spans: list[LaneSpan] = []
        self._starts: list[float] = []
        self._residency: list[int] = []
        self._stall = 0.0
        for tier in self._tiers:
            tier.watch(self._moved)
        self._device = device
        self._meter = PeakMeter(device).start()
        self._begin = computed(device)
        self._end = self._begin

    @property
    def runs(self) -> bool:
        """Whether it still records."""
        return self._meter.runs

    def run(self, graph: Any, args: list[Any]) -> list[Any]:
        """Run one graph of a rewritten step, boxed: `args` is emptied. A compiled one is a single operator."""
        if isinstance(graph, GraphModule):
            return self._each(graph, args)
        start = time.perf_counter()
        results = list(graph.forward(args))
        self._note("compiled graph", start)
        return results

    def between(self, label: str) -> None:
        """What ran since the latest operator was not the module's: the loss, the update."""
        if self.runs:
            self._note(label, self._end)

    def close(self) -> Timeline:
        """The step has ended. Times are in seconds from the start of the recording."""
        for tier in self._tiers:
            tier.watch(None)
        self._meter.stop()
        moved = [self._transfer(m) for m in sorted(self._moved, key=lambda m: m.start)]
        return Timeline(
            seconds=max([self._end - self._begin, *(span.end for span in moved)]),
            stall_seconds=self._stall,
            residency=tuple(self._residency),
            starts=tuple(self._starts),
            spans=(*self._spans, *moved),
        )

    def _each(self, graph: GraphModule, args: list[Any]) -> list[Any]:
        values: dict[Node, Any] = {}
        given = args[::-1]  # popped one by one: whoever is let go must not stay in a list
        args.clear()
        last = _last_uses(graph)
        for node in graph.graph.nodes:
            if node.op == "placeholder":
                values[node] = given.pop()
            elif node.op == "get_attr":
                values[node] = getattr(graph, node.target)
            elif node.op == "output":
                return list(map_nodes(node.args[0], values.__getitem__))
            else:
                start = time.perf_counter()
                values[node] = node.target(
                    *map_nodes(node.args, values.__getitem__), **map_nodes(node.kwargs, values.__getitem__)
                )
                for used in last.get(node, ()):
                    del values[used]
                if node.target is not getitem:
                    self._note(self._label(node), start, waits=node.target in _WAITS)
        raise AssertionError("a graph without an output")

    def _label(self, node: Node) -> str:
        if node.target not in _RUNTIME:
            return f"{node.name} ({format_target(node.target)})"
        slot = node.args[1] if isinstance(node.args[1], int) else node.args[2]
        return f"{node.target.__name__} {self._names[int(slot)]}"  # type: ignore[union-attr, arg-type]

    def _note(self, label: str, start: float, *, waits: bool = False) -> None:
        """An operator has ended. Its span begins where the one before ended: only waits leave the lane empty."""
        end = computed(self._device)
        self._starts.append(start - self._begin)
        self._residency.append(self._meter.reset() + self._offset())
        blocked = waits and end - start > LEAST_WAIT
        if blocked:
            self._stall += end - start
        if self._end < (until := start if blocked else end):
            self._spans.append(
                LaneSpan(
                    lane="compute",
                    start=self._end - self._begin,
                    end=until - self._begin,
                    entry=len(self._starts) - 1,
                    label=label,
                )
            )
        self._end = end

    def _transfer(self, moved: Moved) -> LaneSpan:
        start = moved.start - self._begin
        what = self._names[moved.slot] if moved.slot is not None else format_bytes(moved.nbytes)
        return LaneSpan(
            lane=moved.lane,
            start=start,
            end=moved.end - self._begin,
            entry=max(0, bisect.bisect_right(self._starts, start) - 1),
            label=f"{'swap_out' if moved.lane == 'out' else 'fetch'} {what}",
        )


def _last_uses(graph: GraphModule) -> dict[Node, list[Node]]:
    """Node → the values that nobody reads after it; a value that nobody reads at all goes at once."""
    seen: set[Node] = set()
    last: dict[Node, list[Node]] = {}
    for node in reversed(graph.graph.nodes):
        for read in (*node_inputs(node), node):
            if read not in seen and node.op != "output":
                last.setdefault(node, []).append(read)
            seen.add(read)
    return last
