"""A recorded step computes the same bits in the same memory, and what it tells is what happened."""

import copy
import itertools

import pytest
import torch
from torch import nn

import outsize
from outsize import api
from outsize.device import allocator
from outsize.report import trace_events
from outsize.values import Timeline
from tests.api.training import rebudget, smallest_budget


def block(width: int) -> list[nn.Module]:
    return [nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(), nn.Dropout(0.2)]


@pytest.fixture(scope="module")
def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), *block(16), *block(16), nn.Flatten(), nn.LazyLinear(5)
    )


@pytest.fixture(scope="module")
def x(net: nn.Module) -> torch.Tensor:
    x = torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    net(x)
    return x


def steps(module: nn.Module, x: torch.Tensor, optimizer: torch.optim.Optimizer, *, recorded: bool) -> list:
    torch.manual_seed(0)
    seen = []
    for _ in range(4):
        if recorded:
            outsize.record(module)
        loss = module(x).square().mean()
        loss.backward()
        seen += [loss.detach().clone(), *(p.grad.clone() for p in module.parameters())]
        optimizer.step()
        optimizer.zero_grad()
        del loss
    return [*seen, *(v.clone() for v in module.state_dict().values()), torch.random.get_rng_state()]


def compiled(net: nn.Module, x: torch.Tensor, **settings: object) -> tuple[nn.Module, torch.optim.Optimizer]:
    module = copy.deepcopy(net)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.01, momentum=0.9)
    outsize.compile(module, budget=2**40, optimizer=optimizer, **settings)
    return module, optimizer


def timeline(module: nn.Module) -> Timeline:
    found = outsize.report(module, timelines=False).measured_timeline
    assert found is not None
    return found


@pytest.mark.parametrize("actions", [("swap",), ("recompute",), ("encode",), ("swap", "recompute", "encode")])
def test_a_recorded_step_is_the_same_step(net: nn.Module, x: torch.Tensor, actions: tuple[str, ...]) -> None:
    module, optimizer = compiled(net, x)
    smallest = smallest_budget(module, (x,), planner="search", actions=actions)
    state, peaks = copy.deepcopy(module.state_dict()), []
    runs = []
    for recorded in (False, True):
        module.load_state_dict(state)
        optimizer.state.clear()
        rebudget(module, int(1.02 * smallest), planner="search", actions=actions)
        runs.append(steps(module, x, optimizer, recorded=recorded))
        peaks.append(outsize.report(module).measured_peak_bytes)
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))
    if allocator.installed():
        assert peaks[1] == pytest.approx(peaks[0], rel=0.01)
        assert peaks[1] <= 1.02 * smallest
        assert timeline(module).peak_bytes == pytest.approx(peaks[1], rel=0.01)


def test_operators_and_transfers_stand_in_their_order(net: nn.Module, x: torch.Tensor) -> None:
    module, optimizer = compiled(net, x)
    rebudget(module, smallest_budget(module, (x,), actions=("swap",)), actions=("swap",))
    steps(module, x, optimizer, recorded=True)
    seen, made = timeline(module), outsize.report(module)
    compute = [s for s in seen.spans if s.lane == "compute"]
    labels = [s.label.split(" (")[0] for s in compute]
    assert (
        labels.index("convolution")
        < labels.index("outside the module")
        < labels.index("convolution_backward")
    )
    assert labels[-1] == "update"
    assert all(a.end <= b.start + 1e-9 for a, b in itertools.pairwise(compute))
    assert len(seen.starts) == len(seen.residency)
    assert list(seen.starts) == sorted(seen.starts)
    names = {d.storage: made.storage_names[d.storage] for d in made.decisions if d.action == "swap"}
    for lane, verb in (("out", "swap_out"), ("in", "fetch")):
        moved = [s for s in seen.spans if s.lane == lane]
        assert {s.label for s in moved} == {f"{verb} {name}" for name in names.values()}
        assert all(0 <= s.start <= s.end <= seen.seconds for s in moved)
    out, into = (
        {s.label.split(" ", 1)[1]: s for s in seen.spans if s.lane == lane} for lane in ("out", "in")
    )
    assert out.keys() == into.keys()
    for name in out:  # state comes for its update and then leaves
        first, then = (into[name], out[name]) if name.startswith("state of") else (out[name], into[name])
        assert first.end <= then.start
    assert sum(1 for e in trace_events(seen) if e["ph"] == "X") == len(seen.spans)


def test_one_step_is_recorded_and_then_no_more(net: nn.Module, x: torch.Tensor) -> None:
    module, optimizer = compiled(net, x)
    steps(module, x, optimizer, recorded=False)
    assert outsize.report(module).measured_timeline is None
    outsize.record(module)
    steps(module, x, optimizer, recorded=False)
    first = timeline(module)
    steps(module, x, optimizer, recorded=False)
    assert timeline(module) is first
    assert all(tier.tally.watcher is None for tier in api._SESSIONS[module].tiers.values())


def test_a_step_that_is_given_up_ends_its_recording(net: nn.Module, x: torch.Tensor) -> None:
    module, optimizer = compiled(net, x)
    outsize.record(module)
    module(x)  # no backward
    recorder = api._SESSIONS[module].recorder
    assert recorder is not None
    assert recorder.runs
    steps(module, x, optimizer, recorded=False)
    assert not recorder.runs
    assert timeline(module).seconds > 0  # of the step after it


def test_a_second_backward_and_a_second_forward(net: nn.Module, x: torch.Tensor) -> None:
    module, optimizer = compiled(net, x)
    outsize.record(module)
    loss = module(x).square().mean()
    loss.backward(retain_graph=True)
    once = [p.grad.clone() for p in module.parameters()]
    loss.backward()
    assert all(torch.equal(p.grad, 2 * g) for p, g in zip(module.parameters(), once))
    optimizer.step()
    whole = timeline(module)
    outsize.record(module)
    first = module(x).square().mean()
    second = module(x).square().mean()  # is recorded in the first one's place
    (first + second).backward()
    optimizer.step()
    assert timeline(module) is not whole
    assert timeline(module).peak_bytes > 0


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_compiled_graphs_are_one_operator_each() -> None:
    module = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 1))
    outsize.compile(module, budget=2**40, inner="inductor")
    outsize.record(module)
    module(torch.randn(4, 8)).sum().backward()
    labels = [s.label for s in timeline(module).spans]
    assert labels == ["compiled graph", "outside the module", "compiled graph"]


def test_nothing_to_record_is_an_error() -> None:
    with pytest.raises(outsize.OutsizeError, match=r"outsize\.compile"):
        outsize.record(nn.Linear(2, 2))
