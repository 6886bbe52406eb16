"""Each library's example: the losses of the plain run to the bit, within the budget from beginning to end.

Three epochs with accumulation, clipping, evaluation and checkpoints, and where it says so, training resumed from one.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

EXAMPLES = Path(__file__).parents[2] / "examples"
#: The libraries warn of their own future; what this package says stays an error.
pytestmark = [
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.filterwarnings("error::outsize.errors.BudgetWarning"),
]


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    torch._dynamo.reset()


def example(name: str, *libraries: str) -> ModuleType:
    for library in libraries:
        pytest.importorskip(library)
    return importlib.import_module(f"with_{name}")


def kept(planned: Any) -> None:
    """The whole run stayed within a budget that the plain step does not fit."""
    assert set(planned.peaks.phases) == {"step", "evaluation", "checkpoint"}
    assert planned.peaks.peak_bytes <= planned.peaks.budget_bytes < planned.record.plain_peak_bytes


def test_trainer(tmp_path: Path) -> None:
    code = example("trainer", "transformers", "accelerate")
    plain, _ = code.train(tmp_path / "plain")
    losses, planned = code.train(tmp_path / "planned", code.BUDGET)
    assert losses == plain
    kept(planned)
    losses, planned = code.train(tmp_path / "planned", code.BUDGET, resume=True)
    assert losses == plain
    kept(planned)


@pytest.mark.parametrize("name", ["peft", "trl"])
def test_what_is_built_on_the_trainer(name: str, tmp_path: Path) -> None:
    code = example(name, "transformers", "accelerate", name)
    plain, _ = code.train(tmp_path / "plain")
    losses, planned = code.train(tmp_path / "planned", code.BUDGET)
    assert losses == plain
    kept(planned)


def test_lightning(tmp_path: Path) -> None:
    code = example("lightning", "lightning")
    plain, _ = code.train(tmp_path / "plain")
    losses, planned = code.train(tmp_path / "planned", code.BUDGET)
    assert losses == plain
    kept(planned)
    # Lightning's checkpoints hold no random state, so a resumed run is compared with a plain one that resumed.
    plain, _ = code.train(tmp_path / "plain", resume=True)
    losses, planned = code.train(tmp_path / "planned", code.BUDGET, resume=True)
    assert losses == plain
    kept(planned)


def test_accelerate(tmp_path: Path) -> None:
    code = example("accelerate", "accelerate")
    plain, _ = code.train(tmp_path / "plain")
    losses, reached = code.train(tmp_path / "planned", code.BUDGET)
    assert losses == plain
    assert reached.peak_bytes <= reached.budget_bytes
    resumed, reached = code.train(tmp_path / "planned", code.BUDGET, resume=True)
    assert resumed == plain[-len(resumed) :]
    assert reached.peak_bytes <= reached.budget_bytes
