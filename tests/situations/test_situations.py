"""Situations from public reports (`benchmarks/situations`), the quick ones: equal under the budget, or refused."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

FOLDER = Path(__file__).parents[2] / "benchmarks" / "situations"
FILES = ("buffers", "randomness", "recurrent", "gradients", "loops", "details")
#: All actions at the tightest budget.
PLANS = ((("swap", "recompute", "encode"), 0.0),)
QUICK = (
    "queue_of_keys", "codes_move_after_the_look_up", "running_normalizer", "argument_changed_in_place",
    "average_moves_before_the_backward", "dropouts_recomputed", "two_draws_of_which_one_is_read", "seeded_inside",
    "python_random_number", "lstm_with_dropout", "heads_by_turns", "gradient_penalty", "projected_gradients",
    "triplets", "sharpness_aware", "adapter_set_after_two_steps", "float32_island_under_autocast",
    "hook_that_comes_later_and_goes", "batch_of_one",
)  # fmt: skip


@pytest.fixture(scope="module")
def harness() -> Iterator[object]:
    """The folder's modules, by the names under which they know each other."""
    sys.path.insert(0, str(FOLDER))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        made = importlib.import_module("harness")
        for name in FILES:
            importlib.import_module(name)
        yield made
    finally:
        torch.set_num_threads(threads)
        sys.path.remove(str(FOLDER))
        for name in ("harness", *FILES):
            sys.modules.pop(name, None)


@pytest.mark.parametrize("name", QUICK)
def test_equal_or_refused(harness, name: str) -> None:
    torch._dynamo.reset()
    found = list(harness.tried(harness.SITUATIONS[name], PLANS))
    said = [f for f in found if f.verdict == "over" and any("over the budget of" in w for w in f.warned)]
    assert [f for f in found if f.verdict not in ("equal", "refused") and f not in said] == []
    # A refusal at capture names the user's line; a budget that is too small names one that is not; a tensor that was
    # changed between forward and backward has a name.
    named = ("BudgetError", "MutationError: the buffer")
    refused = [f for f in found if f.verdict == "refused" and not f.line]
    assert [f for f in refused if not any(kind in f.detail for kind in named)] == []


def test_there_are_sixty_and_each_names_its_report(harness) -> None:
    assert len(harness.SITUATIONS) >= 60
    assert {s.name for s in harness.SITUATIONS.values() if "/" not in s.public} == set()
    assert set(QUICK) <= set(harness.SITUATIONS)
