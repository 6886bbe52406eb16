"""Run a rewritten step: two graphs, op by op, each value let go after its last use.

The executor owns no policy. Before each forward it asks its host which rewritten step is in force (a new one when
the resident bytes have grown, or when a first measurement corrected the prediction) and tells the host when the
forward and the backward begin and end.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, final

import torch
from torch.fx import GraphModule, Node
from torch.fx.graph import _BoxedCodeGen

from ..device.waiting import check_process
from ..fx import CapturedStep, Program, RewrittenStep
from .frame import Frame, ParameterMoves, StateMoves
from .leaves import Leaves
from .recording import Recorder
from .tiers import Tier
from .watch import Watched


class Host(ABC):
    """What an executor asks of its owner."""

    #: Moves and updates the optimizers' state.
    streams: StateMoves
    #: Parameters that rest on a tier.
    parameters: ParameterMoves

    @abstractmethod
    def begin(self, step: CapturedStep, args: list[Any]) -> RewrittenStep:
        """A forward begins with these inputs: the rewritten step to run."""

    @abstractmethod
    def forward_done(self, frame: Frame) -> None:
        """The forward has ended; the frame holds what its backward needs."""

    @abstractmethod
    def backward_begins(self, frame: Frame, tangents: list[Any], *, keep: bool) -> tuple[Frame, bool]:
        """The backward of a frame begins: the frame whose saved values it is to read, and whether they stay for another
        one. It is not the frame itself where that gave them up and the forward ran again. A tangent that did not come
        is None."""

    @abstractmethod
    def backward_done(self, frame: Frame, *, kept: bool) -> None:
        """The backward of a frame has ended; `kept` when autograd may ask for another."""

    @abstractmethod
    def aside(self) -> AbstractContextManager[None]:
        """What is allocated meanwhile and stays is no part of the step."""

    @abstractmethod
    def buffers(self) -> dict[int, str]:
        """The module's buffers: storage → name."""

    @property
    @abstractmethod
    def sampling(self) -> bool:
        """Whether the step that begins samples the densities of what it does not encode."""

    @property
    @abstractmethod
    def recorder(self) -> Recorder | None:
        """Of the step that begins, where it is to be recorded."""

    @property
    @abstractmethod
    def tiers(self) -> dict[str, Tier]:
        """By name."""


@final
class StepProgram(Program):
    """A captured step under a host's plan."""

    def __init__(self, step: CapturedStep, host: Host) -> None:
        self._step, self._host, self._pid = step, host, os.getpid()
        shared = (*step.primals, *(n for n in step.forward_outputs if isinstance(n, Node)))
        updated = {step.storage[n] for n in step.updated if n in step.storage}
        #: Storages that somebody outside can change in place, under whichever view they are saved. Those that the step
        #: itself updates when its forward has ended are read by nobody whom that changes (`check`).
        self._outside = {step.storage[n] for n in shared if n in step.storage} - updated

    def forward(self, args: list[Any]) -> list[Any]:
        check_process(self._pid, "this module's step was planned")
        rewritten = self._host.begin(self._step, args)
        frame = Frame(rewritten, self._host.tiers, sampling=self._host.sampling)
        frame.recorder = self._host.recorder
        frame.leaves = Leaves(args)
        frame.lend(self._host.parameters.blocks(rewritten.parameters))
        inputs = [frame, *args]
        args.clear()
        values = _run(rewritten.forward, inputs, frame)
        count = len(self._step.forward_outputs)
        results = {id(value) for value in values[:count]}
        # Autograd will hang the graph on the results; saved as they are, they would keep it, and it them, for ever.
        crossing = [
            v.detach() if isinstance(v, torch.Tensor) and id(v) in results else v for v in values[count:]
        ]
        del values[count:]
        frame.save(crossing, self._watched(rewritten, crossing))
        self._host.forward_done(frame)
        return [*values, frame.capsule()]

    def backward(self, args: list[Any], *, keep: bool) -> list[Any]:
        frame = Frame.of(args[0])
        missing = frozenset(i for i, tangent in enumerate(args[1:]) if tangent is None)
        full, keeps = self._host.backward_begins(frame, args[1:], keep=keep)
        full.state = self._host.streams.bound(full.program.slots)
        full.lend(self._host.parameters.blocks(full.program.parameters))
        inputs = [full, *full.take(keep=keeps), *args[1:]]
        args.clear()
        program = full.program.backward
        if missing:
            with self._host.aside():  # made when these are missing for the first time
                program = full.program.without(missing)
        gradients = _run(program, inputs, full)
        frame.leaves.spare(gradients)
        self._host.backward_done(frame, kept=keep)
        return gradients

    def _watched(self, rewritten: RewrittenStep, crossing: list[Any]) -> list[Watched]:
        """What somebody else can change before the backward reads it.

        A tensor's version tells of a change in place, but not of one through `.data` or NumPy. The eager backward sees
        those as well, except where a plan repeats an op that eager ran once: so buffers that a repeated op reads are
        watched by their bytes, too.
        """
        buffers, watched = self._host.buffers(), []
        for place, (node, value) in enumerate(zip(rewritten.crossing, crossing)):
            if node is None or self._step.storage.get(node) not in self._outside:
                continue
            if isinstance(value, torch.Tensor):
                buffer, repeated = buffers.get(value.untyped_storage()._cdata), place in rewritten.read_again
                name, by_bytes = buffer or node.name, repeated and buffer is not None
                watched.append(Watched(name, value, repeated=repeated, by_bytes=by_bytes))
        return watched


def repeat_forward(
    step: CapturedStep, program: RewrittenStep, tiers: dict[str, Tier], args: list[Any]
) -> Frame:
    """Run a forward once more for what its backward reads; its results are let go of."""
    frame = Frame(program, tiers, sampling=False)
    inputs = [frame, *args]
    args.clear()
    values = _run(program.forward, inputs, frame)
    frame.save(values[len(step.forward_outputs) :], [])
    return frame


def _run(graph: Any, inputs: list[Any], frame: Frame) -> list[Any]:
    if frame.recorder is not None and frame.recorder.runs:
        return frame.recorder.run(graph, inputs)
    return list(graph.forward(inputs))


def plain_forward(module: GraphModule) -> Callable[[list[Any]], Any]:
    """A forward without a backward (evaluation), each value let go after its last use."""
    module.graph.set_codegen(_BoxedCodeGen())
    module.recompile()
    return module.forward
