"""Densities that move while a module trains: plans follow them, seldom; what does not fit goes to a tier."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import outsize
from outsize import api
from outsize.codecs import DensityMeter
from outsize.session import density
from outsize.session.density import DensityWatch
from outsize.values import Decision, Plan, RunRecord, StepGraph, Storage

SIZE = 100_000
WORTH = 10_000
STORAGES = tuple(
    Storage(index=i, name=f"relu_{i}", nbytes=SIZE, kind="activation", producer=0, uses=(1,), zeros=i < 3)
    for i in range(4)
)
GRAPH = StepGraph(ops=(), storages=STORAGES)


def plan(codec: str = "relu", storages: Sequence[int] = (0, 1)) -> Plan:
    made = (
        Decision(storage=s, action="encode", after=0, before=1, free_before=1, fetch_before=1, codec=codec)
        for s in storages
    )
    return Plan(
        budget_bytes=10 * WORTH, planner="slack", decisions=tuple(made), refusals=(), plain_peak_bytes=0,
        predicted_peak_bytes=0, plain_step_seconds=0.0, predicted_step_seconds=0.0, resident_bytes=0,
    )  # fmt: skip


PLAN = plan()


def settled(value: float = 0.4) -> DensityWatch:
    """A watch that has seen the first step and been planned for it."""
    watch = DensityWatch(GRAPH, DensityMeter(margin=0.0))
    watch.saw({0: value, 1: value, 2: value}, [])
    assert "first step" in watch.reason(PLAN, WORTH)
    watch.planned()
    return watch


def run(watch: DensityWatch, values: Sequence[float], overflowed: Sequence[int] = ()) -> list[int]:
    """Steps after which a plan was made."""
    plans = []
    for step, value in enumerate(values):
        watch.saw({0: value}, list(overflowed))
        if watch.reason(PLAN, WORTH):
            watch.planned()
            plans.append(step)
    return plans


def test_densities_that_stay_are_planned_for_once() -> None:
    watch = settled()
    assert run(watch, [0.4, 0.41, 0.39, 0.38] * 20) == []
    assert watch.notes() == ()


def test_one_sparse_step_does_not_last() -> None:
    assert run(settled(), [0.4, 0.4, 0.4, 0.1] * 20) == []
    assert run(settled(), [0.4, 0.4, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1]) == [5]


def test_pauses_double_and_have_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(density, "LONGEST_PAUSE", 16)
    plans = run(settled(), [0.9] * 100, overflowed=[0])
    assert [b - a for a, b in zip([-1, *plans], plans)] == [2, 4, 8, 16, 16, 16, 16, 16]


def test_what_overflowed_gets_room_for_twice_the_rise() -> None:
    watch = settled(0.4)
    assert run(watch, [0.45, 0.5], overflowed=[0]) == [1]
    assert watch.expected()[0] == pytest.approx(0.5 + 2 * 0.1)
    assert watch.expected()[1] == 0.4
    assert "2 encodings in 2 of 3 steps" in watch.notes()[0]
    assert "relu_0 was 0.500 dense, with room for 0.432" in watch.notes()[0]


def test_a_plan_that_does_not_fit_is_asked_for_again_when_bytes_come_free() -> None:
    watch = settled(0.4)
    for _ in range(2):
        watch.saw({0: 0.6}, [0])
    assert watch.reason(PLAN, WORTH)
    assert watch.refused()  # once more, without the wider margin
    assert watch.expected()[0] == 0.6
    assert not watch.refused()
    assert run(watch, [0.6] * 40, overflowed=[0]) == []
    assert run(watch, [0.3] * 40) == [3]


def test_a_mask_has_no_density() -> None:
    watch = settled(0.9)
    for _ in range(8):
        watch.saw(dict.fromkeys((0, 1, 2), 0.1), [])
    assert watch.reason(plan("mask", (0, 1, 2)), WORTH) == ""
    assert watch.reason(replace(PLAN, decisions=()), WORTH) == ""  # the step fits: nothing to gain
    assert watch.reason(PLAN, WORTH)


def test_another_step_starts_from_what_was_seen() -> None:
    meter = DensityMeter(margin=0.0)
    DensityWatch(GRAPH, meter).saw({0: 0.3, 2: 0.7}, [])
    other = DensityWatch(replace(GRAPH, storages=STORAGES[:2]), meter)
    assert other.expected() == {0: 0.3}


# The same in training.


class Chain(nn.Module):
    """Convolutions whose biases say how dense their ReLU outputs are; each output's values are read again."""

    def __init__(self) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(nn.Conv2d(16 if i else 3, 16, 3, padding=1) for i in range(5))
        self.head = nn.Linear(16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for convolution in self.convolutions:
            x = F.relu(convolution(x))
        return self.head(x.mean((2, 3)))


def made() -> Chain:
    torch.manual_seed(0)
    return Chain()


def train(
    module: nn.Module, biases: Sequence[float], *, batch: int = 4, each: Callable[[], None] = lambda: None
) -> list[list[torch.Tensor]]:
    """A step per bias: the loss and all gradients."""
    generator = torch.Generator().manual_seed(7)
    steps = []
    for bias in biases:
        with torch.no_grad():
            for convolution in module.convolutions:
                convolution.bias.fill_(bias)
        module.zero_grad()
        loss = module(torch.randn(batch, 3, 64, 64, generator=generator)).square().mean()
        loss.backward()
        steps.append([loss.detach().clone(), *(p.grad.clone() for p in module.parameters())])
        each()
    return steps


def equal(a: list[list[torch.Tensor]], b: list[list[torch.Tensor]]) -> bool:
    pairs = ((x, y) for one, other in zip(a, b, strict=True) for x, y in zip(one, other, strict=True))
    return all(torch.equal(x, y) for x, y in pairs)


@pytest.fixture(scope="module")
def peak() -> int:
    module = outsize.meter(made())
    train(module, [0.0])
    return outsize.report(module, timelines=False).plain_peak_bytes


STEPS = 12


DRIFTS = {"rising": (-0.25, 0.04), "falling": (0.1, -0.04)}


def drift(name: str, budget: int, actions: tuple[str, ...]) -> list[RunRecord]:
    """The report after each step of a drift: every bit is the plain step's, and the budget holds in every step."""
    first, change = DRIFTS[name]
    biases = [first + change * i for i in range(STEPS)]
    module = outsize.compile(made(), budget, actions=actions)
    records: list[RunRecord] = []
    found = train(module, biases, each=lambda: records.append(outsize.report(module, timelines=False)))
    assert equal(found, train(outsize.meter(made()), biases))
    assert all(r.measured_peak_bytes <= budget for r in records)
    return records


@pytest.mark.parametrize("name", DRIFTS)
def test_drift_under_all_actions(peak: int, name: str) -> None:
    records = drift(name, int(0.75 * peak), ("swap", "recompute", "encode"))
    assert records[-1].decisions


@pytest.mark.parametrize("name", DRIFTS)
def test_plans_follow_densities(peak: int, name: str) -> None:
    """With encoding alone nothing but the densities can bring another plan; the report tells what went to a tier."""
    records = drift(name, int(0.92 * peak), ("encode",))
    plans = [n for n in records[-1].notes if n.startswith("planned again")]
    assert 2 <= len(plans) <= 3
    told = [n for n in records[-1].notes if "went to a tier" in n]
    if name == "rising":
        assert "denser than planned" in plans[-1]
        assert len(told) == 1
        assert records[-1].decisions != records[2].decisions
        assert max(r.swapped_out_bytes for r in records) >= 2**20  # they were kept whole
    else:
        assert "zeros by now" in plans[-1]
        reserved = [sum(d.encoded_bytes for d in r.decisions) for r in records]
        assert reserved[-1] < reserved[2]
        assert records[-1].swapped_out_bytes == 0


def test_a_plan_that_no_longer_fits_stays_and_overflows(peak: int) -> None:
    biases = [0.0, 0.0, *[0.3] * 6]
    module = outsize.compile(made(), int(peak * 0.85), actions=("encode",))
    with pytest.warns(RuntimeWarning, match=r"denser than planned, in vain, so the plan before stays"):
        found = train(module, biases)
    record = outsize.report(module, timelines=False)
    assert equal(found, train(outsize.meter(made()), biases))
    assert record.measured_peak_bytes <= record.budget_bytes
    assert record.swapped_out_bytes >= 2**20
    assert any("went to a tier" in note for note in record.notes)


def test_another_shape_is_planned_with_the_densities_seen(peak: int) -> None:
    module = outsize.compile(made(), int(1.15 * peak), actions=("encode",))
    train(module, [-0.1] * 2, batch=5)
    seen = api._SESSIONS[module]._latest.densities.expected()
    records = []
    train(module, [-0.1], batch=6, each=lambda: records.append(outsize.report(module, timelines=False)))
    made_for = {
        d.storage: d.encoded_bytes / records[0].storage_bytes[d.storage]
        for d in records[0].decisions
        if d.codec == "relu"
    }
    assert any(share < 0.4 for share in made_for.values())  # unseen, half zeros would be assumed
    assert all(share == pytest.approx(seen[s] + 0.065, abs=0.005) for s, share in made_for.items())
    assert sum("first step" in note for note in records[0].notes) == 1


def test_what_is_not_encoded_is_sampled_now_and_then(peak: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(density, "SAMPLED_EVERY", 3)
    shown: list[int] = []
    saw = DensityWatch.saw

    def counted(watch: DensityWatch, densities: dict[int, float], overflowed: list[int]) -> None:
        shown.append(len(densities))
        saw(watch, densities, overflowed)

    monkeypatch.setattr(DensityWatch, "saw", counted)
    module = outsize.compile(made(), int(0.92 * peak), actions=("encode",))
    train(module, [0.0] * 8)
    encoded = sum(d.codec == "relu" for d in outsize.report(module, timelines=False).decisions)
    assert 0 < encoded < 5
    assert shown == [
        5,
        5,
        encoded,
        encoded,
        5,
        encoded,
        encoded,
        5,
    ]  # the second plan begins a count of its own
