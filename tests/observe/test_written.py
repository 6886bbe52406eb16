"""What autograd saved is no copy: kernels that write to it afterwards, counters that do not tell, autocast inside."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import outsize
from outsize.errors import BudgetError, BudgetWarning, CaptureError
from outsize.session.plans import OBJECT_SPREAD

from .models import WIDTH, Make, mlp

ROWS = 512
STEPS = 5


class Gated(nn.Module):
    """Cells of a GRU, whose gates are parts of one storage that count their changes apart (`unsafe_chunk`)."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.cells, self.last = mlp(), nn.GRU(WIDTH, WIDTH, 2, batch_first=True), mlp()

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.last(self.cells(self.first(x).unsqueeze(1))[0])
        return result


class Slopes(nn.Module):
    """A kernel that fills an argument that autograd has saved already."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = mlp(), mlp()

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.second(F.rrelu(self.first(x), training=True))
        return result


class Grid(nn.Module):
    """A kernel that calls a product, which autocast casts."""

    def __init__(self) -> None:
        super().__init__()
        self.turn, self.out = nn.Parameter(torch.tensor([[[0.9, 0.3, 0.1], [0.2, 1.1, 0.0]]])), mlp()

    def forward(self, x: Tensor) -> Tensor:
        image = x.view(1, ROWS // WIDTH, WIDTH, WIDTH)
        grid = F.affine_grid(self.turn, list(image.shape), align_corners=False)
        result: Tensor = self.out(F.grid_sample(image.float(), grid.float(), align_corners=False))
        return result


@torch.library.custom_op("outsize_tests::product", mutates_args=())
def product(x: Tensor, y: Tensor) -> Tensor:
    """The product of two matrices, by an operator of the user's."""
    return (x @ y).float()


def _saves(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


product.register_autograd(
    lambda ctx, g: (g @ ctx.saved_tensors[1].t(), ctx.saved_tensors[0].t() @ g), setup_context=_saves
)


class Foreign(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight, self.out = nn.Parameter(torch.randn(WIDTH, WIDTH) / 8), mlp()

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.out(product(x, self.weight))
        return result


class Within(Grid):
    """Enters autocast itself."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return super().forward(x)


WRITTEN: dict[str, Make] = {"gates": Gated, "slopes": Slopes}
CASTING: dict[str, Make] = {"grid": Grid, "foreign operator": Foreign, "gates": Gated}


def train(
    make: Make, budget: int | None = None, *, casts: bool = False, kept: bool = False, **options: Any
) -> Any:
    """The module, and all that a few steps leave behind."""
    torch.manual_seed(0)
    module = make()
    if budget is not None:
        outsize.compile(module, budget, door="observed", **options)
    left: list[Any] = []
    torch.manual_seed(1)
    for _ in range(STEPS):
        x = torch.randn(ROWS, WIDTH)
        with torch.autocast("cpu", torch.bfloat16, enabled=casts):
            result = module(x)
        loss = result.float().square().mean()
        loss.backward(retain_graph=kept)
        if kept:
            loss.backward()
        left += [loss.detach(), *(p.grad for p in module.parameters())]
        del loss, result
        module.zero_grad()
    return module, [*left, torch.get_rng_state()]


def budgets(make: Make, **options: Any) -> list[int]:
    """All that it takes, the middle, and the smallest that an error names."""
    record = outsize.report(train(make, 1 << 40)[0], timelines=False)
    low, high = record.resident_bytes, record.plain_peak_bytes
    try:
        train(make, low, **options)
    except BudgetError as error:
        low = error.smallest_feasible_bytes
    return [1 << 40, (low + high) // 2, low]


def equal(one: list[Any], other: list[Any]) -> bool:
    return len(one) == len(other) and all(map(torch.equal, one, other))


@pytest.mark.filterwarnings("ignore::outsize.errors.BudgetWarning")
@pytest.mark.parametrize("actions", [("swap",), ("recompute",)])
@pytest.mark.parametrize("name", WRITTEN)
def test_what_is_written_after_it_was_saved_is_what_the_backward_reads(name: str, actions: Any) -> None:
    _, plain = train(WRITTEN[name])
    for budget in budgets(WRITTEN[name], actions=actions):
        try:
            _, found = train(WRITTEN[name], budget, actions=actions)
        except BudgetError as error:
            _, found = train(WRITTEN[name], error.smallest_feasible_bytes, actions=actions)
        assert equal(plain, found)


@pytest.mark.parametrize("name", WRITTEN)
def test_steps_that_write_to_what_was_saved_follow_their_plan(name: str) -> None:
    module, _ = train(WRITTEN[name], budgets(WRITTEN[name])[1])
    counted = next(note for note in outsize.report(module, timelines=False).notes if "were observed" in note)
    assert "; 0 steps took another" in counted


@pytest.mark.parametrize("name", CASTING)
def test_kernels_that_call_products_are_cast_as_in_the_plain_step(name: str) -> None:
    _, plain = train(CASTING[name], casts=True)
    for actions in ("swap", "recompute"):
        module, found = train(CASTING[name], budgets(CASTING[name])[1], casts=True, actions=(actions,))
        assert equal(plain, found)
    assert name == "gates" or not equal(plain, train(CASTING[name])[1])  # casts make a difference
    outsize.release(module)


def test_an_autocast_of_the_modules_own_around_such_a_kernel_is_refused() -> None:
    with pytest.raises(CaptureError, match="enter autocast around the module's call"):
        train(Within, 1 << 40)


@pytest.mark.parametrize("actions", [("swap",), ("recompute",), ("swap", "recompute", "encode")])
@pytest.mark.parametrize("make", [Slopes, lambda: nn.Sequential(*(mlp() for _ in range(3)))])
def test_a_graph_that_is_kept_for_another_backward_stays_under_the_budget(make: Make, actions: Any) -> None:
    _, plain = train(make, kept=True)
    _, middle, low = budgets(make, kept=True, actions=actions)
    for budget in (middle, low + low // 50):
        with warnings.catch_warnings():
            warnings.simplefilter("error", BudgetWarning)
            module, found = _until_it_fits(make, budget, lambda: {"kept": True, "actions": actions})
        record = outsize.report(module, timelines=False)
        assert equal(plain, found)
        assert record.measured_peak_bytes <= record.budget_bytes


def _until_it_fits(make: Make, budget: int, options: Callable[[], dict[str, Any]]) -> Any:
    for _ in range(4):
        try:
            return train(make, budget, **options())
        except BudgetError as error:
            budget = error.smallest_feasible_bytes
    raise AssertionError("the errors name budgets that are refused again and again")


class Several(nn.Module):
    """Hands out results that no loss uses."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.unused = nn.Sequential(mlp(), mlp(), mlp()), nn.Sequential(mlp(), mlp(), mlp())

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.used(x), self.unused(x)


class Heads(nn.Module):
    """The result that no loss uses has saved what the other one's backward reads early."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(mlp(), mlp())
        self.heads = nn.ModuleList([nn.Linear(WIDTH, 4) for _ in range(2)])
        self.wide = nn.Linear(WIDTH, 16 * WIDTH)

    def forward(self, x: Tensor) -> list[Tensor]:
        hidden = self.wide(self.body(x))
        return [head(hidden.view(-1, WIDTH)) for head in self.heads]


@pytest.mark.parametrize("make", [Several, Heads])
@pytest.mark.parametrize("held", [False, True])
def test_what_was_saved_for_results_that_no_loss_uses_counts(held: bool, make: Make) -> None:
    def peaks(budget: int) -> Any:
        torch.manual_seed(0)
        module = outsize.compile(make(), budget, door="observed")
        for _ in range(STEPS):
            results = module(torch.randn(ROWS, WIDTH))
            loss = results[0].square().mean()
            if not held:
                del results
            loss.backward()
            loss = results = None
            module.zero_grad()
        return outsize.report(module, timelines=False)

    free = peaks(1 << 40)
    assert free.measured_peak_bytes <= free.plain_peak_bytes + OBJECT_SPREAD  # of other tests in this process
    budget = (free.plain_peak_bytes * 3 + free.resident_bytes) // 4
    with warnings.catch_warnings():
        warnings.simplefilter("error", BudgetWarning)
        record = peaks(budget)
    assert record.measured_peak_bytes <= budget
