"""The figures of each step, as a log takes them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import outsize
from outsize.errors import OutsizeError
from outsize.integrations.scalars import LogScalars, scalars, tensorboard


def test_figures_are_logged_beside_what_is_given() -> None:
    torch._dynamo.reset()
    module = nn.Sequential(nn.Linear(64, 64), nn.GELU(), nn.Linear(64, 64))
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    outsize.compile(module, 2**30, optimizer=optimizer)
    logged: list[tuple[int, dict[str, float]]] = []
    log = LogScalars(module, lambda values, step: logged.append((step, values)), every=2)
    with pytest.raises(OutsizeError, match="nothing to report"):
        log(0)
    for step in range(4):
        loss = module(torch.randn(256, 64)).square().mean()
        loss.backward()
        optimizer.step()
        log(step, {"loss": loss.item()})
    assert [step for step, _ in logged] == [0, 2]
    parameters = sum(p.nbytes for p in module.parameters())
    for _, values in logged:
        assert values["outsize/budget_bytes"] == 2**30
        assert 2 * parameters <= values["outsize/alive_bytes"] <= values["outsize/peak_bytes"] <= 2**30
        assert values["outsize/stall_seconds"] == values["outsize/swapped_bytes"] == 0
        assert values["outsize/step_seconds"] > 0
        assert values["loss"] > 0
        assert all(type(value) is float for value in values.values())
    assert scalars(module)["outsize/peak_bytes"] == outsize.report(module).measured_peak_bytes


def test_a_tensorboard_writer_gets_each_scalar() -> None:
    class Writer:
        def __init__(self) -> None:
            self.seen: list[tuple[str, float, int]] = []

        def add_scalar(self, name: str, value: float, step: int) -> None:
            self.seen.append((name, value, step))

    writer = Writer()
    tensorboard(writer)({"a": 1.0, "b": 2.0}, 3)
    assert writer.seen == [("a", 1.0, 3), ("b", 2.0, 3)]


def test_what_cannot_log_is_refused_at_once() -> None:
    with pytest.raises(OutsizeError, match=r"LogScalars\(module, str, every=1\): .* log\(values, step\)"):
        LogScalars(nn.Linear(2, 2), "run")  # type: ignore[arg-type]
    with pytest.raises(OutsizeError, match="1 or more"):
        LogScalars(nn.Linear(2, 2), print, every=0)
