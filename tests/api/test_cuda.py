"""The engine on a GPU: bytes swapped to page-locked host memory, counted by torch, to the bit."""

from __future__ import annotations

import copy
import gc
import itertools
import re

import pytest
import torch
from typer.testing import CliRunner

import outsize
from outsize import zoo
from outsize.cli.main import app
from outsize.values import RunRecord
from outsize.values.json import from_json

from .training import rebudget, smallest_budget, train

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
NAMES = [name for name in zoo.names() if name != "resnet152"]
ACTIONS = [("swap",), ("recompute",), ("swap", "recompute", "encode")]


@pytest.fixture(autouse=True)
def deterministic():
    """Atomic sums differ from run to run on a GPU whatever the engine does."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)
    gc.collect()
    torch.cuda.empty_cache()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.filterwarnings("ignore:.*deterministic")
def test_every_bit_under_every_action(name: str) -> None:
    """Attention's backward, say, sums in any order: what two plain runs do not share is not asked for."""
    work = zoo.load(name, seed=0, tiny=True).on("cuda")
    state = copy.deepcopy(work.module.state_dict())
    plain = outsize.meter(copy.deepcopy(work.module))
    expected = train(work, plain)

    def wrong(module: torch.nn.Module) -> set[str]:
        module.load_state_dict(state)
        return {re.sub(r" [0-9]+", "", name) for name in expected.differing(train(work, module))}

    random = wrong(plain) | wrong(plain)
    module = outsize.compile(work.module, 2**40)
    assert wrong(module) <= random
    whole = outsize.report(module).plain_peak_bytes
    for actions in ACTIONS:
        chosen = {"planner": "search", "actions": actions}
        module.load_state_dict(state)
        smallest = smallest_budget(module, work.example().args, **chosen)
        for budget in (smallest, (smallest + whole) // 2):
            rebudget(module, budget, **chosen)
            assert wrong(module) <= random
            assert outsize.report(module).predicted_peak_bytes <= budget


class Wide(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layers = [[torch.nn.Linear(1024, 1024), torch.nn.ReLU(), torch.nn.Dropout(0.2)] for _ in range(12)]
        self.layers = torch.nn.Sequential(*(layer for three in layers for layer in three))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


def highest() -> int:
    """Most bytes that were alive since the history began, beyond those of its beginning: an account of its own, since
    the meter resets torch's peak."""
    events = torch.cuda.memory._snapshot()["device_traces"][0]
    torch.cuda.memory._record_memory_history(None)
    sign = {"alloc": 1, "free_requested": -1}
    return max(itertools.accumulate(sign.get(e["action"], 0) * e["size"] for e in events))


@pytest.mark.parametrize("actions", [("swap",), ("encode",), ("swap", "recompute", "encode")])
def test_torch_sees_the_budget_kept(actions: tuple[str, ...]) -> None:
    """16 MiB an activation: what torch itself counted is under the budget, from the first step on."""
    torch.manual_seed(0)
    module, x = Wide().cuda(), torch.randn(4096, 1024, device="cuda")
    twin = outsize.meter(copy.deepcopy(module))
    twin(x).square().mean().backward()
    whole = outsize.report(twin).measured_peak_bytes
    budget = int(0.75 * whole)
    planned = outsize.compile(module, budget, actions=actions)
    for _ in range(4):
        gc.collect()
        planned.zero_grad()
        torch.cuda.memory._record_memory_history("all", context=None, max_entries=100_000)
        planned(x).square().mean().backward()
        seen = highest() + sum(p.nbytes for p in planned.parameters()) + x.nbytes
    report = outsize.report(planned)
    assert report.decisions
    assert seen <= budget
    assert report.measured_peak_bytes <= budget
    assert report.measured_peak_bytes == pytest.approx(seen, rel=0.02)
    assert report.predicted_peak_bytes == pytest.approx(report.measured_peak_bytes, rel=0.1)
    if "encode" not in actions:
        assert report.swapped_out_bytes > 0


def test_steps_with_every_action_equal_plain_ones() -> None:
    torch.manual_seed(0)
    module = Wide().cuda()
    xs = [torch.randn(4096, 1024, device="cuda") for _ in range(5)]

    def run(model: torch.nn.Module) -> list[torch.Tensor]:
        torch.manual_seed(7)
        optimizer, kept = torch.optim.SGD(model.parameters(), lr=0.1), []
        for x in xs:
            loss = model(x).square().mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            kept.append(loss.detach())
        return [*kept, *(p.detach().clone() for p in model.parameters())]

    plain = outsize.meter(copy.deepcopy(module))
    expected = run(plain)
    budget = int(0.6 * outsize.report(plain).measured_peak_bytes)
    for a, b in zip(expected, run(outsize.compile(module, budget))):
        assert torch.equal(a, b)


def test_the_default_optimizer_of_a_gpu_fits_as_well() -> None:
    """It updates all parameters at once, with temporary tensors as large as they are."""
    torch.manual_seed(0)
    module, x = Wide().cuda(), torch.randn(4096, 1024, device="cuda")
    plain = copy.deepcopy(module)
    optimizer = torch.optim.AdamW(plain.parameters())
    twin = outsize.meter(plain, optimizer=optimizer)
    for _ in range(2):
        twin(x).square().mean().backward()
        optimizer.step()
    budget = int(0.8 * outsize.report(twin).measured_peak_bytes)
    optimizer = torch.optim.AdamW(module.parameters())
    planned = outsize.compile(module, budget, optimizer=optimizer)
    for _ in range(4):
        optimizer.zero_grad()
        planned(x).square().mean().backward()
        optimizer.step()
    assert outsize.report(planned).decisions
    assert outsize.report(planned).measured_peak_bytes <= budget


def test_a_module_that_moved_and_one_on_both_devices_are_told(tmp_path) -> None:
    moved = outsize.compile(torch.nn.Linear(64, 64), 2**30)
    moved.cuda()
    with pytest.raises(outsize.OutsizeError, match="move it first"):
        moved(torch.randn(8, 64, device="cuda"))
    with pytest.raises(outsize.OutsizeError, match="host_budget"):
        outsize.compile(torch.nn.Linear(64, 64).cuda(), 2**30, disk=tmp_path)


def test_the_command_trains_on_the_gpu(tmp_path) -> None:
    file = tmp_path / "run.json"
    args = ["train", "gpt", "--tiny", "--device", "cuda", "--steps", "4", "--json", str(file)]
    done = CliRunner().invoke(app, [*args, "--html", str(tmp_path / "run.html"), "--budget", "90%"])
    assert done.exit_code == 0, done.output
    record = from_json(RunRecord, file.read_text())
    assert record.measured_peak_bytes <= record.budget_bytes
    assert record.losses[-1] < record.losses[0]
