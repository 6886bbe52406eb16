"""The way between an accelerator and the CPU that sums and updates for it.

Problem: a copy that the backward pass waits for hides nothing. Mechanism: gradients leave on the lane "out" after the
computation that made them; a helper thread waits for the copy, takes part in the sum, and sends what came of it back
on the lane "in" while earlier layers are still in their backward pass. Parameters that are on their way are waited
for by the layer that reads them, in the next forward pass, and by nobody else.

Nothing here knows CUDA but `pin`: lanes and events are those of `device.lanes`, and the tests run the same code on an
emulated device whose copies happen only when somebody waits for them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch
from torch import nn

from ..device.lanes import Event, Lanes
from .arena import Arena
from .chunks import Chunk, Slot
from .ring import Ring
from .rules import Memory, borrow


@final
class Bridge:
    """Copies of one worker's gradients and parameters.

    Args:
        lanes: of the device that holds the module.
        slots: of the model.
        params: on the device; `params[i]` is slot i.
    """

    def __init__(self, lanes: Lanes, slots: Sequence[Slot], params: Sequence[nn.Parameter]) -> None:
        self._lanes, self._slots, self._params = lanes, slots, params
        self._coming: dict[int, list[Event]] = {}
        self._called: set[int] = set()  # slots whose layer has been called, as far as is known

    def out(
        self, ring: Ring, number: int, chunk: Chunk, worker: int, grads: Sequence[torch.Tensor | None]
    ) -> list[Event]:
        """Start copying a chunk's gradients to this worker's place of the ring; zeros for missing ones."""
        item, base = chunk.itemsize, int(ring.sources(number)[worker])
        start, events = self._lanes.compute_event(), []
        for piece in chunk.pieces:
            grad, size = grads[piece.slot], piece.length * item
            target = borrow(base + piece.staged * item, size, torch.uint8)
            if grad is None:
                target.zero_()
                continue
            source = flat_bytes(grad)[piece.start * item : piece.start * item + size]
            events.append(self._lanes.copy("out", target, source, (start,)))
        return events

    def back(
        self,
        ring: Ring,
        number: int,
        chunk: Chunk,
        cuts: Sequence[tuple[int, int]],
        grads: Sequence[torch.Tensor | None],
    ) -> None:
        """Copy summed slices over the gradients and wait: their place is overwritten next."""
        item, events = chunk.itemsize, []
        for worker, cut in enumerate(cuts):
            base = int(ring.sources(number)[worker])
            for slot, start, staged, length in chunk.runs(*cut):
                grad = grads[slot]
                if grad is not None:
                    source = borrow(base + staged * item, length * item, torch.uint8)
                    target = flat_bytes(grad)[start * item : (start + length) * item]
                    events.append(self._lanes.copy("in", target, source, ()))
        for event in events:
            event.wait()

    def deliver(self, chunk: Chunk, memory: Memory) -> None:
        """Start copying a chunk's updated parameters to the device."""
        item, host = chunk.itemsize, memory.param.view(torch.uint8)
        for piece in chunk.pieces:
            start = (self._slots[piece.slot].offset + piece.start) * item
            source = host[start : start + piece.length * item]
            target = flat_bytes(self._params[piece.slot].detach())
            target = target[piece.start * item : (piece.start + piece.length) * item]
            event = self._lanes.copy("in", target, source, ())
            self._coming.setdefault(piece.slot, []).append(event)

    def before_layer(self, slots: Sequence[int]) -> None:
        """What the compute lane does next reads these parameters."""
        for slot in slots:
            for event in self._coming.pop(slot, ()):
                self._lanes.compute_waits(event)

    def arrive_all(self) -> None:
        """Every parameter is on the device: somebody reads them outside the module's forward pass."""
        self.before_layer(list(self._coming))

    def _before_module(self) -> None:
        """Parameters that no layer's call has announced so far may be read anywhere, by a function say."""
        self.before_layer([slot for slot in self._coming if slot not in self._called])

    def _before_call(self, slots: Sequence[int]) -> None:
        self._called.update(slots)
        self.before_layer(slots)

    def guard(self, module: nn.Module) -> None:
        """Make each layer wait for its own parameters, and the module for those of layers that are never called."""
        index = {id(p): slot for slot, p in enumerate(self._params)}
        module.register_forward_pre_hook(lambda _, __: self._before_module())
        for layer in module.modules():
            mine = [index[id(p)] for p in layer.parameters(recurse=False) if id(p) in index]
            if mine:
                layer.register_forward_pre_hook(lambda _, __, mine=mine: self._before_call(mine))


def flat_bytes(tensor: torch.Tensor) -> torch.Tensor:
    """A dense tensor's memory, in memory order."""
    return tensor.as_strided((tensor.numel(),), (1,)).view(torch.uint8)


def pin(arena: Arena, device: torch.device) -> None:
    """Register the arena with CUDA, so that its copies are asynchronous and at full speed."""
    if device.type == "cuda":
        status = torch.cuda.cudart().cudaHostRegister(arena.address, arena.layout.total, 0)
        torch.cuda.check_error(int(status))
