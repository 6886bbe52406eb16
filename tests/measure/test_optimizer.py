"""Optimizer state and workspace are known before the first step, to the byte, and nobody's code is run for it."""

from __future__ import annotations

import copy
import gc
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import optimizer as hooks

from outsize.errors import OutsizeError
from outsize.measure.optimizer import UpdateBytes, optimizers_in, state_bytes, update_bytes
from outsize.measure.twin import TORCHS

WEIGHT, BIAS = 30 * 20 * 4, 30 * 4
ALL = WEIGHT + BIAS


def parameters() -> list[nn.Parameter]:
    return list(nn.Linear(20, 30).parameters())


def grown(optimizer: torch.optim.Optimizer) -> None:
    """Gradients for everything that it updates."""
    for group in optimizer.param_groups:
        for p in group["params"]:
            p.grad = torch.ones_like(p)


@pytest.mark.parametrize(
    ("make", "state", "workspace"),
    [
        (lambda p: torch.optim.SGD(p, lr=0.1), 0, 0),
        (lambda p: torch.optim.SGD(p, lr=torch.tensor(0.1), momentum=0.9), ALL, 0),
        (lambda p: torch.optim.Adam(p), 2 * ALL + 2 * 4, 2 * WEIGHT),
        (lambda p: torch.optim.AdamW(p), 2 * ALL + 2 * 4, 2 * WEIGHT),
        (lambda p: torch.optim.AdamW(p, amsgrad=True), 3 * ALL + 2 * 4, 2 * WEIGHT),
        (lambda p: torch.optim.AdamW(p, foreach=True), 2 * ALL + 2 * 4, ALL),
        (lambda p: torch.optim.AdamW(p, fused=True), 2 * ALL + 2 * 4, 0),
        (lambda p: torch.optim.AdamW(p, lr=torch.tensor(1e-3)), 2 * ALL + 2 * 4, 2 * WEIGHT),
        (lambda p: torch.optim.Adagrad(p), ALL + 2 * 4, None),
        (lambda p: torch.optim.Adafactor(p), 30 * 4 + 20 * 4 + BIAS + 2 * 4, None),
        (lambda p: torch.optim.Muon(p[:1]), WEIGHT, None),
        (lambda p: torch.optim.NAdam(p), 2 * ALL + 4 * 4, None),
        (lambda p: torch.optim.RAdam(p), 2 * ALL + 2 * 4, None),
        (lambda p: torch.optim.ASGD(p), None, None),
        (lambda p: torch.optim.Rprop(p), None, None),
    ],
    ids=[
        "SGD", "tensor-rate", "Adam", "AdamW", "amsgrad", "foreach", "fused", "tensor", "Adagrad", "Adafactor", "Muon",
        "NAdam", "RAdam", "ASGD", "Rprop",
    ],
)  # fmt: skip
def test_bytes_before_and_after_the_first_step(
    make: Callable[..., Any], state: int | None, workspace: int | None
) -> None:
    tensors = parameters()
    optimizer = make(tensors)
    promised = update_bytes(optimizer)
    assert not promised.guessed
    if state is not None:
        assert promised.state == state
    if workspace is not None:
        assert promised.workspace == workspace
    assert all(p.grad is None for p in tensors)
    grown(optimizer)
    optimizer.step()
    assert state_bytes(optimizer) == promised.state
    assert update_bytes(optimizer) == promised


def test_a_step_in_the_graph_holds_what_another_does() -> None:
    plain, inside = (torch.optim.Adam(parameters(), differentiable=d) for d in (False, True))
    assert update_bytes(inside) == update_bytes(plain)


@pytest.mark.parametrize("search", [None, "strong_wolfe"])
def test_lbfgs_is_counted_with_its_whole_history(search: str | None) -> None:
    torch.manual_seed(3)  # a step that does not bend the loss would leave the history shorter
    tensors = parameters()
    optimizer = torch.optim.LBFGS(tensors, history_size=4, max_iter=3, line_search_fn=search)
    promised = update_bytes(optimizer)
    x = torch.randn(5, 20)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = (x @ tensors[0].t() + tensors[1]).sin().square().sum()
        loss.backward()
        return loss

    for _ in range(4):
        optimizer.step(closure)
    assert state_bytes(optimizer) == promised.state
    assert update_bytes(optimizer) == promised


def test_frozen_parameters_have_no_state() -> None:
    tensors = parameters()
    tensors[0].requires_grad_(False)
    assert update_bytes(torch.optim.Adam(tensors)).state == 2 * BIAS + 4


class Sam(torch.optim.Optimizer):
    """Sharpness-aware minimisation as it is published: two steps, the second by a base optimizer."""

    def __init__(self, params: Iterable[Tensor], base: type[torch.optim.Optimizer], **settings: Any) -> None:
        super().__init__(params, dict(rho=0.05, **settings))
        self.base_optimizer = base(self.param_groups, **settings)
        self.param_groups = self.base_optimizer.param_groups
        self.defaults.update(self.base_optimizer.defaults)

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                self.state[p]["old_p"] = p.detach().clone()
                p.add_(0.05 * p.grad)
        if closure is not None:
            with torch.enable_grad():
                closure()
        for group in self.param_groups:
            for p in group["params"]:
                p.copy_(self.state[p]["old_p"])
        self.base_optimizer.step()


class Lookahead(torch.optim.Optimizer):
    """Shares groups and state with the optimizer that it wraps, and keeps slow weights beside them."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer
        self.param_groups, self.defaults = optimizer.param_groups, optimizer.defaults
        self.state = defaultdict(dict)
        self.slow = [p.detach().clone() for g in self.param_groups for p in g["params"]]

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        self.optimizer.step(closure)

    def zero_grad(self, set_to_none: bool = True) -> None:
        self.optimizer.zero_grad(set_to_none)


class Prepared:
    """A wrapper that is no optimizer itself, behind properties."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.inner = optimizer

    @property
    def param_groups(self) -> Any:
        raise AssertionError("a property of the user's class was read")

    def step(self) -> None:
        self.inner.step()


class Noisy(torch.optim.SGD):
    """Counts its steps, writes a file, prints, and draws random numbers."""

    count = 0

    def __init__(self, params: Any, file: Path, factor: float) -> None:
        super().__init__(params, lr=0.1, momentum=0.9)
        self.file, self.factor = file, factor

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        Noisy.count += 1
        self.file.write_text(f"{torch.rand(1)}")
        print("a step")
        super().step(closure)


class Own(torch.optim.Optimizer):
    """Of no known class: looks at values, keeps a list of histories and a flat buffer."""

    def __init__(self, params: Any) -> None:
        super().__init__(params, {})
        self.flat: Tensor | None = None

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        self.flat = torch.zeros(100)
        for parameter in self.param_groups[0]["params"]:
            if float(parameter.grad.abs().max()) > 0:
                self.state[parameter]["seen"] = [torch.ones_like(parameter)]


def everything(optimizer: Any) -> list[Any]:
    """What an optimizer holds, its tensors by value."""
    return [
        (
            {k: copy.deepcopy(v) for k, v in vars(o).items() if k not in ("base_optimizer", "optimizer")},
            [id(v) for v in vars(o).values()],
            [t.clone() for g in o.param_groups for t in g["params"]],
            [t.grad is None for g in o.param_groups for t in g["params"]],
        )
        for o in optimizers_in(optimizer)
    ]


def same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor):
        return type(a) is type(b) and torch.equal(a, b)
    if isinstance(a, dict):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a.values(), b.values()))
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return True if callable(a) or hasattr(a, "__dict__") else bool(a == b)


@pytest.mark.parametrize("stepped", [False, True], ids=["new", "stepped"])
@pytest.mark.parametrize(
    ("make", "known"),
    [
        (lambda p, _: Sam(p, torch.optim.SGD, lr=0.1, momentum=0.9), ALL),
        (lambda p, _: Lookahead(torch.optim.AdamW(p)), 2 * ALL + 8 + ALL),
        (lambda p, _: Prepared(torch.optim.Adam(p)), 2 * ALL + 8),
        (lambda p, _: Prepared(Lookahead(torch.optim.Adam(p))), 2 * ALL + 8 + ALL),  # type: ignore[arg-type]
        (lambda p, file: Noisy(p, file, 3.0), ALL),
        (lambda p, _: Own(p), 0),
    ],
    ids=["SAM", "Lookahead", "not an optimizer", "twice", "side effects", "unknown"],
)
def test_nobodys_code_is_run_and_nothing_changes(
    make: Callable[..., Any], known: int, stepped: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tensors = parameters()
    optimizer = make(tensors, tmp_path / "written")
    seen: list[object] = []
    handles = [
        hooks.register_optimizer_step_pre_hook(lambda *_: seen.append("before")),
        hooks.register_optimizer_step_post_hook(lambda *_: seen.append("after")),
    ]
    try:
        if stepped:
            for p in tensors:
                p.grad = torch.ones_like(p)
            optimizer.step()
        capsys.readouterr()
        seen.clear()
        (tmp_path / "written").unlink(missing_ok=True)
        before, count, random = everything(optimizer), Noisy.count, torch.get_rng_state()
        steps = {kind: kind.__dict__.get("step") for kind in TORCHS}
        promised = update_bytes(optimizer)
        gc.collect()
    finally:
        for handle in handles:
            handle.remove()
    assert same(before, everything(optimizer))
    assert (seen, Noisy.count, capsys.readouterr().out) == ([], count, "")
    assert not (tmp_path / "written").exists()
    assert torch.equal(random, torch.get_rng_state())
    assert steps == {kind: kind.__dict__.get("step") for kind in TORCHS}
    if stepped:
        assert promised.state == state_bytes(optimizer) >= known
    else:
        assert promised.state >= known
        assert promised.guessed


def test_a_wrapper_holds_its_own_state_beside_that_of_what_it_wraps() -> None:
    sam = Sam(parameters(), torch.optim.SGD, lr=0.1, momentum=0.9)
    grown(sam)
    sam.step()
    assert update_bytes(sam).state == 2 * ALL
    assert [type(o) for o in optimizers_in(sam)] == [Sam, torch.optim.SGD]


def test_an_unknown_optimizer_is_sized_by_what_is_there() -> None:
    optimizer = Own(parameters())
    assert update_bytes(optimizer) == UpdateBytes(guessed=(f"{__name__}.Own",))
    grown(optimizer)
    optimizer.step()
    assert update_bytes(optimizer).state == ALL + 100 * 4


def test_an_optimizer_over_other_parameters_is_somebody_elses() -> None:
    sam = Sam(parameters(), torch.optim.SGD, lr=0.1)
    sam.critic = torch.optim.Adam(parameters())  # type: ignore[attr-defined]
    assert [type(o) for o in optimizers_in(sam)] == [Sam, torch.optim.SGD]


def test_what_is_no_optimizer_is_refused() -> None:
    with pytest.raises(OutsizeError, match="holds one"):
        update_bytes(nn.Linear(2, 2))


def test_a_learning_rate_scheduler_changes_nothing() -> None:
    optimizer = torch.optim.AdamW(parameters())
    promised = update_bytes(optimizer)
    torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 0.5)
    assert update_bytes(optimizer) == promised


def test_on_a_gpu_torch_updates_all_parameters_at_once() -> None:
    """Its own choice there, which it does not make for fake tensors."""
    with torch._subclasses.FakeTensorMode():
        parameters = [nn.Parameter(torch.empty(1000, 1000, device="cuda:0")) for _ in range(5)]
    one = 4_000_000
    assert update_bytes(torch.optim.AdamW(parameters)).workspace >= 5 * one
    assert update_bytes(torch.optim.AdamW(parameters, foreach=False)).workspace < 5 * one
