"""DDP's manners: accumulation, unused and tied parameters, buffers, control flow, uneven inputs, several nodes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from outsize.parallel import ParallelError, Search, Settings, distribute, shared_memory_hook

from .cluster import Failed, run
from .nets import batch, flat, loss_of, smooth

SMALL = Settings(search=Search(first_mb=0.004), staging_mb=0.05)
ADAMW = {"lr": 1e-3}


class Tangle(nn.Module):
    """A tied weight, a branch that only some workers take, a parameter nobody uses, running statistics."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.first = nn.Linear(24, 24)
        self.again = nn.Linear(24, 24)
        self.again.weight = self.first.weight
        self.norm = nn.BatchNorm1d(24)
        self.branch = nn.Linear(24, 24)
        self.nobody = nn.Linear(4, 4)
        self.head = nn.Linear(24, 5)

    def forward(self, x: torch.Tensor, detour: bool = False) -> torch.Tensor:
        x = self.norm(torch.tanh(self.again(torch.tanh(self.first(x)))))
        if detour:
            x = torch.tanh(self.branch(x))
        return self.head(x)


def tangle_step(model: nn.Module, optimizer: torch.optim.Optimizer, step: int, rank: int) -> None:
    optimizer.zero_grad()
    loss_of(model(batch(step, rank), detour=step % 3 != 0 and rank == 0)).backward()
    optimizer.step()


def tangle(rank: int, update: str, settings: Settings) -> Any:
    ours, optimizer = distribute(Tangle(), torch.optim.AdamW, update=update, settings=settings, **ADAMW)
    theirs = DistributedDataParallel(Tangle(), find_unused_parameters=True)
    reference = torch.optim.AdamW(theirs.parameters(), **ADAMW)
    for step in range(12):
        tangle_step(ours, optimizer, step, rank)
        tangle_step(theirs, reference, step, rank)
    assert torch.equal(ours.module.nobody.weight, Tangle().nobody.weight)
    assert ours.module.nobody.weight not in optimizer.state
    assert torch.equal(ours.module.first.weight, ours.module.again.weight)
    steps = {
        name: int(optimizer.state[p]["step"])
        for name, p in ours.module.named_parameters()
        if p in optimizer.state
    }
    expected = {
        n: int(reference.state[p]["step"])
        for n, p in theirs.module.named_parameters()
        if p in reference.state
    }
    assert steps == expected
    buffers = [(a - b).abs().max().item() for a, b in zip(ours.module.buffers(), theirs.module.buffers())]
    return (
        (flat(ours.module) - flat(theirs.module)).abs().max().item(),
        max(map(float, buffers)),
        flat(ours.module),
    )


def accumulation(rank: int, update: str, clip: float | None) -> float:
    more = {} if clip is None or update == "device" else {"clip_grad_norm": clip}
    ours, optimizer = distribute(smooth(), torch.optim.AdamW, update=update, settings=SMALL, **more, **ADAMW)
    theirs = DistributedDataParallel(smooth())
    reference = torch.optim.AdamW(theirs.parameters(), **ADAMW)
    for step in range(6):
        for model, opt in ((ours, optimizer), (theirs, reference)):
            with model.no_sync():
                for part in range(2):
                    loss_of(model(batch(10 * step + part, rank))).backward()
            loss_of(model(batch(10 * step + 2, rank))).backward()
            if clip is not None and not (model is ours and more):
                norm = nn.utils.clip_grad_norm_(model.parameters(), clip)
            opt.step()
            opt.zero_grad()
    if more:
        torch.testing.assert_close(torch.tensor(optimizer.grad_norm), norm, rtol=1e-4, atol=0)
    return (flat(ours.module) - flat(theirs.module)).abs().max().item()


def late_sync(rank: int) -> float:
    """Every backward pass under no_sync(): step() itself sends what has piled up."""
    ours, optimizer = distribute(smooth(), torch.optim.AdamW, settings=SMALL, **ADAMW)
    theirs = DistributedDataParallel(smooth())
    reference = torch.optim.AdamW(theirs.parameters(), **ADAMW)
    with ours.no_sync():
        loss_of(ours(batch(0, rank))).backward()
    optimizer.step()
    loss_of(theirs(batch(0, rank))).backward()
    reference.step()
    return (flat(ours.module) - flat(theirs.module)).abs().max().item()


def manners(rank: int) -> dict[str, Any]:
    helper = Settings(search=Search(first_mb=0.004), staging_mb=0.05, helper=True)
    fixed = {name: tangle(rank, *how) for name, how in {
        "cpu": ("cpu", SMALL), "device": ("device", SMALL), "helper": ("cpu", helper),
    }.items()}  # fmt: skip
    return {
        "tangle": fixed,
        "accumulation": [accumulation(rank, u, c) for u in ("cpu", "device") for c in (None, 0.02)],
        "late": late_sync(rank),
    }


def test_tangles_accumulation_and_clipping_agree_with_ddp() -> None:
    mine, theirs = run(2, manners)
    for name, (apart, buffers, weights) in mine["tangle"].items():
        assert apart <= 2e-6, name
        assert buffers <= 1e-5, name
        assert torch.equal(weights, theirs["tangle"][name][2]), name
    assert max(mine["accumulation"]) <= 1e-6
    assert mine["late"] <= 1e-6


def on_nodes(rank: int, update: str, clip: float | None) -> Any:
    """Four workers on two pretended nodes of two: slices meet their peers, nothing is broadcast."""
    settings = Settings(search=Search(first_mb=0.004), staging_mb=0.05, nodes=2)
    more = {} if clip is None else {"clip_grad_norm": clip}
    ours, optimizer = distribute(
        Tangle(), torch.optim.AdamW, update=update, settings=settings, **more, **ADAMW
    )
    theirs = DistributedDataParallel(Tangle(), find_unused_parameters=True)
    reference = torch.optim.AdamW(theirs.parameters(), **ADAMW)
    for step in range(12):
        tangle_step(ours, optimizer, step, rank)
        theirs.zero_grad()
        loss_of(theirs(batch(step, rank), detour=step % 3 != 0 and rank == 0)).backward()
        if clip is not None:
            nn.utils.clip_grad_norm_(theirs.parameters(), clip)
        reference.step()
    return (
        (flat(ours.module) - flat(theirs.module)).abs().max().item(),
        flat(ours.module),
        optimizer.chunk_plan.digest,
    )


def all_on_nodes(rank: int) -> Any:
    return [on_nodes(rank, *how) for how in (("cpu", None), ("cpu", 0.02), ("device", None))]


def test_several_nodes_on_one_machine() -> None:
    results = run(4, all_on_nodes)
    for case in range(3):
        assert results[0][case][0] <= 2e-6
        for other in results[1:]:
            assert torch.equal(results[0][case][1], other[case][1])
            assert results[0][case][2] == other[case][2]


def uneven(rank: int, update: str, divide: bool) -> float:
    ours, optimizer = distribute(Tangle(), torch.optim.AdamW, update=update, settings=SMALL, **ADAMW)
    theirs = DistributedDataParallel(Tangle(), find_unused_parameters=True)
    reference = torch.optim.AdamW(theirs.parameters(), **ADAMW)
    for model, opt in ((ours, optimizer), (theirs, reference)):
        with model.join(divide_by_initial_world_size=divide):
            for step in range(4 if rank == 0 else 7):
                opt.zero_grad()
                loss_of(model(batch(step, rank))).backward()
                opt.step()
    buffers = [(a - b).abs().max() for a, b in zip(ours.module.buffers(), theirs.module.buffers())]
    return max((flat(ours.module) - flat(theirs.module)).abs().max().item(), *map(float, buffers))


def early(rank: int) -> None:
    model, optimizer = distribute(smooth(), torch.optim.SGD, lr=0.1, settings=SMALL)
    with model.join(throw_on_early_termination=True):
        for step in range(3 + rank):
            loss_of(model(batch(step, rank))).backward()
            optimizer.step()


def joins(rank: int) -> list[float]:
    return [uneven(rank, update, divide) for update in ("cpu", "device") for divide in (True, False)]


def test_uneven_inputs() -> None:
    """Every worker ends with the model and the buffers that DDP's join gives it."""
    assert max(max(found) for found in run(2, joins)) <= 2e-6


def test_uneven_inputs_may_stop_everybody() -> None:
    with pytest.raises(Failed, match="ran out of inputs"):
        run(2, early)


def hooked(rank: int) -> bool:
    nets = [DistributedDataParallel(smooth(64), bucket_cap_mb=0.01) for _ in range(2)]
    nets[0].register_comm_hook(None, shared_memory_hook(nets[0]))
    for model in nets:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for step in range(4):
            optimizer.zero_grad()
            loss_of(model(batch(step, rank, 64))).backward()
            optimizer.step()
    return torch.equal(flat(nets[0]), flat(nets[1]))


def test_the_hook_for_plain_ddp_gives_its_bits() -> None:
    assert run(2, hooked) == [True, True]


def test_a_second_backward_pass_is_refused() -> None:
    model, _ = distribute(smooth(), torch.optim.SGD, lr=0.1, settings=SMALL)
    out = model(batch(0, 0))
    loss_of(out).backward(retain_graph=True)
    with pytest.raises((ParallelError, RuntimeError), match=r"no_sync|modified by an inplace"):
        loss_of(out).backward()


def test_forward_before_step_is_refused() -> None:
    model, _ = distribute(smooth(), torch.optim.SGD, lr=0.1, settings=SMALL)
    loss_of(model(batch(0, 0))).backward()
    with pytest.raises(ParallelError, match="half"):
        model(batch(1, 0))


def test_a_reader_of_updated_parameters_is_stopped() -> None:
    """A graph that would read a parameter after its gradient has left raises instead of reading torn values."""

    class Detached(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale, self.weight = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return ((x * self.weight) * self.weight.detach()).sin() + self.scale.exp()

    net = Detached()
    _ = distribute(net, torch.optim.SGD, lr=0.1)
    y = net.scale * net.weight.detach()  # reads weight to make scale's gradient
    z = (net.weight * 2).sum()
    z.backward()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_sparse_gradients_are_refused() -> None:
    model, _ = distribute(nn.Embedding(5, 3, sparse=True), torch.optim.SGD, lr=0.1)
    with pytest.raises(ParallelError, match="sparse=False"):
        model(torch.tensor([1])).sum().backward()


def test_groups_are_fixed() -> None:
    _, optimizer = distribute(smooth(), torch.optim.SGD, lr=0.1)
    with pytest.raises(ParallelError, match="fixed"):
        optimizer.add_param_group({"params": [nn.Parameter(torch.ones(1))]})


def test_closures_and_channels_last() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Tanh(), nn.Flatten(), nn.Linear(8 * 36, 2))
    twin = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Tanh(), nn.Flatten(), nn.Linear(8 * 36, 2))
    twin.load_state_dict(net.state_dict())
    for module in (net, twin):
        module.to(memory_format=torch.channels_last)
    model, optimizer = distribute(net, torch.optim.SGD, lr=0.01, momentum=0.5, settings=SMALL)
    plain = torch.optim.SGD(twin.parameters(), lr=0.01, momentum=0.5)
    x = torch.randn(2, 3, 8, 8).to(memory_format=torch.channels_last)
    assert net[0].weight.is_contiguous(memory_format=torch.channels_last)
    for module, opt in ((model, optimizer), (twin, plain)):

        def closure(module: nn.Module = module, opt: Any = opt) -> torch.Tensor:
            opt.zero_grad()
            loss = loss_of(module(x))
            loss.backward()
            return loss

        losses = [float(opt.step(closure).detach()) for _ in range(3)]
        assert losses[2] < losses[0]
    torch.testing.assert_close(flat(model.module), flat(twin), rtol=0, atol=1e-6)
