"""The optimizer that the user holds: torch's interface over updates that happen during the backward pass.

`step()` waits instead of computing. Parameter groups are read once per step, when the first gradient of the
step is ready, so learning-rate schedulers work as always; a change between `backward()` and `step()` would come
too late and is refused (`Settings(deferred=True)` allows it). State is one copy per node; `state_dict()` has torch's
format and loads into the plain optimizer class, and the other way round.

A gradient scaler looks for infinities in `.grad`, which has left by then. Where updates are deferred, the norm of the
summed gradients tells as much, on all workers alike: the scaler is shown that verdict in one parameter's `.grad`,
and the update divides by the scale or is left out.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from math import isfinite
from typing import Any, final, overload

import torch

from ..errors import ParallelError
from .chunks import ChunkPlan
from .rules import hyperparameters
from .sinks import UpdateSink
from .tune import Tuner
from .worker import Worker


@final
class ChunkOptimizer(torch.optim.Optimizer):
    """Made by `distribute`; stands for the optimizer class given there.

    Args:
        worker: this process.
        template: the user's optimizer, over the parameters that are shared.
        tuner: searches the size of chunks.

    Attributes:
        chunk_plan: the chunks in use; it may change between steps until the search for their size has ended.
        grad_norm: global gradient norm of the last step, before clipping; None unless updates are deferred.
    """

    def __init__(self, worker: Worker, template: torch.optim.Optimizer, tuner: Tuner) -> None:
        self._worker, self._tuner = worker, tuner
        self._ready = False
        self.kind = type(template)
        super().__init__([dict(group) for group in template.param_groups], dict(template.defaults))
        self._ready = True
        worker.groups_now = self.param_groups
        self._numbers = worker.arena.tensor("scalars", torch.float64).view(len(worker.slots), 8)

    @property
    def chunk_plan(self) -> ChunkPlan:
        """The chunks in use."""
        return self._worker.plan

    @property
    def grad_norm(self) -> float | None:
        """Global gradient norm of the last step, before clipping; None unless updates are deferred."""
        sink = self._worker.sink
        return sink.norm if isinstance(sink, UpdateSink) else None

    @property
    def _step_supports_amp_scaling(self) -> bool:
        """Only gradient scalers ask, in their `step()`, just before they look for infinities in `.grad`."""
        worker = self._worker
        if not isinstance(worker.sink, UpdateSink) or not worker.deferred:
            raise ParallelError(
                "a gradient scaler decides in step() whether there is an update, which update='cpu' makes during the "
                "backward pass: pass Settings(deferred=True) or clip_grad_norm, use update='device', or train in "
                "bf16 (autocast needs no scaler)"
            )
        worker.flush()
        worker.engine.measure()
        p = min(worker.params, key=lambda p: p.numel() or float("inf"))
        p.grad = torch.full_like(p, 0.0 if isfinite(worker.sink.norm or 0.0) else float("nan"))
        return True

    def _take_scale(self) -> None:
        """What a gradient scaler has left on this optimizer for the step to come."""
        found, scale = getattr(self, "found_inf", None), getattr(self, "grad_scale", None)
        if found is None:
            return
        if scale is None:
            raise ParallelError(
                "scaler.unscale_() found no gradients, they have left for the CPU: leave it out (step() divides by the "
                "scale) and clip with distribute(clip_grad_norm=...)"
            )
        sink = self._worker.sink
        assert isinstance(sink, UpdateSink)
        sink.unscale, sink.discard = 1 / float(scale), float(found) > 0
        for p in self._worker.params:
            p.grad = None

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Wait until every worker's gradients are in the parameters.

        Gradients accumulated under `no_sync()` (or set by hand) that have not travelled yet do so now.

        Raises:
            ParallelError: hyperparameters changed after the backward pass began.
            RankFailure: another worker died, stopped, raised or left.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        worker = self._worker
        self._take_scale()
        if worker.engine.begun and not worker.deferred and hyperparameters(self.param_groups) != worker.taken:
            raise ParallelError(
                "a hyperparameter changed between backward() and step(), after it had been used: change it "
                "before backward(), or pass Settings(deferred=True)"
            )
        self._finish()
        return loss

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop gradients that have not travelled; deferred, also those of a synchronised backward pass.

        Raises:
            ParallelError: a backward pass has been synchronised and, not being deferred, has already updated.
        """
        worker = self._worker
        if worker.engine.begun:
            if not worker.deferred or worker.node.count > 1:
                raise ParallelError(
                    "zero_grad() between backward() and step(): the gradients have been used. Run a backward pass "
                    "whose gradients are not wanted under no_sync() or with requires_grad_(False)"
                    + (", or pass Settings(deferred=True)" if worker.node.count == 1 else "")
                )
            assert isinstance(worker.sink, UpdateSink)
            worker.sink.discard = True
            self._finish()
        super().zero_grad(set_to_none)

    def _finish(self) -> None:
        worker = self._worker
        worker.places.check_identity()
        worker.flush()
        worker.complete()
        for slot, used in enumerate(worker.sink.used.tolist()):
            if used and worker.params[slot] not in self.state:
                self._expose(slot)
        self._tuner.after_step()

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Refused once distributed: the memory of all parameters is laid out by then.

        Raises:
            ParallelError: always, after `distribute` has returned.
        """
        if self._ready:
            raise ParallelError(
                "parameter groups are fixed once distributed: pass all of them as params=[...] to distribute"
            )
        super().add_param_group(param_group)

    def state_dict(self) -> dict[str, Any]:
        """In torch's format; entries are views of the shared state. Raises if a step is half done."""
        self._worker.wait_idle()
        self._refresh()
        found: dict[str, Any] = super().state_dict()
        return found

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over a state in torch's format. Every worker must call it; one per node writes."""
        worker = self._worker
        worker.wait_idle()
        super().load_state_dict(deepcopy(state_dict) if worker.node.leads else state_dict)
        given = self._given(state_dict)
        worker.control.barrier()  # nobody reads state while it is written
        for slot, p in enumerate(worker.params):
            loaded = given.get(p, {})
            self._take_over(slot, loaded)
            self.state.pop(p, None)
            if loaded:
                self._expose(slot)
        worker.control.barrier()
        worker.groups_now = self.param_groups

    def _given(self, state_dict: dict[str, Any]) -> dict[torch.Tensor, dict[str, Any]]:
        """The entries of each parameter as they are stored: torch's loading would round fp32 masters to the parameter."""
        mine = [p for group in self.param_groups for p in group["params"]]
        theirs = [index for group in state_dict["param_groups"] for index in group["params"]]
        return {p: state_dict["state"].get(index, {}) for p, index in zip(mine, theirs, strict=True)}

    def expose_all(self) -> None:
        """Show every slot's state, as before the first step it would not be (for loading a checkpoint into it)."""
        for slot, p in enumerate(self._worker.params):
            if p not in self.state:
                self._expose(slot)

    def _expose(self, slot: int) -> None:
        """Show a slot's shared state as torch shows it."""
        worker, p = self._worker, self._worker.params[slot]
        space = worker.slots[slot].space
        memory, schema = worker.memories[space], worker.schemas[space]
        entries: dict[str, Any] = {
            name: worker.view(worker.slots[slot], p, flat) for name, flat in memory.state.items()
        }
        if memory.half:
            entries["master"] = worker.view(worker.slots[slot], p, memory.master)
        if schema is None and self.kind is not torch.optim.SGD:
            entries = {"step": worker.steps[slot], **entries}
        if entries or schema is not None:
            self.state[p] = entries

    def _refresh(self) -> None:
        """Numbers per parameter, as they are now."""
        for slot, p in enumerate(self._worker.params):
            schema = self._worker.schemas[self._worker.slots[slot].space]
            if schema is not None and p in self.state:
                for column, (name, tensor) in enumerate(schema.numbers):
                    value = self._numbers[slot, column].item()
                    self.state[p][name] = torch.tensor(value, dtype=torch.float32) if tensor else value

    def _take_over(self, slot: int, loaded: dict[str, Any]) -> None:
        worker, p = self._worker, self._worker.params[slot]
        place = worker.slots[slot]
        memory, schema = worker.memories[place.space], worker.schemas[place.space]
        numbers = () if schema is None else tuple(name for name, _ in schema.numbers)
        step = loaded.get("step", 1.0 if any(v is not None for v in loaded.values()) else 0.0)
        worker.steps[slot] = float(step)
        if not worker.node.leads:
            return
        for column, name in enumerate(numbers):
            self._numbers[slot, column] = float(loaded.get(name) or 0.0)
        for name, flat in memory.state.items():
            target = worker.view(place, p, flat)
            value = loaded.get(name)
            target.zero_() if value is None else target.copy_(value)
        if memory.half:
            worker.view(place, p, memory.master).copy_(loaded.get("master", p))
