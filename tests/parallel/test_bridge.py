"""The accelerator path on an emulated device whose copies happen only when something waits for them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from outsize.device.lanes import DeferredLanes, ThreadLanes
from outsize.parallel import Search, Settings, distribute

from .cluster import run
from .nets import batch, flat, loss_of, smooth


def settings(lanes: Any) -> Settings:
    return Settings(search=Search(first_mb=0.004), staging_mb=0.05, lanes=lanes)


def reference(workers: int, steps: int, max_norm: float | None = None) -> torch.Tensor:
    net = smooth()
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)
    for step in range(steps):
        optimizer.zero_grad()
        for rank in range(workers):
            (loss_of(net(batch(step, rank))) / workers).backward()
        if max_norm is not None:
            nn.utils.clip_grad_norm_(net.parameters(), max_norm)
        optimizer.step()
    return flat(net)


@pytest.mark.parametrize("eager", [0, 1, 99])
@pytest.mark.parametrize("max_norm", [None, 0.02])
def test_host_optimizer_of_an_emulated_device(eager: int, max_norm: float | None) -> None:
    """Gradients leave during the backward pass; each layer of the next forward pass waits for its parameters."""
    lanes = DeferredLanes(lambda waiting: eager)
    model, optimizer = distribute(
        smooth(), torch.optim.AdamW, lr=1e-3, clip_grad_norm=max_norm, settings=settings(lanes)
    )
    for step in range(5):
        loss_of(model(batch(step, 0))).backward()
        optimizer.step()
        assert all(p.grad is None for p in model.parameters())
    optimizer.state_dict()  # waits for what is still under way
    torch.testing.assert_close(flat(model.module), reference(1, 5, max_norm), rtol=0, atol=1e-6)


def test_parameters_arrive_only_where_they_are_read() -> None:
    lanes = DeferredLanes()
    net = smooth()
    model, optimizer = distribute(net, torch.optim.AdamW, lr=1e-3, settings=settings(lanes))
    loss_of(model(batch(0, 0))).backward()
    before = flat(net)
    optimizer.step()
    assert torch.equal(flat(net), before), "nothing waited, so nothing has come"
    first, last = net[0].weight.clone(), net[-1].weight.clone()
    net[-1](torch.ones(1, 24))  # its parameters left first, so they are the first on the way back
    assert not torch.equal(net[-1].weight, last)
    assert torch.equal(net[0].weight, first), "a layer waits for its own parameters only"
    net(batch(1, 0))
    assert not torch.equal(net[0].weight, first)


def test_a_layer_that_is_never_called_has_its_parameters_in_time() -> None:
    """Its weight is read by a function, so no call of the layer says when."""

    class Borrows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.lender, self.head = nn.Linear(24, 24), nn.Linear(24, 5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(torch.tanh(nn.functional.linear(x, self.lender.weight, self.lender.bias)))

    net, twin = Borrows(), Borrows()
    model, optimizer = distribute(net, torch.optim.AdamW, lr=1e-2, settings=settings(DeferredLanes()))
    plain = torch.optim.AdamW(twin.parameters(), lr=1e-2)
    for step in range(4):
        loss, expected = loss_of(model(batch(step, 0))), loss_of(twin(batch(step, 0)))
        torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-6)
        plain.zero_grad()
        for value, opt in ((loss, optimizer), (expected, plain)):
            value.backward()
            opt.step()


class Watched:
    """Lanes that note of every copy off the device whether it waits for what had been computed by then."""

    def __init__(self) -> None:
        self._lanes, self._taken, self.ordered = DeferredLanes(), [], []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._lanes, name)

    def compute_event(self) -> Any:
        self._taken.append(self._lanes.compute_event())
        return self._taken[-1]

    def copy(self, lane: str, target: torch.Tensor, source: torch.Tensor, after: tuple[Any, ...]) -> Any:
        if lane == "out":
            self.ordered.append(any(event is self._taken[-1] for event in after))
        return self._lanes.copy(lane, target, source, after)


def test_gradients_leave_after_they_are_computed() -> None:
    """An emulated device computes at once, so nothing but the events tells that a real one would be waited for."""
    lanes = Watched()
    model, optimizer = distribute(smooth(), torch.optim.AdamW, lr=1e-3, settings=settings(lanes))
    loss_of(model(batch(0, 0))).backward()
    optimizer.step()
    assert len(lanes.ordered) >= len(list(model.parameters()))
    assert all(lanes.ordered)


def on_device(rank: int, update: str) -> Any:
    model, optimizer = distribute(
        smooth(), torch.optim.AdamW, lr=1e-3, update=update, settings=settings(ThreadLanes())
    )
    for step in range(5):
        optimizer.zero_grad()
        loss_of(model(batch(step, rank))).backward()
        optimizer.step()
    model._worker.wait_idle()
    return flat(model.module)


def both(rank: int) -> Any:
    return [on_device(rank, update) for update in ("cpu", "device")]


def test_two_emulated_devices_share_one_cpu() -> None:
    """C5.2, C5.6: every device sends chunks to the CPU, which sums and updates, or sums and hands back."""
    mine, theirs = run(2, both)
    for found, other in zip(mine, theirs):
        assert torch.equal(found, other)
        torch.testing.assert_close(found, reference(2, 5), rtol=0, atol=2e-6)


def test_modules_on_no_device_are_refused() -> None:
    from outsize.parallel import ParallelError

    with pytest.raises(ParallelError, match="one real device"):
        distribute(nn.Linear(2, 2, device="meta"), torch.optim.SGD, lr=0.1)
