"""Two and three real workers against torch's DDP, and every way of stepping against the plain optimizer."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from outsize.parallel import ParallelError, Search, Settings, distribute

from .cluster import Failed, run
from .nets import batch, flat, loss_of, smooth

SMALL = Settings(search=Search(first_mb=0.004), staging_mb=0.05)


def against_ddp(rank: int, kind: type, options: dict[str, Any], update: str, settings: Settings) -> Any:
    ours, optimizer = distribute(smooth(), kind, update=update, settings=settings, timeout=20, **options)
    theirs = nn.parallel.DistributedDataParallel(smooth())
    reference = kind(theirs.parameters(), **options)
    for step in range(20):
        for model, opt in ((ours, optimizer), (theirs, reference)):
            opt.zero_grad()
            loss_of(model(batch(step, rank))).backward()
            opt.step()
    apart = (flat(ours.module) - flat(theirs.module)).abs().max().item()
    state = optimizer.state_dict()["state"]
    expected = reference.state_dict()["state"]
    assert state.keys() == expected.keys()
    for index, entries in expected.items():
        for name, value in entries.items():
            if value is not None:
                torch.testing.assert_close(torch.as_tensor(state[index][name]), value, rtol=1e-4, atol=1e-5)
    return apart, flat(ours.module), len(optimizer.chunk_plan), optimizer.chunk_plan.digest


CASES = [
    (torch.optim.AdamW, {"lr": 1e-3}),
    (torch.optim.Adam, {"lr": 1e-3, "weight_decay": 0.1, "maximize": True}),
    (torch.optim.SGD, {"lr": 0.05}),
    (torch.optim.SGD, {"lr": 0.05, "momentum": 0.9, "dampening": 0.3, "weight_decay": 0.01}),
    (torch.optim.SGD, {"lr": 0.05, "momentum": 0.9, "nesterov": True}),
    (torch.optim.AdamW, {"lr": 1e-3, "amsgrad": True}),
    (torch.optim.RMSprop, {"lr": 1e-3, "momentum": 0.5, "centered": True}),
    (torch.optim.Adagrad, {"lr": 1e-2, "initial_accumulator_value": 0.1}),
    (torch.optim.Rprop, {"lr": 1e-3}),
    (torch.optim.NAdam, {"lr": 1e-3}),
]


def agreement(rank: int, workers: int) -> Any:
    found = []
    for kind, options in CASES if workers == 2 else CASES[::4]:
        found.append((kind.__name__, *against_ddp(rank, kind, options, "cpu", SMALL)))
    found.append(("device", *against_ddp(rank, torch.optim.AdamW, {"lr": 1e-3}, "device", SMALL)))
    threaded = Settings(search=Search(first_mb=0.004), staging_mb=0.05, helper=True)
    found.append(("helper", *against_ddp(rank, torch.optim.AdamW, {"lr": 1e-3}, "cpu", threaded)))
    found.append(("helper", *against_ddp(rank, torch.optim.AdamW, {"lr": 1e-3}, "device", threaded)))
    return found


@pytest.mark.parametrize("workers", [2, 3])
def test_twenty_steps_agree_with_ddp(workers: int) -> None:
    """C5.5. 1e-6 over 20 steps on a smooth net, and the same bits and plan on every worker."""
    results = run(workers, agreement, workers)
    for name, apart, _, chunks, _ in results[0]:
        assert apart <= 1e-6, name
        assert chunks > 1, name
    for other in results[1:]:
        for mine, theirs in zip(results[0], other):
            assert torch.equal(mine[2], theirs[2])
            assert mine[4] == theirs[4]


def alone(options: dict[str, Any], **more: Any) -> torch.Tensor:
    model, optimizer = distribute(smooth(), torch.optim.AdamW, lr=1e-3, settings=SMALL, **more, **options)
    for step in range(5):
        optimizer.zero_grad()
        loss_of(model(batch(step, 0))).backward()
        optimizer.step()
    return flat(model.module)


def test_alone_it_is_a_host_optimizer() -> None:
    net = smooth()
    plain = torch.optim.AdamW(net.parameters(), lr=1e-3)
    for step in range(5):
        plain.zero_grad()
        loss_of(net(batch(step, 0))).backward()
        nn.utils.clip_grad_norm_(net.parameters(), 0.01)
        plain.step()
    torch.testing.assert_close(alone({}, clip_grad_norm=0.01), flat(net), rtol=0, atol=1e-6)


def test_half_precision_keeps_fp32_masters() -> None:
    """A bf16 model follows the fp32 trajectory of its masters: small steps are not rounded away."""
    net = smooth(dtype=torch.bfloat16)
    start = flat(net)
    model, optimizer = distribute(net, torch.optim.SGD, lr=1e-4, settings=SMALL)
    for step in range(50):
        loss_of(model(batch(step, 0, dtype=torch.bfloat16))).backward()
        optimizer.step()
    moved = torch.cat([optimizer.state[p]["master"].reshape(-1).double() for p in model.module.parameters()])
    assert (moved - start).abs().max() > 0
    bits = torch.cat([p.detach().reshape(-1) for p in model.module.parameters()])
    assert torch.equal(bits, moved.bfloat16())


def test_the_learning_rate_may_not_change_too_late() -> None:
    model, optimizer = distribute(smooth(), torch.optim.AdamW, lr=1e-3, settings=SMALL)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
    for step in range(2):
        loss_of(model(batch(step, 0))).backward()
        optimizer.step()
        schedule.step()
    assert optimizer.param_groups[0]["lr"] == 2.5e-4
    loss_of(model(batch(2, 0))).backward()
    optimizer.param_groups[0]["lr"] = 1.0
    with pytest.raises(ParallelError, match="change it before backward"):
        optimizer.step()


def test_mixed_precision() -> None:
    """bf16 autocast with either update; a gradient scaler only where it can see gradients."""
    for update in ("cpu", "device"):
        model, optimizer = distribute(smooth(), torch.optim.AdamW, lr=1e-2, update=update, settings=SMALL)
        losses = []
        for _ in range(5):
            optimizer.zero_grad()
            with torch.autocast("cpu", dtype=torch.bfloat16):
                loss = loss_of(model(batch(0, 0)))
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert losses[-1] < losses[0]
        scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
        optimizer.zero_grad()
        scaler.scale(loss_of(model(batch(1, 0)))).backward()
        if update == "cpu":
            with pytest.raises(ParallelError, match="bf16"):
                scaler.step(optimizer)
        else:
            scaler.step(optimizer)
            scaler.update()


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (
            torch.optim.Muon,
            {"lr": 1e-3, "params": "matrices"},
            "treats a parameter as a whole|could not be run",
        ),
        (torch.optim.Adafactor, {"lr": 1e-3}, "whole|could not|neither a number"),
        (torch.optim.LBFGS, {}, "could not be run"),
        (torch.optim.AdamW, {"lr": 1e-3, "capturable": True, "foreach": False}, "capturable"),
    ],
)
def test_other_optimizers_are_refused_with_the_reason(
    kind: type, options: dict[str, Any], message: str
) -> None:
    net = nn.Sequential(nn.Linear(8, 8, bias=False))
    if options.get("params"):
        options = {**options, "params": list(net.parameters())}
    with pytest.raises(ParallelError, match=message):
        distribute(net, kind, **options)
    if kind is not torch.optim.AdamW:
        distribute(net, kind, update="device", **options)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"update": "gpu"}, "'cpu' or 'device'"),
        ({"chunk_mb": 0}, "positive"),
        ({"clip_grad_norm": -1.0}, "positive"),
        ({"clip_grad_norm": 1.0, "update": "device"}, "clip_grad_norm_ before step"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ParallelError, match=message):
        distribute(smooth(), torch.optim.AdamW, lr=1e-3, **arguments)


def test_modules_that_cannot_be_distributed() -> None:
    with pytest.raises(ParallelError, match="nothing to synchronise"):
        distribute(smooth().requires_grad_(False), torch.optim.SGD, lr=0.1, params=[torch.zeros(1)])
    with pytest.raises(ParallelError, match="complex64"):
        distribute(nn.Linear(2, 2, dtype=torch.complex64), torch.optim.SGD, lr=0.1)
    net = smooth()
    with pytest.raises(ParallelError, match="in no parameter group"):
        distribute(net, torch.optim.SGD, lr=0.1, params=list(net[0].parameters()))


def different(rank: int) -> None:
    distribute(smooth(width=8 + rank), torch.optim.SGD, lr=0.1, timeout=10)


def test_workers_with_different_models_are_told() -> None:
    with pytest.raises(Failed, match="same model"):
        run(2, different)
