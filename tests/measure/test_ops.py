"""What an operator costs beyond its results, measured without a trace in the training."""

import json
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from outsize.api import capture
from outsize.files import seal_text
from outsize.fx import CapturedStep
from outsize.measure import MeasureSettings, default_cache, measure_ops, ops, store
from outsize.values import OpCost


@pytest.fixture(scope="module")
def step() -> CapturedStep:
    module = nn.Sequential(nn.Linear(64, 128), nn.Dropout(0.5), nn.Linear(128, 64), nn.Linear(64, 128))
    return capture(module, (torch.randn(8, 64),))


QUICK = MeasureSettings(repeats=1, quick_repeats=0)


def test_one_cost_per_op_and_none_for_what_is_not_ours(step: CapturedStep) -> None:
    costs = measure_ops(step.graph.ops, step.nodes, QUICK)
    assert len(costs) == len(step.graph.ops)
    for op, cost in zip(step.graph.ops, costs):
        assert (cost == OpCost(seconds=0.0)) == (op.phase in ("outside", "update"))
        assert cost.workspace_bytes >= 0


def test_random_numbers_and_gradients_are_left_alone(step: CapturedStep) -> None:
    before = torch.random.get_rng_state()
    measure_ops(step.graph.ops, step.nodes, QUICK)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.is_grad_enabled()


def test_equal_signatures_are_measured_once(step: CapturedStep) -> None:
    seen: list[tuple[int, int]] = []
    measure_ops(step.graph.ops, step.nodes, QUICK, progress=lambda *done: seen.append(done))
    wanted = {o.signature for o, n in zip(step.graph.ops, step.nodes) if n is not None}
    assert seen == [(i + 1, len(wanted)) for i in range(len(wanted))]
    assert len(wanted) < sum(n is not None for n in step.nodes)


def test_measurements_are_kept(step: CapturedStep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = MeasureSettings(repeats=1, quick_repeats=0, cache=tmp_path / "new" / "cache")
    first = measure_ops(step.graph.ops, step.nodes, settings)
    seen: list[tuple[int, int]] = []
    again = measure_ops(step.graph.ops, step.nodes, settings, progress=lambda *done: seen.append(done))
    assert again == first
    assert seen == []
    (file,) = (tmp_path / "new" / "cache").iterdir()
    wanted = {o.signature for o, n in zip(step.graph.ops, step.nodes) if n is not None}
    assert json.loads(file.read_text())["costs"].keys() == wanted


def flip_a_digit(text: str) -> str:
    at = next(i for i, c in enumerate(text) if c in "12345678" and text[i - 1] in "0123456789.")
    return text[:at] + "9" + text[at + 1 :]


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (lambda text: '{"aten.mm": [1', "it is not JSON"),
        (lambda text: text[:-1], "it is not JSON"),
        (lambda text: "[]", "no measurements and their checksum"),
        (lambda text: text.replace('"costs"', '"cost"'), "no measurements and their checksum"),
        (flip_a_digit, "checksum does not match"),
        (lambda text: "[" * 100_000, "nested too deeply"),
    ],
)  # fmt: skip
def test_a_damaged_file_is_said_to_be_so_measured_again_and_replaced(
    step: CapturedStep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: Callable, problem: str
) -> None:
    settings = MeasureSettings(repeats=1, quick_repeats=0, cache=tmp_path)
    monkeypatch.setattr(store, "_SEEN", {})
    measure_ops(step.graph.ops[:3], step.nodes[:3], settings)
    (file,) = tmp_path.iterdir()
    whole = json.loads(file.read_text())
    file.write_text(damage(file.read_text()))
    monkeypatch.setattr(store, "_SEEN", {})
    with pytest.warns(UserWarning, match=f"ops-.*{problem}.*measured again"):
        measure_ops(step.graph.ops[:3], step.nodes[:3], settings)
    assert json.loads(file.read_text())["costs"].keys() == whole["costs"].keys()


def test_another_process_runs_each_again_and_keeps_the_shorter_time(
    step: CapturedStep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = MeasureSettings(repeats=1, quick_repeats=0, cache=tmp_path)
    monkeypatch.setattr(store, "_SEEN", {})
    measure_ops(step.graph.ops, step.nodes, settings)
    (file,) = tmp_path.iterdir()
    kept = json.loads(file.read_text())["costs"]
    slow, quick = sorted(kept)[:2]
    changed = kept | {slow: (100.0, 12345, 0), quick: (0.0, 54321, 678)}
    file.write_text(json.dumps({"checksum": seal_text(changed), "costs": changed}))
    monkeypatch.setattr(store, "_SEEN", {})
    seen: list[tuple[int, int]] = []
    costs = measure_ops(step.graph.ops, step.nodes, settings, progress=lambda *done: seen.append(done))
    found = {op.signature: cost for op, cost in zip(step.graph.ops, costs)}
    assert len(seen) == len(kept)
    assert found[slow].seconds < 100.0
    assert found[quick] == OpCost(seconds=0.0, workspace_bytes=54321, surplus_bytes=678)
    assert found[slow].workspace_bytes == 12345
    assert json.loads(file.read_text())["costs"][slow][0] == found[slow].seconds


def test_a_cache_that_cannot_be_written_costs_nothing_else(step: CapturedStep, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    assert measure_ops(
        step.graph.ops, step.nodes, MeasureSettings(repeats=1, quick_repeats=0, cache=blocked / "x")
    )


def test_the_cache_follows_the_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache() == tmp_path / "outsize"
    threads = torch.get_num_threads()
    name = store._machine()
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads + 1)
    assert store._machine() != name  # other threads, other costs


def test_a_matrix_product_needs_little_and_a_wide_convolution_its_columns() -> None:
    product = capture(nn.Linear(256, 256), (torch.randn(64, 256),))
    costs = measure_ops(product.graph.ops, product.nodes, MeasureSettings())
    assert all(c.workspace_bytes < 64 * 256 * 4 for c in costs)
    # Dilated double-precision convolutions go through unfolded columns: 9 times the input.
    dilated = nn.Conv2d(16, 8, 3, dilation=2, padding=2, dtype=torch.float64)
    wide = capture(dilated, (torch.randn(1, 16, 64, 64, dtype=torch.float64),))
    costs = measure_ops(wide.graph.ops, wide.nodes, MeasureSettings(repeats=4))
    columns = 9 * 16 * 64 * 64 * 8
    forward = next(c for o, c in zip(wide.graph.ops, costs) if o.phase == "forward")
    assert columns <= forward.workspace_bytes < 1.5 * columns


def test_views_are_measured_over_the_bytes_that_they_span() -> None:
    class Corner(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(4, 4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.sin(x[:4, 3:7].t() @ self.weight)

    step = capture(Corner(), (torch.randn(1000, 1000),))
    mm = next(n for o, n in zip(step.graph.ops, step.nodes) if n is not None and "mm" in o.target)
    view = ops._example(mm.args[0])
    wanted = mm.args[0].meta["val"]
    assert (tuple(view.shape), view.stride(), view.dtype) == ((4, 4), wanted.stride(), torch.float32)
    assert view.untyped_storage().nbytes() == 4 * (3 * 1000 + 3 + 1)


def test_the_engine_is_warmed_in_a_backward_wherever_it_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU the products of a backward run on a thread of their own; here the calls are counted."""
    seen = []
    monkeypatch.setattr(torch, "addmm", lambda *args: seen.append(args) or torch.zeros(8, 8))
    with torch.no_grad():
        ops._warm_engine(torch.device("cpu"))
    assert [tuple(t.shape) for t in seen[0]] == [(8,), (8, 8), (8, 8)]


def test_a_result_over_a_larger_storage_has_a_surplus() -> None:
    class Fold(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.functional.fold(x.exp(), (16, 16), 3, padding=1)

    folded = capture(Fold(), (torch.randn(2, 18, 256, requires_grad=True),))
    costs = dict(zip((o.name for o in folded.graph.ops), measure_ops(folded.graph.ops, folded.nodes, QUICK)))
    assert costs["col2im"].surplus_bytes == (18 - 2) * 2 * 256 * 4
    assert costs["exp"].surplus_bytes == costs["im2col"].surplus_bytes == 0


def test_figures_of_other_kernels_are_not_taken(tmp_path: Path) -> None:
    """A product in bfloat16 that oneDNN multiplies takes room for its packed factors, the plain kernel none."""
    product = capture(
        nn.Linear(2304, 16, bias=False, dtype=torch.bfloat16), (torch.randn(64, 2304).bfloat16(),)
    )
    settings = MeasureSettings(repeats=1, quick_repeats=0, cache=tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, of the flags that it sets
        with torch.backends.mkldnn.flags(enabled=False):
            measure_ops(product.graph.ops, product.nodes, settings)
    (first,) = tmp_path.iterdir()
    measure_ops(product.graph.ops, product.nodes, settings)
    assert len(set(tmp_path.iterdir()) - {first}) == 1
