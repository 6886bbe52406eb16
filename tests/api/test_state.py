"""Optimizer state that rests on a tier between its updates: the plain step's bits, under budgets that it does not fit."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import outsize

STEPS = 4


class Net(nn.Module):
    """Layers whose state is worth moving, one tied, one frozen, one that nothing uses."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(192, 192) for _ in range(5))
        self.layers[3].weight = self.layers[1].weight
        self.layers[2].requires_grad_(False)
        self.idle = nn.Linear(192, 192)
        self.drop = nn.Dropout(0.1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = self.drop(torch.relu(layer(x)))
        return x


Make = Callable[[Any], torch.optim.Optimizer]
Loop = Callable[[nn.Module, torch.optim.Optimizer, torch.Tensor], torch.Tensor]


def plain(model: nn.Module, optimizer: torch.optim.Optimizer, x: torch.Tensor) -> torch.Tensor:
    optimizer.zero_grad()
    loss: torch.Tensor = model(x).square().mean()
    loss.backward()
    optimizer.step()
    return loss


def clipped(model: nn.Module, optimizer: torch.optim.Optimizer, x: torch.Tensor) -> torch.Tensor:
    optimizer.zero_grad()
    loss: torch.Tensor = model(x).square().mean()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 0.01)
    optimizer.step()
    return loss


def accumulated(model: nn.Module, optimizer: torch.optim.Optimizer, x: torch.Tensor) -> torch.Tensor:
    optimizer.zero_grad()
    losses = []
    for part in x.chunk(2):
        loss = model(part).square().mean()
        loss.backward()
        losses.append(loss.detach())
    optimizer.step()
    return torch.stack(losses)


def by_closure(model: nn.Module, optimizer: torch.optim.Optimizer, x: torch.Tensor) -> torch.Tensor:
    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss: torch.Tensor = model(x).square().mean()
        loss.backward()
        return loss

    return optimizer.step(closure)  # type: ignore[arg-type,return-value]


def skipped(model: nn.Module, optimizer: torch.optim.Optimizer, x: torch.Tensor) -> torch.Tensor:
    """As a scaler does that found a gradient which is not finite: every other step updates nothing."""
    optimizer.zero_grad()
    loss: torch.Tensor = model(x).square().mean()
    loss.backward()
    if torch.get_rng_state().sum() % 2:
        optimizer.step()
    return loss


OPTIMIZERS: dict[str, Make] = {
    "sgd momentum nesterov": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    "adam": lambda p: torch.optim.Adam(p, lr=1e-3),
    "adamw fused": lambda p: torch.optim.AdamW(p, lr=1e-3, fused=True),
    "adamw foreach": lambda p: torch.optim.AdamW(p, lr=1e-3, foreach=True),
    "adam amsgrad": lambda p: torch.optim.Adam(p, lr=1e-3, amsgrad=True),
    "adamax": lambda p: torch.optim.Adamax(p, lr=1e-3),
    "nadam": lambda p: torch.optim.NAdam(p, lr=1e-3),
    "radam": lambda p: torch.optim.RAdam(p, lr=1e-3),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=1e-3, momentum=0.5),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=1e-3),
}
LOOPS: dict[str, Loop] = {f.__name__: f for f in (plain, clipped, accumulated, by_closure, skipped)}


def groups(model: nn.Module) -> list[dict[str, Any]]:
    named = list(model.named_parameters())
    return [
        {"params": [p for n, p in named if n.endswith("weight")], "weight_decay": 0.1},
        {"params": [p for n, p in named if n.endswith("bias")], "weight_decay": 0.0},
    ]


def trained(
    make: Make,
    loop: Loop,
    budget: int | None,
    between: Callable[..., None] = lambda *_: None,
    *,
    residents: str = "move",
) -> tuple[nn.Module, torch.optim.Optimizer, list[torch.Tensor]]:
    torch.manual_seed(0)
    model = Net().train()
    optimizer = make(groups(model))
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.5)
    if budget is None:
        outsize.meter(model, optimizer=optimizer)
    else:
        outsize.compile(model, budget, optimizer=optimizer, actions=("swap",), residents=residents)
    losses = []
    for step in range(STEPS):
        losses.append(loop(model, optimizer, torch.randn(16, 192)))
        schedule.step()
        between(model, optimizer, step)
    return model, optimizer, losses


def same(a: object, b: object, *, gradients: bool = True) -> None:
    """Bits of everything that two trainings end with."""
    (model, optimizer, losses), (model2, optimizer2, losses2) = a, b  # type: ignore[misc]
    assert all(map(torch.equal, losses, losses2))
    assert all(map(torch.equal, model.state_dict().values(), model2.state_dict().values()))
    for p, q in zip(model.parameters(), model2.parameters(), strict=True) if gradients else ():
        assert (p.grad is None) == (q.grad is None)
        assert p.grad is None or torch.equal(p.grad, q.grad)
    states, states2 = optimizer.state_dict(), optimizer2.state_dict()
    assert states["param_groups"] == states2["param_groups"]
    assert states["state"].keys() == states2["state"].keys()
    for key, state in states["state"].items():
        assert state.keys() == states2["state"][key].keys()
        for name, value in state.items():
            other = states2["state"][key][name]
            assert torch.equal(value, other) if isinstance(value, torch.Tensor) else str(value) == str(other)


def away(optimizer: torch.optim.Optimizer) -> int:
    """Bytes of its state in a tier."""
    values = [v for state in optimizer.state.values() for v in state.values()]
    return sum(v.numel() * v.element_size() for v in values if getattr(v, "is_away", False))


def tight(made: tuple[nn.Module, torch.optim.Optimizer, Any]) -> int:
    """A budget that most of the state does not fit."""
    peak = outsize.report(made[0]).plain_peak_bytes  # with what is kept free for objects
    state = sum(
        v.numel() * v.element_size()
        for s in made[1].state.values()
        for v in s.values()
        if isinstance(v, torch.Tensor)
    )
    return peak - state // 2


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer(name: str) -> None:
    reference = trained(OPTIMIZERS[name], plain, None)
    found = trained(OPTIMIZERS[name], plain, budget := tight(reference))
    assert away(found[1])
    assert outsize.report(found[0]).highest_peak_bytes <= budget
    same(reference, found)


@pytest.mark.parametrize("name", LOOPS)
def test_every_loop(name: str) -> None:
    make = OPTIMIZERS["adamw fused"]
    reference = trained(make, LOOPS[name], None)
    found = trained(make, LOOPS[name], budget := tight(reference))
    assert away(found[1])
    assert outsize.report(found[0]).highest_peak_bytes <= budget
    same(reference, found)


def test_nothing_moves_that_need_not() -> None:
    reference = trained(OPTIMIZERS["adam"], plain, None)
    peak = outsize.report(reference[0]).highest_peak_bytes
    found = trained(OPTIMIZERS["adam"], plain, peak + 2**20)
    assert not away(found[1])
    assert not outsize.report(found[0]).decisions


def test_residents_that_are_kept() -> None:
    reference = trained(OPTIMIZERS["adam"], plain, None)
    model = Net().train()
    optimizer = OPTIMIZERS["adam"](groups(model))
    outsize.compile(model, tight(reference), optimizer=optimizer, actions=("swap",), residents="keep")
    with pytest.raises(outsize.BudgetError):
        plain(model, optimizer, torch.randn(16, 192))
    with pytest.raises(outsize.OutsizeError, match="residents='leave'"):
        outsize.compile(model, 2**30, residents="leave")


def test_saving_loading_and_copying_while_it_is_away() -> None:
    """Save in mid-training, load the file into another training, go on: as if nothing had been away."""
    make = OPTIMIZERS["adamw fused"]
    saved: list[tuple[dict[str, Any], dict[str, Any]]] = []

    def save(model: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
        if step == 1:
            file = io.BytesIO()
            torch.save(optimizer.state_dict(), file)
            file.seek(0)
            saved.append((torch.load(file, weights_only=True), copy.deepcopy(optimizer.state_dict())))
        if step == 2:
            optimizer.load_state_dict(copy.deepcopy(saved[-1][0]))  # whose tensors it takes as they are

    reference = trained(make, plain, None, save)
    found = trained(make, plain, tight(reference), save)
    assert away(found[1])
    same(reference, found)
    (file, copied), (file2, copied2) = saved
    for one, other in ((file, file2), (copied, copied2), (file, copied2)):
        for key, state in one["state"].items():
            assert all(torch.equal(v, other["state"][key][k]) for k, v in state.items())
            assert not any(getattr(v, "is_away", False) for v in other["state"][key].values())


def test_reading_is_allowed_and_changing_is_not() -> None:
    reference = trained(OPTIMIZERS["adam"], plain, None)
    model, optimizer, _ = trained(OPTIMIZERS["adam"], plain, tight(reference))
    value, expected = next(
        (v, reference[1].state[q][k])
        for (p, s), q in zip(optimizer.state.items(), reference[1].state)
        for k, v in s.items()
        if getattr(v, "is_away", False)
    )
    assert value.shape == expected.shape
    assert value.dtype == expected.dtype
    assert torch.equal(value + 1, expected + 1)
    assert repr(value) == repr(expected)
    assert torch.equal(value.detach().cpu(), expected)
    assert torch.equal(value.data.clone(), expected)
    assert (value.numpy() == expected.numpy()).all()
    assert value.sum().item() == expected.sum().item()
    for touch in (
        lambda: value.mul_(2),
        lambda: torch._foreach_add_([value], 1.0),
        lambda: value.view(-1),
        lambda: value.detach().add_(1),
        lambda: value.data.zero_(),
        lambda: value[0],
        lambda: value.data_ptr(),
        lambda: torch.add(value, 1, out=value),
    ):
        with pytest.raises(outsize.OutsizeError, match="rests on a tier"):
            touch()
    with outsize.resident(model):
        assert not away(optimizer)
    assert away(optimizer) == 0  # until the next step
    plain(model, optimizer, torch.randn(16, 192))
    assert away(optimizer)


def test_a_change_under_resident_counts() -> None:
    def halve(model: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
        with outsize.resident(model):
            for state in optimizer.state.values():
                state["exp_avg"].mul_(0.5)

    reference = trained(OPTIMIZERS["adam"], plain, None, halve)
    found = trained(OPTIMIZERS["adam"], plain, tight(reference), halve)
    assert outsize.report(found[0]).state_resting_bytes
    same(reference, found)


def test_release_gives_all_of_it_back() -> None:
    reference = trained(OPTIMIZERS["adam"], plain, None)
    found = trained(OPTIMIZERS["adam"], plain, tight(reference))
    assert away(found[1])
    outsize.release(found[0])
    assert not away(found[1])
    same(reference, found)
    outsize.release(reference[0])
    x = torch.randn(16, 192)
    torch.manual_seed(5)
    plain(*reference[:2], x)
    torch.manual_seed(5)
    plain(*found[:2], x)
    same(reference, found)


def test_hooks_see_the_step_as_it_is() -> None:
    """The user's hooks around a step run once, with all parameters, before and after all of the update."""
    seen: list[tuple[int, float]] = []

    def hooked(groups: Any) -> torch.optim.Optimizer:
        optimizer = OPTIMIZERS["adam"](groups)

        def look(optimizer: torch.optim.Optimizer, *_: object) -> None:
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            seen.append((len(parameters), float(sum(p.detach().sum() for p in parameters))))

        optimizer.register_step_pre_hook(look)
        optimizer.register_step_post_hook(look)
        return optimizer

    reference = trained(hooked, plain, None)
    first = list(seen)
    seen.clear()
    found = trained(hooked, plain, tight(reference))
    assert away(found[1])
    assert seen == first
    same(reference, found)


def test_parameters_that_join_later() -> None:
    def join(model: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
        if step == 1:
            model.get_submodule("layers.2").requires_grad_(True)
            optimizer.add_param_group({"params": list(model.get_submodule("layers.2").parameters())})

    def fewer(groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        for group in groups:
            group["params"] = [p for p in group["params"] if p.requires_grad]
        return OPTIMIZERS["adam"](groups)

    reference = trained(fewer, plain, None, join)
    found = trained(fewer, plain, tight(reference) + 2**17, join)
    assert away(found[1])
    same(reference, found)


def test_an_optimizer_that_looks_at_all_gradients_keeps_its_state() -> None:
    def lbfgs(groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        return torch.optim.LBFGS([p for g in groups for p in g["params"]], max_iter=2, history_size=2)

    reference = trained(lbfgs, by_closure, None)
    found = trained(lbfgs, by_closure, outsize.report(reference[0]).highest_peak_bytes + 2**21)
    assert not away(found[1])
    same(reference, found)


@pytest.mark.filterwarnings("ignore::outsize.BudgetWarning")  # each counts what the other holds
def test_one_optimizer_over_two_modules() -> None:
    """Its state moves for the first of them; the second's stays."""

    def run(*budgets: int) -> tuple[list[nn.Module], torch.optim.Optimizer, list[torch.Tensor]]:
        torch.manual_seed(0)
        models = [nn.Sequential(*(nn.Linear(192, 192) for _ in range(4))) for _ in range(2)]
        optimizer = torch.optim.Adam([p for m in models for p in m.parameters()], lr=1e-3)
        for model, budget in zip(models, budgets):
            outsize.compile(model, budget, optimizer=optimizer, actions=("swap",))
        losses = []
        for _ in range(STEPS):
            optimizer.zero_grad()
            loss = models[1](models[0](torch.randn(16, 192))).square().mean()
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
        return models, optimizer, losses

    reference, found = run(), run(int(3.6 * 2**20), 2**40)
    assert away(found[1])
    for one, other in zip(reference[0], found[0]):
        assert all(map(torch.equal, one.parameters(), other.parameters()))
    assert all(map(torch.equal, reference[2], found[2]))
