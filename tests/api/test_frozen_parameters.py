"""Parameters that nobody trains, at rest on a tier between their uses: the plain step's bits, below their own bytes."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn

import outsize

WIDTH = 192
LAYERS = 4
FROZEN = LAYERS * WIDTH * WIDTH * 4


class Net(nn.Module):
    """Frozen layers, each with a small one beside it that is trained."""

    def __init__(self) -> None:
        super().__init__()
        self.base = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(LAYERS))
        self.base.requires_grad_(False)
        self.down = nn.ModuleList(nn.Linear(WIDTH, 4) for _ in range(LAYERS))
        self.up = nn.ModuleList(nn.Linear(4, WIDTH) for _ in range(LAYERS))
        self.drop = nn.Dropout(0.1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for base, down, up in zip(self.base, self.down, self.up):
            x = torch.relu(base(x) + self.drop(up(down(x))))
        return x


class Pair:
    """The same network twice, one of them under a plan, trained alike."""

    def __init__(self, budget: int, made: nn.Module | None = None) -> None:
        torch.manual_seed(0)
        self.plain = Net() if made is None else made
        self.planned: Any = copy.deepcopy(self.plain)
        self.optimizers = [self.optimizer(m) for m in self.both]
        self.compile(budget)

    def compile(self, budget: int) -> None:
        """Under a plan that is soon found."""
        outsize.compile(
            self.planned, budget, optimizer=self.optimizers[1], residents="frozen", actions=("swap",)
        )

    @staticmethod
    def optimizer(model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)

    @property
    def both(self) -> tuple[Any, Any]:
        return self.plain, self.planned

    def step(self, seed: int, rows: int = 8, between: Callable[[Any], Any] | None = None) -> None:
        """One step of each; losses, gradients and parameters are equal to the bit."""
        losses = []
        for model, optimizer in zip(self.both, self.optimizers):
            torch.manual_seed(seed)
            optimizer.zero_grad()
            loss = model(torch.randn(rows, WIDTH)).square().mean()
            more = between(model) if between is not None else None
            loss = loss if more is None else loss + more
            loss.backward()
            losses.append(loss.detach())
            nn.utils.clip_grad_norm_(model.parameters(), 0.1)
            optimizer.step()
        assert torch.equal(*losses)
        pairs = zip(self.plain.parameters(), self.planned.parameters(), strict=True)
        trained = [(a, b) for a, b in pairs if a.requires_grad]
        assert all(torch.equal(a, b) and torch.equal(a.grad, b.grad) for a, b in trained)

    @property
    def away(self) -> list[str]:
        return [n for n, p in self.planned.named_parameters() if hasattr(p, "is_away")]


def smallest() -> int:
    pair = Pair(1)
    with pytest.raises(outsize.BudgetError) as refused:
        pair.planned(torch.randn(8, WIDTH))
    return refused.value.smallest_feasible_bytes


@pytest.fixture(scope="module")
def least() -> int:
    return smallest()


@pytest.fixture(scope="module")
def pair(least: int) -> Pair:
    made = Pair(least + 2**16)
    made.step(0)
    return made


@pytest.fixture
def resting(pair: Pair) -> Iterator[Pair]:
    pair.step(1)
    assert len(pair.away) >= LAYERS - 1
    yield pair
    pair.step(2)
    assert len(pair.away) >= LAYERS - 1


def weight(pair: Pair) -> Any:
    return pair.planned.base[1].weight


def test_trained_in_fewer_bytes_than_they_have(least: int) -> None:
    assert least < FROZEN
    pair = Pair(least)
    for seed in range(4):
        pair.step(seed)
    report = outsize.report(pair.planned)
    assert report.highest_peak_bytes <= least
    assert report.parameter_bytes == FROZEN
    assert report.parameter_resting_bytes == WIDTH * WIDTH * 4 * len(pair.away) > 0
    assert report.swapped_in_bytes >= report.parameter_resting_bytes
    state = pair.planned.state_dict()
    assert all(torch.equal(state[name], value) for name, value in pair.plain.state_dict().items())


def test_only_as_many_go_as_need_be() -> None:
    roomy, tight = Pair(2**30), Pair(FROZEN + 100_000)
    for made in (roomy, tight):
        made.step(0)
    assert not roomy.away
    assert 0 < len(tight.away) < LAYERS


def test_more_bytes_are_needed_where_they_stay(least: int) -> None:
    torch.manual_seed(0)
    model = outsize.compile(Net(), 1, actions=("swap",))
    with pytest.raises(outsize.BudgetError) as refused:
        model(torch.randn(8, WIDTH))
    assert refused.value.smallest_feasible_bytes > least + FROZEN // 2


def through_file(p: Any) -> Any:
    file = io.BytesIO()
    torch.save(p, file)
    file.seek(0)
    return torch.load(file)


READS: dict[str, Callable[[Any], Any]] = {
    "detach": lambda p: p.detach(),
    "data": lambda p: p.data,
    "view": lambda p: p.view(-1).view(WIDTH, WIDTH),
    "index": lambda p: p[:],
    "deepcopy": copy.deepcopy,
    "numpy": lambda p: torch.from_numpy(p.numpy()),
    "tolist": lambda p: torch.tensor(p.tolist()),
    "dlpack": torch.from_dlpack,
    "pickle": lambda p: pickle.loads(pickle.dumps(p)),
    "save": through_file,
    "foreach": lambda p: torch._foreach_mul([p], 1)[0],
    "copy": lambda p: torch.empty(WIDTH, WIDTH).copy_(p),
    "storage": lambda p: torch.empty(0).set_(p.untyped_storage(), 0, p.shape, p.stride()),
    "data_ptr": lambda p: (p.data_ptr(), p)[1],
    "repr": lambda p: (repr(p), p)[1],
    "vmap": lambda p: torch.func.vmap(lambda row: row * 1)(p),
    "grad": lambda p: torch.func.grad(lambda v: (v * v).sum() / 2)(p),
    "functional": lambda p: torch.func.functional_call(
        nn.Linear(WIDTH, WIDTH, bias=False), {"weight": p}, (torch.eye(WIDTH),)
    ).t(),
    "by an operator": lambda p: torch.ops.aten.mul.Scalar(p, 1),
}


@pytest.mark.parametrize("name", READS)
def test_whoever_touches_one_has_its_bytes(resting: Pair, name: str) -> None:
    parameter = weight(resting)
    assert parameter.shape == (WIDTH, WIDTH)
    assert isinstance(parameter, nn.Parameter)
    assert not parameter.requires_grad
    assert parameter._version >= 0
    assert hasattr(parameter, "is_away")  # these did not bring it
    torch.testing.assert_close(READS[name](parameter), resting.plain.base[1].weight, rtol=0, atol=1e-7)


@pytest.mark.parametrize("touch", [
    lambda p: torch.utils.dlpack.to_dlpack(p),
    lambda p: torch.empty(0).set_(p),
    lambda p: torch.func.vmap(lambda row: row.mul_(2))(p),
])  # fmt: skip
def test_what_comes_past_python_is_an_error_and_not_a_crash(resting: Pair, touch: Any) -> None:
    with pytest.raises((outsize.OutsizeError, RuntimeError)):
        touch(weight(resting))


@torch.no_grad()
def test_changes_between_steps_are_kept(resting: Pair) -> None:
    for model in resting.both:
        model.base[0].weight.mul_(0.5)
        model.base[1].weight.data.add_(1e-3)
        model.base[2].weight.numpy()[:] *= 0.5
        model.base[3].weight.copy_(model.base[0].weight)
    with torch.enable_grad():
        resting.step(3)
    state = copy.deepcopy(resting.plain.state_dict())
    resting.planned.load_state_dict(state)
    assert all(torch.equal(a, b) for a, b in zip(*(m.parameters() for m in resting.both)))


def test_evaluation_checkpoint_and_resume(resting: Pair, least: int) -> None:
    with torch.no_grad():
        x = torch.randn(3, WIDTH)
        plain, planned = (m.eval()(x) for m in resting.both)
        assert torch.equal(plain, planned)
    for model in resting.both:
        model.train()
    resting.step(4)
    file = io.BytesIO()
    torch.save(resting.planned.state_dict(), file)
    file.seek(0)
    again = Net()
    again.load_state_dict(torch.load(file))
    resumed = Pair(least, again)
    for (name, value), (_, other) in zip(resting.plain.named_parameters(), again.named_parameters()):
        assert torch.equal(value, other), name
    resumed.step(5)
    assert resumed.away
    resting.step(6)
    copied = copy.deepcopy(resting.planned)
    assert not any(hasattr(p, "is_away") for p in copied.parameters())
    assert all(torch.equal(a, b) for a, b in zip(copied.parameters(), resting.plain.parameters()))


def test_the_loss_may_read_one_and_change_its_data(resting: Pair) -> None:
    resting.step(7, between=lambda m: m.base[2].weight.norm() * m.down[2].weight.norm())

    def halved(model: Any) -> None:
        model.base[3].weight.data.mul_(0.5)

    resting.step(8, between=halved)  # a plain backward reads the new values
    for model in resting.both:
        model.base[3].weight.data.mul_(2)


def test_a_change_in_place_before_the_backward_is_an_error(resting: Pair) -> None:
    resting.optimizers[1].zero_grad()
    loss = resting.planned(torch.randn(8, WIDTH)).square().mean()
    with torch.no_grad():
        weight(resting).mul_(2)
    with pytest.raises(outsize.OutsizeError, match=r"base.1.weight was changed in place"):
        loss.backward()
    with torch.no_grad():
        weight(resting).mul_(0.5)
    for optimizer in resting.optimizers:
        optimizer.zero_grad()


def test_all_of_them_for_a_block_of_code(resting: Pair) -> None:
    with outsize.resident(resting.planned):
        assert not resting.away


def test_other_shapes_are_captured_while_they_are_away(resting: Pair) -> None:
    with outsize.resident(resting.planned):
        pass
    roomy = Pair(FROZEN, copy.deepcopy(resting.plain))
    for seed, rows in enumerate((8, 3, 8, 5)):
        roomy.step(seed, rows)
        assert roomy.away
