"""The module that the user holds: DDP's manners around chunk-wise synchronisation.

Gradients are caught where autograd has finished accumulating them (a hook per parameter, once per backward
pass, after all uses of a tied weight). The end of the backward pass is caught as well, so that parameters
which took no part do not make others wait.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, final

import torch
from torch import nn

from ..errors import ParallelError
from .buffers import Buffers
from .join import Turnstile
from .sinks import ReturnSink
from .startup import dense_strides
from .worker import Worker


@final
class Distributed(nn.Module):
    """Wraps a module; made by `distribute` (or `synchronize`, which leaves the update to others).

    Args:
        module: on the CPU.
        worker: this process.

    Attributes:
        module: the wrapped module.
    """

    def __init__(self, module: nn.Module, worker: Worker) -> None:
        super().__init__()
        self.module = module
        self._worker = worker
        self._buffers_sync = Buffers(worker) if worker.settings.broadcast_buffers else None
        self._turnstile = Turnstile(worker)
        self._sync = True  # what the user asked for
        self._expecting = True  # what the forward pass that the next gradients belong to asked for
        self._buffers_due = True
        self._armed = False
        self._given: set[int] = set()
        self._accumulated: set[int] = set()
        worker.flush = self._flush
        for slot, p in enumerate(worker.params):
            p.register_post_accumulate_grad_hook(self._hook(slot))

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise ParallelError(
            "a distributed module cannot be copied or pickled: copy .module, or save state_dict()"
        )

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The wrapped module's call; with gradients on, its backward pass synchronises them.

        Args:
            args: of the wrapped module.
            kwargs: of the wrapped module.

        Returns:
            what it returns.

        Raises:
            RankFailure: another worker died, stopped, raised or left.
        """
        recording = torch.is_grad_enabled()
        if self._worker.engine.begun and self._worker.template is not None:
            self._worker.wait_idle()
        self._turnstile.pass_forward(self._sync and recording, self._buffers_sync)
        if self._buffers_sync is not None and self._buffers_due:
            self._buffers_sync.run()
        self._buffers_due = recording and self._sync
        if recording:
            self._worker.check_frozen()
            self._worker.places.check_memory()
            self._expecting = self._sync
        return self.module(*args, **kwargs)

    @contextmanager
    def no_sync(self) -> Iterator[None]:
        """Gradients of forward passes in here stay on this worker and add up."""
        before, self._sync = self._sync, False
        try:
            yield
        finally:
            self._sync = before

    @contextmanager
    def join(
        self,
        divide_by_initial_world_size: bool = True,
        enable: bool = True,
        throw_on_early_termination: bool = False,
    ) -> Iterator[None]:
        """Train on uneven inputs: a worker that runs out keeps taking part until all have.

        Args:
            divide_by_initial_world_size: divide sums by all workers, or by those with inputs left.
            enable: False does nothing.
            throw_on_early_termination: raise on every worker as soon as one runs out.

        Returns:
            a context manager.
        """
        if not enable:
            yield
            return
        self._turnstile.open(divide_by_initial_world_size, throw_on_early_termination)
        try:
            yield
            self._turnstile.shadow(self._buffers_sync)
        finally:
            self._turnstile.close()

    def _hook(self, slot: int) -> Any:
        def ready(p: torch.Tensor) -> None:
            if p.grad is None:  # autograd came by with an undefined gradient: this parameter has none
                return
            if not self._expecting:
                self._accumulated.add(slot)
                return
            if slot in self._given:
                raise ParallelError(
                    f"a second backward pass reached {self._worker.names[slot]} before step(): run all but the "
                    "last of a step's backward passes (and their forward passes) under no_sync()"
                )
            if not self._armed:
                self._armed = True
                torch.autograd.Variable._execution_engine.queue_callback(self._end_of_backward)
            self._give(slot, p)

        return ready

    def _give(self, slot: int, p: torch.Tensor) -> None:
        self._given.add(slot)
        self._accumulated.discard(slot)
        assert p.grad is not None
        if p.grad.is_sparse:
            raise ParallelError(
                f"{self._worker.names[slot]} has a sparse gradient, which chunks cannot hold: build its "
                "embedding with sparse=False"
            )
        grad = p.grad.detach()
        if grad.stride() != (dense := dense_strides(p)) and not (grad.is_contiguous() and p.is_contiguous()):
            grad = torch.empty_strided(p.shape, dense, dtype=p.dtype).copy_(grad)
        self._worker.engine.ready(slot, grad)

    def _end_of_backward(self) -> None:
        self._armed = False
        for slot in sorted(self._accumulated):
            if slot not in self._given and self._worker.params[slot].grad is not None:
                self._give(slot, self._worker.params[slot])
        if isinstance(self._worker.sink, ReturnSink):
            self.finish_gradients()
        else:
            self._worker.engine.close_backward()

    def finish_gradients(self) -> None:
        """Complete a step that hands gradients back: afterwards `.grad` holds the mean over all workers."""
        worker = self._worker
        grads = worker.engine.grads
        worker.complete()
        for slot, used in enumerate(worker.sink.used.tolist()):
            p, mean = worker.params[slot], grads[slot]
            if used and mean is not None:
                if p.grad is None:
                    p.grad = mean
                elif p.grad.data_ptr() != mean.data_ptr():
                    p.grad.detach().copy_(mean)
        self._given.clear()
        self._expecting = False
        self.after_gradients()

    def after_gradients(self) -> None:
        """Called once per synchronised backward pass; replaced by whoever searches for the chunk size."""

    def _flush(self) -> None:
        """Before `step()` waits: gradients that exist but have not travelled do so now."""
        if not self._worker.engine.begun:
            for slot, p in enumerate(self._worker.params):
                if p.grad is not None:
                    self._give(slot, p)
        self._given.clear()
        self._accumulated.clear()
