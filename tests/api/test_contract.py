"""The public calls: the training loop stays as it is, whatever loop it is, and the budget holds."""

import copy
import json
import warnings
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import outsize
from outsize import api
from outsize.values import RunRecord, from_json, to_json

from .training import rebudget, smallest_budget

WIDTH, BATCH = 128, 4096
STORAGE = WIDTH * BATCH * 4  # 2 MiB: far above the noise of the interpreter's own bytes


class Stack(nn.Module):
    """Wide activations, small weights, dropout, batch norm: a step of some 50 MB."""

    def __init__(self, depth: int = 5) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *[
                nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.BatchNorm1d(WIDTH), nn.GELU(), nn.Dropout(0.1))
                for _ in range(depth)
            ]
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x).square().mean()


@pytest.fixture(scope="module")
def x() -> Tensor:
    return torch.randn(BATCH, WIDTH, generator=torch.Generator().manual_seed(3))


@pytest.fixture(scope="module")
def compiled(x: Tensor) -> tuple[nn.Module, int, int]:
    """A compiled module, its smallest budget and its plain peak."""
    torch.manual_seed(0)
    module = outsize.compile(Stack(), 2**40)
    module(x).backward()
    plain = outsize.report(module).plain_peak_bytes
    module.zero_grad()
    return module, smallest_budget(module, (x,)), plain


@pytest.fixture
def stack(compiled: tuple[nn.Module, int, int]) -> Iterator[nn.Module]:
    """The compiled module at 60 % of its plain peak, as after initialisation."""
    module, _, plain = compiled
    state = copy.deepcopy(module.state_dict())
    rebudget(module, int(0.6 * plain))
    torch.manual_seed(1)
    yield module
    module.load_state_dict(state)
    module.zero_grad()
    module.train()


@pytest.mark.parametrize("place", [0.0, 0.25, 0.5, 0.75, 1.0])
def test_the_measured_peak_stays_under_the_budget(
    compiled: tuple[nn.Module, int, int], x: Tensor, place: float
) -> None:
    module, smallest, plain = compiled
    budget = int(smallest + place * (plain - smallest))
    rebudget(module, budget)
    peaks = []
    for _ in range(3):
        module(x).backward()
        peaks.append(outsize.report(module).measured_peak_bytes)
        module.zero_grad()
    report = outsize.report(module)
    assert max(peaks) <= budget
    assert report.predicted_peak_bytes <= budget
    assert abs(report.predicted_peak_bytes / peaks[-1] - 1) < 0.03
    assert bool(report.decisions) == (place < 1)
    assert bool(report.swapped_in_bytes) == (place < 1)
    assert report.resident_bytes >= sum(p.numel() * 4 for p in module.parameters()) + STORAGE


def test_the_report_has_the_names_that_others_rely_on(stack: nn.Module, x: Tensor) -> None:
    stack(x).backward()
    report = outsize.report(stack)
    for name in (
        "budget_bytes", "plain_peak_bytes", "predicted_peak_bytes", "measured_peak_bytes", "resident_bytes",
        "swapped_out_bytes", "swapped_in_bytes", "stall_seconds", "predicted_step_seconds",
        "measured_step_seconds", "decisions", "refusals",
    ):  # fmt: skip
        assert hasattr(report, name)
    assert report.measured_step_seconds > 0
    assert report.steps >= 1
    assert from_json(RunRecord, to_json(report)) == report
    assert json.loads(to_json(report))["budget_bytes"] == report.budget_bytes
    acted = {d.storage for d in report.decisions}
    assert not acted & {r.storage for r in report.refusals}
    assert len(report.storage_names) == len(report.storage_bytes) > max(acted)


def test_keys_and_parameters_stay_what_they_were() -> None:
    module = Stack(1)
    keys, pointers = list(module.state_dict()), [p.data_ptr() for p in module.parameters()]
    same = outsize.compile(module, "1 GiB")
    assert same is module
    assert list(module.state_dict()) == keys
    module(torch.randn(8, WIDTH)).backward()
    assert list(module.state_dict()) == keys
    assert [p.data_ptr() for p in module.parameters()] == pointers
    Stack(1).load_state_dict(module.state_dict())


def test_evaluation_and_training_take_turns(stack: nn.Module, x: Tensor) -> None:
    eager = Stack()
    eager.load_state_dict(stack.state_dict())
    stack(x).backward()
    steps = outsize.report(stack).steps
    eager.load_state_dict(stack.state_dict())
    stack.eval(), eager.eval()
    with torch.no_grad():
        assert torch.equal(stack(x[:64]), eager(x[:64]))
    with torch.inference_mode():
        assert torch.equal(stack(x[:64]), eager(x[:64]))
    assert outsize.report(stack).steps == steps  # no step was taken
    stack.train()
    stack(x).backward()
    assert outsize.report(stack).steps == steps + 1


def test_gradients_add_up_over_several_backwards(stack: nn.Module, x: Tensor) -> None:
    plain = outsize.meter(Stack())
    plain.load_state_dict(stack.state_dict())
    for module in (plain, stack):
        torch.manual_seed(4)
        for scale in (1.0, 2.0, 3.0):
            (module(x * scale) / 3).backward()
    assert outsize.report(stack).decisions
    for mine, theirs in zip(stack.parameters(), plain.parameters()):
        assert torch.equal(mine.grad, theirs.grad)
    # The second forward found gradients that the first did not: they count as resident.
    held = sum(p.numel() * 4 for p in stack.parameters())
    assert outsize.report(stack).resident_bytes >= 2 * held + STORAGE
    assert outsize.report(stack).measured_peak_bytes <= outsize.report(stack).budget_bytes


@pytest.mark.parametrize("when", ["before the forward", "before the backward", "after the update"])
def test_zero_grad_may_stand_anywhere(stack: nn.Module, x: Tensor, when: str) -> None:
    optimizer = torch.optim.SGD(stack.parameters(), lr=0.1)
    budget = outsize.report(stack).budget_bytes
    for _ in range(3):
        if when == "before the forward":
            optimizer.zero_grad()
        loss = stack(x)
        if when == "before the backward":
            optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if when == "after the update":
            optimizer.zero_grad()
        assert outsize.report(stack).measured_peak_bytes <= budget


def test_autocast_is_part_of_the_step(x: Tensor) -> None:
    state = Stack(3).state_dict()
    found = []
    for compiled in (False, True):
        module = Stack(3)
        module.load_state_dict(state)
        if compiled:
            outsize.compile(module, found[0][1] * 7 // 10)
        else:
            outsize.meter(module)
        torch.manual_seed(5)
        with torch.autocast("cpu", torch.bfloat16):
            loss = module(x)
        loss.backward()
        report = outsize.report(module)
        found.append(
            ([loss, *(p.grad for p in module.parameters()), *module.buffers()], report.plain_peak_bytes)
        )
    assert report.decisions
    assert all(torch.equal(a, b) for a, b in zip(found[0][0], found[1][0]))


def test_new_shapes_make_new_plans_under_one_budget(stack: nn.Module, x: Tensor) -> None:
    session = api._SESSIONS[stack]
    before = len(session.plans.tracks)
    for rows in (BATCH, BATCH // 2, BATCH):
        stack(x[:rows]).backward()
        report = outsize.report(stack)
        assert report.measured_peak_bytes <= report.budget_bytes
        assert bool(report.decisions) == (rows == BATCH)  # half of it fits as it is
        stack.zero_grad()
    assert len(session.plans.tracks) == before + 2


def test_the_optimizers_state_counts_from_the_first_step(x: Tensor) -> None:
    def resident(**settings: object) -> int:
        return api.plan(module, (x[:64],), budget="1 GiB", **settings).resident_bytes  # type: ignore[arg-type]

    module = Stack(1)
    size = sum(p.numel() * 4 for p in module.parameters())
    count = len(list(module.parameters()))
    optimizer = torch.optim.AdamW(module.parameters())
    assert resident(optimizer=optimizer) - resident() == 2 * size + 4 * count
    outsize.compile(module, "1 GiB", optimizer=optimizer)
    for _ in range(2):  # promised in the first step, there in the second
        module(x[:64]).backward()
        optimizer.step()
        optimizer.zero_grad()
        assert outsize.report(module).resident_bytes == resident(optimizer=optimizer)
        assert outsize.report(module).measured_peak_bytes <= outsize.report(module).predicted_peak_bytes


def test_plan_runs_nothing_and_names_what_compile_does(
    compiled: tuple[nn.Module, int, int], x: Tensor
) -> None:
    module, smallest, plain = compiled
    budget = (smallest + plain) // 2
    twin = Stack()
    made = outsize.plan(twin, (x,), budget=budget, planner="slack")
    assert all(p.grad is None for p in twin.parameters())
    assert int(twin.layers[0][1].num_batches_tracked) == 0
    assert made.predicted_peak_bytes <= budget
    rebudget(module, budget)
    module(x).backward()
    report = outsize.report(module)
    assert {(d.storage, d.after, d.before) for d in made.decisions} == {
        (d.storage, d.after, d.before) for d in report.decisions
    }
    module.zero_grad()


class Permuted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x).permute(0, 2, 1)


def test_a_gradient_in_another_order_than_its_result_is_said_once() -> None:
    net, x = outsize.compile(Permuted(), "1 GiB"), torch.randn(4, 6, 8)
    with pytest.warns(RuntimeWarning, match=r"strides \(48, 6, 1\), and the result has \(48, 1, 8\)"):
        (net(x).contiguous() * torch.randn(4, 8, 6)).sum().backward()
    (net(x).contiguous() * torch.randn(4, 8, 6)).sum().backward()


def test_gradients_in_the_order_of_their_results_are_not_said() -> None:
    net, x = outsize.compile(Permuted(), "1 GiB"), torch.randn(4, 6, 8)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        net(x).square().sum().backward()
        net(x).sum().backward()
    assert not [w for w in said if "the gradient of a result" in str(w.message)]


IN_PLACE = {
    "relu": lambda y: F.relu_(y),
    "leaky": lambda y: F.leaky_relu(y, 0.1, inplace=True),
    "scaled": lambda y: y.mul_(0.5).sin(),
    "half": lambda y: y[..., 1:].mul_(torch.linspace(0.5, 1.5, 7)).sum(-1, keepdim=True) + y,
}


class ChangedInPlace(nn.Module):
    """A sequence, normalised over its channels, is changed in place as the view that it is."""

    def __init__(self, change: str) -> None:
        super().__init__()
        self.before, self.norm, self.head = nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Linear(8, 5)
        self.change = IN_PLACE[change]

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.change(self.norm(self.before(x).permute(0, 2, 1)).permute(0, 2, 1)))


@pytest.mark.parametrize("change", sorted(IN_PLACE))
def test_a_view_that_is_changed_in_place_has_its_gradient_laid_out_as_in_eager(change: str) -> None:
    found = []
    for compiled in (False, True):
        torch.manual_seed(0)
        net, x = ChangedInPlace(change), torch.randn(16, 32, 8)
        loss = (outsize.compile(net, "1 GiB") if compiled else net)(x).square().mean()
        loss.backward()
        found.append([loss.detach(), *(p.grad for p in net.parameters())])
    assert all(torch.equal(a, b) for a, b in zip(*found))
