"""The kinds are put in balance, and a threshold leaves as many alone in packages that were not looked at."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from outsize.programs.trees import calibrate, evaluate
from outsize.programs.trees.model import Detector
from outsize.programs.trees.words import WordTable

from .test_detector import TINY, sample


def outcome(top: np.ndarray, package: np.ndarray) -> evaluate.Outcome:
    blank, no = np.zeros(len(top), np.int64), np.zeros(len(top), np.bool_)
    return evaluate.Outcome(
        kind=blank - 1,
        wrong=top,
        top=top,
        located=no,
        rank=blank,
        repaired=no,
        places=blank + 3,
        package=package,
    )


def test_a_threshold_with_room_for_other_packages() -> None:
    """Packages whose suspicions lie higher or lower: of new ones drawn alike, most keep their share."""
    rng = np.random.default_rng(0)

    def packages(count: int) -> evaluate.Outcome:
        level = rng.normal(0.0, 1.0, count)
        top = np.concatenate([rng.normal(m, 1.0, 400) for m in level])
        return outcome(1 / (1 + np.exp(-top)), np.repeat(np.arange(count), 400))

    kept = {"plain": 0, "roomy": 0}
    for _ in range(60):
        seen, new = packages(8), packages(12)
        kept["plain"] += (new.top <= evaluate.threshold_for(seen, 0.85)).mean() >= 0.85
        kept["roomy"] += (new.top <= evaluate.threshold_by_package(seen, 0.85)).mean() >= 0.85
    assert kept["roomy"] >= 44, kept
    assert kept["plain"] <= 36, kept
    single = outcome(rng.random(100), np.zeros(100, np.int64))
    assert evaluate.threshold_by_package(single, 0.85) == evaluate.threshold_for(single, 0.85)


def test_shifts_undo_what_was_added_to_a_kind() -> None:
    """Two rewrites per function, one of each kind, answers drawn from the true logits; then a kind is raised."""
    rng = np.random.default_rng(1)
    functions = 30_000
    kind = torch.tensor([0, 3]).repeat(functions)
    function = torch.arange(functions).repeat_interleave(2)
    true = torch.from_numpy(rng.normal(0, 1.0, 2 * functions))
    weights = torch.exp(true).reshape(-1, 2)
    chance = torch.cat([torch.ones(functions, 1, dtype=torch.float64), weights], 1)
    answer = torch.multinomial(chance, 1, generator=torch.Generator().manual_seed(0))[:, 0] - 1
    answer = torch.where(answer >= 0, answer + 2 * torch.arange(functions), -1)
    raised = true + torch.tensor([1.5, -0.7], dtype=torch.float64).repeat(functions)
    found = calibrate.Logits(value=raised, kind=kind, function=function, answer=answer)
    shift = calibrate.kind_shifts(found)
    same = calibrate.kind_shifts(calibrate.Logits(value=true, kind=kind, function=function, answer=answer))
    # Whatever the balance of the drawn answers asks for comes on top in both.
    assert (shift - same)[0].item() == pytest.approx(-1.5, abs=1e-3)
    assert (shift - same)[3].item() == pytest.approx(0.7, abs=1e-3)
    assert shift[[1, 2, 4]].tolist() == [0, 0, 0]


def test_balancing_changes_only_the_kinds_bias_and_lowers_the_loss() -> None:
    torch.manual_seed(0)
    model, drawn = Detector(TINY).eval(), sample(100)
    words = WordTable(drawn.forest.tokens, TINY.rows)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        model.telling[-1].bias += torch.tensor([3.0, -3.0, 0.0, 0.0, 0.0])
    first = calibrate.balanced(model, drawn, words, seed=3)
    changed = [name for name, value in model.state_dict().items() if not torch.equal(value, before[name])]
    assert changed == ["telling.2.bias"]
    assert first[0] < 0
    again = calibrate.balanced(model, drawn, words, seed=3)
    assert max(map(abs, again)) < 1e-2
    assert again[4] == first[4] == 0
