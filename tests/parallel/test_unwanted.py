"""Updates that must not happen: overflowed, thrown away, or of parameters that nobody synchronises."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import softplus
from torch.nn.parallel import DistributedDataParallel

from outsize.parallel import (
    ParallelError,
    Search,
    Settings,
    distribute,
    load_state_dict,
    state_dict,
)

from .cluster import Failed, run
from .nets import batch, flat, loss_of, smooth

SMALL = Settings(search=Search(first_mb=0.004), staging_mb=0.05)
DEFERRED = Settings(search=Search(first_mb=0.004), staging_mb=0.05, deferred=True)


def scaled(rank: int, clip: float | None, helper: bool) -> float:
    """A gradient scaler: one infinite loss on one worker, one scale that overflows.

    In fp32: fp16 would round the two apart.
    """
    settings = Settings(search=Search(first_mb=0.004), staging_mb=0.05, deferred=True, helper=helper)
    ours, optimizer = distribute(smooth(), torch.optim.AdamW, lr=1e-3, clip_grad_norm=clip, settings=settings)
    theirs = DistributedDataParallel(smooth())
    reference = torch.optim.AdamW(theirs.parameters(), lr=1e-3)
    scalers = []
    for model, opt in ((ours, optimizer), (theirs, reference)):
        scaler = torch.amp.GradScaler("cpu", growth_interval=3)
        for step in range(10):
            opt.zero_grad()
            loss = loss_of(model(batch(step, rank)))
            if step == 4 and rank == 1:
                loss = loss * float("inf")
            scaler.scale(loss * 1e35 if step == 6 else loss).backward()
            if clip is not None and opt is reference:
                scaler.unscale_(opt)
                norm = nn.utils.clip_grad_norm_(model.parameters(), clip)
            scaler.step(opt)
            scaler.update()
        scalers.append(scaler.state_dict())
    assert scalers[0] == scalers[1]
    counts = [
        {int(opt.state[p]["step"]) for p in group}
        for opt, group in ((optimizer, ours.parameters()), (reference, theirs.parameters()))
    ]
    assert counts == [{8}, {8}]
    if clip is not None:
        torch.testing.assert_close(torch.tensor(optimizer.grad_norm), norm, rtol=1e-4, atol=0)
    return (flat(ours.module) - flat(theirs.module)).abs().max().item()


def all_scaled(rank: int) -> list[float]:
    return [scaled(rank, clip, helper) for clip in (None, 0.05) for helper in (False, True)]


def test_a_gradient_scaler_skips_what_it_skips_under_ddp() -> None:
    for found in run(2, all_scaled):
        assert max(found) <= 1e-6


def test_unscaling_by_hand_is_refused() -> None:
    model, optimizer = distribute(smooth(), torch.optim.AdamW, settings=DEFERRED)
    scaler = torch.amp.GradScaler("cpu")
    scaler.scale(loss_of(model(batch(0, 0)))).backward()
    scaler.unscale_(optimizer)
    with pytest.raises(ParallelError, match="clip_grad_norm"):
        scaler.step(optimizer)


def adversaries(rank: int, way: str) -> torch.Tensor:
    """A generator's pass leaves gradients at the discriminator, which nobody wants."""
    torch.manual_seed(5)
    generator = nn.Sequential(nn.Linear(4, 24), nn.Tanh())
    settings = DEFERRED if way == "thrown away" else SMALL
    g, of_g = distribute(generator, torch.optim.Adam, lr=1e-3, settings=settings)
    d, of_d = distribute(smooth(), torch.optim.Adam, lr=1e-3, settings=settings)
    for step in range(5):
        noise = batch(step, rank, 4)
        of_d.zero_grad()
        (softplus(-d(batch(step, rank))).mean() + softplus(d(g(noise).detach())).mean()).backward()
        of_d.step()
        of_g.zero_grad()
        if way == "kept here":
            with d.no_sync():
                softplus(-d(g(noise))).mean().backward()
        else:
            d.requires_grad_(way != "frozen")
            softplus(-d(g(noise))).mean().backward()
            d.requires_grad_(True)
        of_g.step()
        if way == "thrown away":
            of_d.zero_grad()
    return torch.cat([flat(g.module), flat(d.module)])


def all_adversaries(rank: int) -> list[torch.Tensor]:
    return [adversaries(rank, way) for way in ("kept here", "frozen", "thrown away")]


def test_gradients_that_nobody_wants_update_nothing() -> None:
    first, *others = run(2, all_adversaries)
    for found in (first, *others):
        for weights in found:
            assert torch.equal(weights, first[0])


def disagree(rank: int) -> None:
    model, optimizer = distribute(smooth(), torch.optim.AdamW, settings=DEFERRED)
    loss_of(model(batch(0, rank))).backward()
    optimizer.zero_grad() if rank else optimizer.step()


def test_all_throw_away_or_none() -> None:
    with pytest.raises(Failed, match="on rank 1 while other workers called step"):
        run(2, disagree)


def test_too_late_to_throw_away() -> None:
    model, optimizer = distribute(smooth(), torch.optim.AdamW, settings=SMALL)
    loss_of(model(batch(0, 0))).backward()
    with pytest.raises(ParallelError, match="have been used"):
        optimizer.zero_grad()
    with pytest.raises(ParallelError, match="requires_grad_"):
        model(batch(0, 0))


def test_parameters_that_nobody_would_synchronise_are_refused() -> None:
    extra = nn.Parameter(torch.ones(3))
    module = smooth()
    groups = [{"params": list(module.parameters())}, {"params": [extra]}]
    with pytest.raises(ParallelError, match=r"group 1 holds a parameter of shape \(3,\)"):
        distribute(module, torch.optim.AdamW, params=groups)
    module = smooth()
    module[0].requires_grad_(False)
    model, _ = distribute(module, torch.optim.AdamW, settings=SMALL)
    model(batch(0, 0))
    module[0].requires_grad_(True)
    with pytest.raises(ParallelError, match=r"0\.weight was frozen"):
        model(batch(0, 0))


class Again(nn.Module):
    """Reads a weight once more, detached, earlier in the forward pass: after its gradient is complete."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.late = nn.Linear(24, 24, bias=False)
        self.early = nn.Linear(24, 24)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.late(torch.tanh(self.early(x) @ self.late.weight.detach()))


def thaw(rank: int) -> Any:
    """Frozen for some steps; and a second reader, which needs deferred updates."""
    ours, optimizer = distribute(smooth(), torch.optim.AdamW, lr=1e-3, settings=SMALL)
    plain = smooth()
    reference = torch.optim.AdamW(plain.parameters(), lr=1e-3)
    again, of_again = distribute(Again(), torch.optim.AdamW, lr=1e-3, settings=DEFERRED)
    theirs = DistributedDataParallel(Again())
    of_theirs = torch.optim.AdamW(theirs.parameters(), lr=1e-3)
    for step in range(8):
        for module in (ours.module, plain):
            module[0].requires_grad_(not 2 <= step < 5)
        loss_of(ours(batch(step, rank))).backward()
        optimizer.step()
        reference.zero_grad()
        (sum(loss_of(plain(batch(step, worker))) for worker in range(2)) / 2).backward()
        reference.step()
        for model, opt in ((again, of_again), (theirs, of_theirs)):
            opt.zero_grad()
            loss_of(model(batch(step, rank))).backward()
            opt.step()
    return [(flat(a) - flat(b)).abs().max().item() for a, b in ((ours.module, plain), (again, theirs))]


def test_freezing_midway_and_reading_again() -> None:
    for apart in run(2, thaw):
        assert max(apart) <= 1e-6


class Growing(nn.Module):
    """A buffer that is replaced by a longer one in every step."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = smooth()
        self.register_buffer("seen", torch.zeros(0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen = torch.cat([self.seen, x.mean().detach()[None]])
        return self.layer(x)


def grow(rank: int) -> torch.Tensor:
    model, optimizer = distribute(Growing(), torch.optim.AdamW, settings=SMALL)
    for step in range(3):
        loss_of(model(batch(step, rank))).backward()
        optimizer.step()
    return model.module.seen


def test_buffers_may_grow() -> None:
    first, second = run(2, grow)
    assert torch.equal(first, torch.stack([batch(step, 0).mean() for step in range(3)]))
    assert torch.equal(first[:2], second[:2])


def half_resumes(rank: int) -> bool:
    """fp32 masters survive a checkpoint, ours and torch's format."""

    def build() -> Any:
        return distribute(smooth(dtype=torch.bfloat16), torch.optim.AdamW, lr=1e-4, settings=SMALL)

    def train(model: nn.Module, optimizer: torch.optim.Optimizer, first: int, last: int) -> torch.Tensor:
        for step in range(first, last):
            loss_of(model(batch(step, rank, dtype=torch.bfloat16))).backward()
            optimizer.step()
        return flat(model.module)

    model, optimizer = build()
    train(model, optimizer, 0, 5)
    weights, state = copy.deepcopy((model.module.state_dict(), optimizer.state_dict()))
    whole = state_dict(model, optimizer)
    end = train(model, optimizer, 5, 20)
    again, of_again = build()
    again.module.load_state_dict(weights)
    of_again.load_state_dict(state)
    other, of_other = build()
    load_state_dict(other, of_other, whole)
    return torch.equal(train(again, of_again, 5, 20), end) and torch.equal(train(other, of_other, 5, 20), end)


def test_half_precision_resumes_exactly() -> None:
    assert all(run(2, half_resumes))


def halve(net: nn.Module) -> None:
    net.half()


def point_elsewhere(net: nn.Module) -> None:
    net[0].weight.data = torch.ones(24, 24)


def assign(net: nn.Module) -> None:
    net.load_state_dict(smooth().state_dict(), assign=True)


def replace(net: nn.Module) -> None:
    net[0] = nn.Linear(24, 24)


@pytest.mark.parametrize("change", [halve, point_elsewhere, assign, replace])
def test_parameters_that_were_moved_or_replaced_are_noticed(change: Callable[[nn.Module], None]) -> None:
    """Their updates would go to memory that the module no longer reads."""
    model, optimizer = distribute(smooth(), torch.optim.AdamW, lr=1e-3, settings=SMALL)
    change(model.module)
    dtype = next(model.parameters()).dtype

    def step() -> None:
        loss_of(model(batch(0, 0, dtype=dtype))).backward()
        optimizer.step()

    with pytest.raises(ParallelError, match=r"moved or converted|another parameter"):
        step()


def test_what_leaves_the_parameters_alone_is_none_of_our_business() -> None:
    class Twice(nn.Module):
        def forward(self, weight: torch.Tensor) -> torch.Tensor:
            return 2 * weight

    model, optimizer = distribute(smooth(), torch.optim.SGD, lr=0.1, settings=SMALL)
    nn.utils.parametrize.register_parametrization(model.module[0], "weight", Twice())
    model.module.load_state_dict(model.module.state_dict())
    before = flat(model.module)
    loss_of(model(batch(0, 0))).backward()
    optimizer.step()
    assert not torch.equal(flat(model.module), before)


def test_an_undefined_gradient_is_none() -> None:
    """As torch's test_undefined_grad_parity_unused_parameters: autograd visits every parameter and brings nothing."""
    model, optimizer = distribute(smooth(), torch.optim.AdamW, lr=1e-3, settings=SMALL)
    before = flat(model.module)
    torch._C._functions.UndefinedGrad()(loss_of(model(batch(0, 0)))).backward()
    optimizer.step()
    assert torch.equal(flat(model.module), before)
    loss_of(model(batch(0, 0))).backward()
    optimizer.step()
    assert not torch.equal(flat(model.module), before)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_modules_that_cannot_be_trained_are_refused_by_name() -> None:
    from torch.distributed.optim import _apply_optimizer_in_backward

    stepping = nn.Linear(2, 2)
    _apply_optimizer_in_backward(torch.optim.SGD, stepping.parameters(), {"lr": 0.1})
    for net, reason in (
        (stepping, "_apply_optimizer_in_backward"),
        (nn.LazyLinear(2), "no shape yet"),
        (nn.Linear(2, 2).requires_grad_(False), "nothing to synchronise"),
    ):
        with pytest.raises(ParallelError, match=reason):
            distribute(net, torch.optim.SGD, lr=0.1)
