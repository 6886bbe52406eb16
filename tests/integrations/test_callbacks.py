"""What the callbacks refuse, and the parts of a model that they plan."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.distributed.fsdp import FSDPModule

from outsize.errors import OutsizeError

EXAMPLES = Path(__file__).parents[2] / "examples"
pytestmark = pytest.mark.filterwarnings("ignore", "error::outsize.errors.BudgetWarning")


@pytest.fixture(autouse=True)
def _examples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    torch._dynamo.reset()


@pytest.fixture
def code() -> Any:
    pytest.importorskip("lightning")
    return importlib.import_module("with_lightning")


def test_lightning_plans_a_submodule(code: Any, tmp_path: Path) -> None:
    plain, _ = code.train(tmp_path / "plain")
    losses, planned = code.train(tmp_path / "planned", "3 MB", module="net")
    assert losses == plain
    assert planned.peaks.peak_bytes <= planned.peaks.budget_bytes


def test_lightning_gives_the_module_back_after_an_error(
    code: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a step that raises, the module has its own step again."""
    kept = []

    class Breaks(code.Classifier):
        def on_train_start(self) -> None:
            kept.append(self)

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            raise RuntimeError("this step is not meant to end")

    monkeypatch.setattr(code, "Classifier", Breaks)
    with pytest.raises(RuntimeError, match="not meant to end"):
        code.train(tmp_path, "1 GiB")
    assert "training_step" not in vars(kept[0])
    assert "log" not in vars(kept[0])


def test_lightning_refuses_steps_that_optimize_by_hand(
    code: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(code.Classifier, "automatic_optimization", False)
    with pytest.raises(OutsizeError, match="module='net'"):
        code.train(tmp_path, "1 GiB", accumulate_grad_batches=1, gradient_clip_val=None)


class _Sharded(FSDPModule, torch.nn.Linear):
    """As `fully_shard` leaves a module."""

    def __new__(cls) -> Any:
        return torch.nn.Linear.__new__(cls)

    def __init__(self) -> None:
        torch.nn.Linear.__init__(self, 2, 2)


def test_the_trainer_plans_a_submodule_and_refuses_what_wraps_the_model() -> None:
    pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    from outsize.integrations.transformers import OutsizeCallback, _check

    arguments = SimpleNamespace(torch_compile=False, deepspeed=None, fsdp=None, fsdp_config={}, n_gpu=1)
    whole = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 4))
    optimizer = torch.optim.SGD(whole.parameters(), lr=0.1)
    for name, value, said in (
        ("torch_compile", True, "torch_compile"), ("deepspeed", "ds.json", "DeepSpeed"),
        ("fsdp", True, "Write fsdp_config=.'version': 2"), ("n_gpu", 2, "torchrun"),
    ):  # fmt: skip
        given = SimpleNamespace(**{**vars(arguments), name: value})
        with pytest.raises(OutsizeError, match=said):
            OutsizeCallback("1 GiB").on_train_begin(given, None, None, model=whole, optimizer=optimizer)
    given = SimpleNamespace(**{**vars(arguments), "fsdp": True, "fsdp_config": {"cpu_offload": True}})
    with pytest.raises(OutsizeError, match=r"cpu_offload.*: the shards would be on the host"):
        _check(given, _Sharded())
    logged: list[tuple[int, dict[str, float]]] = []
    callback = OutsizeCallback("1 GiB", module="0", log=lambda values, step: logged.append((step, values)))
    callback.on_train_begin(arguments, None, None, model=whole, optimizer=optimizer)
    whole(torch.randn(2, 4)).sum().backward()
    optimizer.step()
    for rank, state in ((1, SimpleNamespace(is_world_process_zero=False, global_step=7)),
                        (0, SimpleNamespace(is_world_process_zero=True, global_step=8))):  # fmt: skip
        callback.on_step_end(arguments, state, None)
        assert len(logged) == (rank == 0)
    assert logged[0][0] == 8
    assert 0 < logged[0][1]["outsize/peak_bytes"] <= logged[0][1]["outsize/budget_bytes"] == 2**30
    callback.on_train_end(arguments, None, None)
    assert callback.record is not None
    assert callback.record.steps == 1
    assert callback.peaks is not None
    assert set(callback.peaks.phases) == {"step"}


def test_accelerate_refuses_what_is_in_another_order_and_frees_what_is_gone() -> None:
    accelerate = pytest.importorskip("accelerate")
    from outsize.integrations.accelerate import peaks, prepare, release

    accelerator = accelerate.Accelerator(cpu=True)
    model = torch.nn.Linear(4, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(OutsizeError, match="the model first"):
        prepare(accelerator, optimizer, model, budget="1 GiB")  # type: ignore[arg-type]
    with pytest.raises(OutsizeError, match="was not prepared"):
        peaks(model)
    release(model)
    model, optimizer = prepare(accelerator, model, optimizer, budget="1 GiB")
    model(torch.randn(2, 4)).sum().backward()
    optimizer.step()
    assert 0 < peaks(model).peak_bytes < 2**30
    release(model)
