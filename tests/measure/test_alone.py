"""Which optimizers update their parameters one by one to the same bits, and what they keep of each."""

from __future__ import annotations

import pytest
import torch

from outsize.measure.alone import moving_state, only, step_only, updates_alone


def parameters() -> list[torch.nn.Parameter]:
    torch.manual_seed(0)
    return [torch.nn.Parameter(torch.randn(s)) for s in ((130, 70), (70,), (33, 3))]


@pytest.mark.parametrize("flags", [{}, {"foreach": True}, {"fused": True}, {"weight_decay": 0.1}])
def test_adam_does(flags: dict[str, object]) -> None:
    assert updates_alone(torch.optim.AdamW(parameters(), **flags))  # type: ignore[arg-type]


def test_others_do_not() -> None:
    class Mine(torch.optim.SGD):
        pass

    assert not updates_alone(torch.optim.LBFGS(parameters()))
    assert not updates_alone(Mine(parameters()))
    assert not updates_alone(torch.optim.Adam(parameters(), differentiable=True))


def test_a_step_that_looks_at_all_gradients_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The probe compares bits, whatever the class is called."""
    from outsize.measure import alone

    class Together(torch.optim.SGD):
        def step(self, closure: object = None) -> None:  # type: ignore[override]
            whole = [p for g in self.param_groups for p in g["params"] if p.grad is not None]
            norm = torch.stack([p.grad.norm() for p in whole]).norm()
            with torch.no_grad():
                for p in whole:
                    p.sub_(p.grad / norm)

    monkeypatch.setattr(alone, "TORCHS", alone.TORCHS | {Together})
    assert not updates_alone(Together(parameters(), lr=0.1))
    assert updates_alone(torch.optim.SGD(parameters(), lr=0.1))


def test_a_step_over_some() -> None:
    own = parameters()
    before = [p.detach().clone() for p in own]
    optimizer = torch.optim.SGD([{"params": own[:2]}, {"params": own[2:], "lr": 0.5}], lr=0.1)
    groups = list(optimizer.param_groups)
    for p in own:
        p.grad = torch.ones_like(p)
    step_only(optimizer, {id(own[1]), id(own[2])})
    assert [torch.equal(p, q) for p, q in zip(own, before)] == [True, False, False]
    assert torch.equal(own[2], before[2] - 0.5)
    assert all(a is b for a, b in zip(optimizer.param_groups, groups))
    assert [len(g["params"]) for g in optimizer.param_groups] == [2, 1]
    with only(optimizer, {id(own[0])}):
        assert [len(g["params"]) for g in optimizer.param_groups] == [1]
    assert [len(g["params"]) for g in optimizer.param_groups] == [2, 1]


def test_bytes_that_move() -> None:
    own = parameters()
    dense = 130 * 70 * 4
    for optimizer, expected in (
        (torch.optim.Adam(own), 2 * dense),
        (torch.optim.Adam(own, amsgrad=True), 3 * dense),
        (torch.optim.SGD(own, lr=0.1), 0),
        (torch.optim.SGD(own, lr=0.1, momentum=0.9), dense),
        (torch.optim.Adafactor(own), (130 + 70) * 4),
    ):
        assert moving_state(optimizer, own[0], 64) == expected
        assert moving_state(optimizer, own[0], 2 * dense) == 0
        for p in own:
            p.grad = torch.ones_like(p)
        optimizer.step()
        there = [v for v in optimizer.state[own[0]].values() if isinstance(v, torch.Tensor)]
        assert sum(v.numel() * v.element_size() for v in there if v.numel() > 16) == expected
