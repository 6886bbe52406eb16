"""Several forwards before a backward, a graph that is kept, several shapes: eager's bits, peaks under the budget."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import outsize
from outsize.errors import BudgetError, BudgetWarning
from outsize.prepared import Prepared
from outsize.report import page, render
from outsize.session.plans import Plans
from outsize.values import RunRecord, ShapeRecord, from_json

state = importlib.import_module("outsize.plan.state")  # `outsize.plan` is a function
ROWS = 256
Loop = Callable[[nn.Module], Tensor]


def encoder(norm: type[nn.Module] = nn.BatchNorm1d) -> nn.Module:
    layers = [
        layer for _ in range(3) for layer in (nn.Linear(128, 128), norm(128), nn.GELU(), nn.Dropout(0.1))
    ]
    return nn.Sequential(nn.Linear(32, 128), *layers, nn.Linear(128, 32))


def contrastive(module: nn.Module) -> Tensor:
    first, second = (F.normalize(module(torch.randn(ROWS, 32)), dim=1) for _ in range(2))
    loss = F.cross_entropy(first[:32] @ second[:32].T / 0.1, torch.arange(32))
    loss.backward()
    return loss


def in_turn(module: nn.Module) -> Tensor:
    losses = [module(torch.randn(rows, 32)).square().mean() for rows in (ROWS, ROWS // 2, ROWS)]
    for loss in losses:
        loss.backward()
    return torch.stack([loss.detach() for loss in losses])


def kept_graph(module: nn.Module) -> Tensor:
    result = module(torch.randn(2 * ROWS, 32))
    result.square().mean().backward(retain_graph=True)
    loss = result.abs().mean()
    loss.backward()
    return loss


def trained(
    loop: Loop,
    budget: int | None,
    *,
    steps: int = 4,
    actions: tuple[str, ...] = ("swap", "recompute", "encode"),
) -> tuple[list[Tensor], RunRecord | None]:
    """Losses, parameters, buffers and the random state after some steps."""
    torch.manual_seed(0)
    module = encoder()
    optimizer = torch.optim.SGD(module.parameters(), 0.05, momentum=0.9)
    if budget is not None:
        outsize.compile(module, budget, optimizer=optimizer, actions=actions)
    kept = []
    for _ in range(steps):
        optimizer.zero_grad()
        kept.append(loop(module).detach().clone())
        optimizer.step()
    kept += [value.clone() for value in module.state_dict().values()]
    return [*kept, torch.get_rng_state()], outsize.report(module) if budget is not None else None


def named(loop: Loop, *, most: int, **settings: tuple[str, ...]) -> tuple[int, list[Tensor], RunRecord]:
    """What a user does: ask for too little, and then for what the error names."""
    budget = 1
    for _ in range(most):
        with pytest.raises(BudgetError) as caught:
            trained(loop, budget, **settings)
        budget = caught.value.smallest_feasible_bytes
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            try:
                found, record = trained(loop, budget, **settings)
            except BudgetError:
                continue
        assert record is not None
        return budget, found, record
    raise AssertionError(f"none of {most} budgets that the errors named works")


@pytest.mark.parametrize("loop", [contrastive, in_turn, kept_graph])
def test_the_budget_that_an_error_names_works_for_calls_that_wait(loop: Loop) -> None:
    plain, _ = trained(loop, None)
    _, free = trained(loop, 2**40)
    budget, found, record = named(loop, most=2)
    assert free is not None
    assert budget < 0.75 * free.highest_peak_bytes
    assert record.highest_peak_bytes <= budget, "the first round included"
    assert all(torch.equal(a, b) for a, b in zip(plain, found, strict=True))


def test_a_kept_graph_holds_the_budget_by_recomputing_alone_and_is_refused_by_swaps_alone() -> None:
    plain, _ = trained(kept_graph, None)
    budget, found, record = named(kept_graph, most=2, actions=("recompute",))
    assert record.highest_peak_bytes <= budget
    assert all(torch.equal(a, b) for a, b in zip(plain, found, strict=True))
    with pytest.raises(BudgetError, match=r"retain_graph=True.*allow 'recompute'") as caught:
        trained(kept_graph, budget, actions=("swap",))
    _, record_of_swaps = trained(kept_graph, caught.value.smallest_feasible_bytes, actions=("swap",))
    assert record_of_swaps is not None
    assert record_of_swaps.highest_peak_bytes <= caught.value.smallest_feasible_bytes


@pytest.mark.filterwarnings("ignore::outsize.errors.BudgetWarning")
def test_what_lies_between_two_backwards_counts() -> None:
    """The loss's own backward runs again beside the gradients of the first: more than the forward left room for. It is
    seen in the first step that makes it (a warning); from then on the budget holds or is refused."""
    budget, named_in_turn = 1, []
    for _ in range(5):
        torch.manual_seed(0)
        module = nn.Sequential(*[layer for _ in range(6) for layer in (nn.Linear(128, 128), nn.ReLU())])
        optimizer = torch.optim.RMSprop(module.parameters(), 1e-3, momentum=0.5)
        outsize.compile(module, budget, optimizer=optimizer, actions=("encode",), door="captured")
        try:
            for _ in range(3):
                optimizer.zero_grad()
                loss = module(torch.randn(512, 128)).square().mean()
                (loss * 0.5).backward(retain_graph=True)
                loss.backward()
                optimizer.step()
        except BudgetError as error:
            budget = error.smallest_feasible_bytes
            named_in_turn.append(budget)
            continue
        break
    assert len(named_in_turn) <= 3
    assert outsize.report(module, timelines=False).highest_peak_bytes <= budget


def test_state_that_the_plan_keeps_leaves_for_a_forward_that_runs_again_without_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The two plans may differ in what they keep: a plan on a slow disk kept all, the one in the backward counted on
    none of it, and the step was over its budget."""
    tried, again, states = state._tried, Plans.again, list[bool]()

    def keep_all(step: Any, tier_bytes: int | None) -> list[int]:
        return [len(step.units)]

    def keep_none(*args: Any) -> Prepared:
        with monkeypatch.context() as inside:
            inside.setattr(state, "_tried", lambda *given: tried(*given)[:1])
            return again(*args)

    def looked_at(module: nn.Module) -> Tensor:
        loss = kept_graph(module)
        own = set(module.parameters())
        mine = [o.state[p] for o in optimizers for p in own & o.state.keys()]
        states.extend(getattr(value, "is_away", False) for some in mine for value in some.values())
        return loss

    optimizers: list[torch.optim.Optimizer] = []
    first = torch.optim.SGD.__init__
    monkeypatch.setattr(
        torch.optim.SGD, "__init__", lambda self, *a, **k: (optimizers.append(self), first(self, *a, **k))[1]
    )
    plain, _ = trained(kept_graph, None)
    monkeypatch.setattr(state, "_tried", keep_all)
    monkeypatch.setattr(Plans, "again", keep_none)
    budget, _, _ = named(kept_graph, most=3)
    states.clear()
    found, record = trained(looked_at, budget)
    assert any(states)
    assert record is not None
    assert record.highest_peak_bytes <= budget
    assert all(torch.equal(a, b) for a, b in zip(plain, found, strict=True))


class Queue(nn.Module):
    """Reads a buffer and then updates it: its forward cannot run again behind the update."""

    def __init__(self) -> None:
        super().__init__()
        self.body = encoder(nn.LayerNorm)
        self.register_buffer("mean", torch.zeros(32))

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x) * (1 + self.mean)
        with torch.no_grad():
            self.mean.mul_(0.9).add_(y.detach().mean(0), alpha=0.1)
        return y


def test_a_forward_that_read_what_it_then_changed_is_not_run_again() -> None:
    results = []
    for planned in (False, True):
        torch.manual_seed(0)
        module = Queue()
        if planned:
            outsize.compile(module, 2**40)
            module(torch.randn(ROWS, 32)).sum().backward()
            module.zero_grad()
            session = outsize.session.SESSIONS[module]
            first = module(torch.randn(ROWS, 32))
            assert session._give_up(2**40) == 0
            del first
            torch.manual_seed(0)
            with torch.no_grad():
                for one, other in zip((*module.parameters(), *module.buffers()), _fresh(), strict=True):
                    one.copy_(other)
        torch.manual_seed(1)
        a, b = module(torch.randn(ROWS, 32)), module(torch.randn(ROWS, 32))
        (a.mean() + b.square().mean()).backward()
        results.append([p.grad.clone() for p in module.parameters() if p.grad is not None])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def _fresh() -> list[Tensor]:
    torch.manual_seed(0)
    module = Queue()
    return [*module.parameters(), *module.buffers()]


def test_a_loss_is_carried_over_to_a_new_shape_and_every_shape_is_reported() -> None:
    """Each shape plans once, with the loss that the first one showed."""
    torch.manual_seed(0)
    module = encoder(nn.LayerNorm)
    outsize.compile(module, 2**40)
    session = outsize.session.SESSIONS[module]
    for rows in (256, 512, 384, 512):
        x = torch.randn(rows, 32)
        (module(x)[None] * torch.ones(9, 1, 1)).square().mean().backward()
        module.zero_grad()
    tracks = [t for places in session.plans.tracks.values() for t in places.values()]
    assert not any(t.stale for t in tracks)
    record = outsize.report(module)
    assert [s.inputs for s in record.shapes] == [f"float32[{rows}, 32]" for rows in (256, 512, 384)]
    assert [s.steps for s in record.shapes] == [1, 2, 1]
    assert record.measured_peak_bytes == max(s.measured_peak_bytes for s in record.shapes)
    for shape in record.shapes:
        assert abs(shape.predicted_peak_bytes - shape.measured_peak_bytes) < 0.1 * shape.measured_peak_bytes
    assert "3 shapes of inputs" in render(record)
    assert "float32[384, 32]" in page(record)
    read = from_json(RunRecord, record.to_json())
    assert read.shapes == record.shapes
    assert isinstance(read.shapes[0], ShapeRecord)


def test_a_step_over_its_budget_says_so_once() -> None:
    torch.manual_seed(0)
    module = encoder(nn.LayerNorm)
    _, free = trained(contrastive, 2**40)
    assert free is not None
    budget = free.highest_peak_bytes
    outsize.compile(module, budget)

    def step() -> None:
        (module(torch.randn(ROWS, 32))[None] * torch.ones(40, 1, 1)).mean().backward()
        module.zero_grad()

    with pytest.warns(BudgetWarning, match="over the budget") as caught:
        step()
    step()
    (warning,) = [w.message for w in caught if isinstance(w.message, BudgetWarning)]
    assert warning.peak_bytes > warning.budget_bytes == budget


class Twice(nn.Module):
    """A weight that a call uses twice."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(32, 32)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(torch.tanh(self.layer(x)))


def test_another_order_of_sums_is_said() -> None:
    module = outsize.compile(Twice(), 2**40)
    x = torch.randn(8, 32)
    module(x).sum().backward()
    with pytest.warns(RuntimeWarning, match=r"used 2 times in a call \(2 such weights\)"):
        loss = module(x).sum() + module(-x).sum()
    loss.backward()
