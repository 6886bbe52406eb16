"""What an observation says of a step: its ops in order, who holds what until when, and what may run again."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

import outsize
from outsize import api
from outsize.observe import Observed

from .models import WIDTH, Make, Stack, in_place, mlp, residual


def observed(make: Make, rows: int = 8) -> Observed:
    torch.manual_seed(0)
    module = outsize.compile(make(), "1 GiB", door="observed")
    module(torch.randn(rows, 32, WIDTH)).square().mean().backward()
    session: Any = api._SESSIONS[module]
    step: Observed = session.paths.known[0].step
    return step


def test_ops_and_storages_describe_one_step() -> None:
    step = observed(lambda: Stack(residual))
    assert step.graph.misfit() == ""
    phases = [op.phase for op in step.graph.ops]
    assert phases == sorted(phases, key=["forward", "outside", "backward", "update"].index)
    assert sum("addmm" in op.target for op in step.graph.ops) == 8
    assert sum("AddmmBackward" in op.target for op in step.graph.ops) == 8
    assert len(step.costs) == len(step.graph.ops)


def test_a_variable_of_the_users_holds_a_storage_up_to_its_last_touch() -> None:
    class Skips(nn.Module):
        """The first result waits in a variable while the others are made."""

        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.third = mlp(), mlp(), mlp()

        def forward(self, x: Tensor) -> Tensor:
            early = torch.tanh(self.first(x))
            late: Tensor = self.third(torch.tanh(self.second(early))) + early
            return late

    step = observed(Skips)
    early = next(s for s in step.graph.storages if s.name == "tanh")
    assert step.graph.ops[early.held_until].target == "aten.add.Tensor"
    hidden = next(s for s in step.graph.storages if s.name == "gelu")
    assert "addmm" in step.graph.ops[hidden.held_until].target
    assert not early.held
    assert not hidden.held


def test_the_modules_result_is_held_to_the_end_or_the_loss() -> None:
    step = observed(lambda: Stack(residual))
    last = [s for s in step.graph.storages if s.name.startswith("add_")][-1]
    assert last.held or last.kind == "output"


def test_in_place_ops_may_not_run_again_and_change_what_they_say() -> None:
    step = observed(lambda: Stack(in_place))
    changing = [op for op in step.graph.ops if op.mutates]
    assert {op.target for op in changing} == {"aten.add_.Tensor", "aten.relu_.default"}
    assert all(op.effect for op in changing)


def test_random_operators_are_known() -> None:
    step = observed(lambda: nn.Sequential(mlp(), nn.Dropout(0.5), mlp()))
    assert ["bernoulli" in op.target for op in step.graph.ops if op.random] == [True]


def test_gradients_count_where_they_come_about() -> None:
    module = Stack(residual)
    step = observed(lambda: module)
    made = sum(s.nbytes for s in step.graph.storages if s.kind == "gradient")
    assert made == sum(p.grad.untyped_storage().nbytes() for p in module.parameters() if p.grad is not None)


def test_a_graph_is_kept_where_autograd_was_asked_to() -> None:
    """Bytes of what was read that live on, because what no loss uses was saved of them as well, say nothing of it."""

    class Unused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused = mlp(), mlp()

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            hidden = torch.tanh(self.used(x))
            return torch.sigmoid(hidden), self.unused(hidden)

    for kept in (False, True):
        torch.manual_seed(0)
        module = outsize.compile(Unused(), "1 GiB", door="observed")
        results = module(torch.randn(16, 32, WIDTH))
        results[0].square().mean().backward(retain_graph=kept)
        session: Any = api._SESSIONS[module]
        assert session.paths.known[0].step.kept == kept


def test_garbage_that_goes_in_a_step_is_no_room_for_its_loss() -> None:
    """What the loss takes is counted from the bytes that the step began with, less those that went since."""
    torch.manual_seed(0)
    ballast = [torch.zeros(2**20)]

    class Frees(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(64, 64)

        def forward(self, x: Tensor) -> Tensor:
            ballast.clear()
            return self.layer(x).tanh()

    module = outsize.compile(Frees(), "1 GiB", door="observed")
    for _ in range(2):
        y = module(torch.randn(2048, 64))
        (y.square() + 1).sum().backward()
    session: Any = api._SESSIONS[module]
    seen = session.paths.known[0].step
    outside = next(op.index for op in seen.graph.ops if op.target == "outside")
    assert seen.costs[outside].workspace_bytes >= y.untyped_storage().nbytes()
