"""Bugs as people make them, workers that meet, and a run that goes on from a stored detector."""

from __future__ import annotations

import collections
import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from outsize.errors import TreesError
from outsize.programs.trees import likely, pipeline, store, workers
from outsize.programs.trees.functions import Functions
from outsize.programs.trees.grammar import OPERATION, OPERATORS
from outsize.programs.trees.inject import inject
from outsize.programs.trees.model import Detector
from outsize.programs.trees.python_front import python_functions
from outsize.programs.trees.train import TrainConfig

from .test_detector import TINY, sample


def corpus(folder: Path) -> Functions:
    whole = sample(120)
    for name, rows in {"train": range(60), "valid": range(60, 90), "test": range(90, 120)}.items():
        part = whole.select(rows)
        columns = part.columns | {"distribution": np.arange(part.count) % 3}
        dataclasses.replace(part, columns=columns).save(folder / f"{name}.forest")
    return whole


def test_likeness() -> None:
    assert likely.likeness("start_line", "end_line") > likely.likeness("start_line", "text") >= 0
    assert likely.likeness("x1", "x2") == 0.5
    assert likely.likeness("a", "a") == 1
    assert likely.likeness("", "") == 0


def test_likely_bugs_are_mostly_the_confused_ones() -> None:
    text = "def f(a, b):\n    return [a < b, a == b, a + b]\n"
    counts: dict[float, collections.Counter[tuple[str, str]]] = {}
    for share in (0.0, 1.0):
        rng = np.random.default_rng(0)
        counts[share] = collections.Counter()
        for _ in range(400):
            drawn = python_functions(text)
            bugs = inject(drawn, rng, share=1.0, kinds=(OPERATION,), likely=share)
            counts[share][OPERATORS[bugs.right[0]], OPERATORS[bugs.wrong[0]]] += 1
    even, people = counts[0.0], counts[1.0]
    assert people["<", "<="] > 2 * people["<", "=="]
    assert people["+", "-"] > 2 * people["+", "%"]
    assert even["<", "<="] < 1.8 * even["<", "=="]
    assert set(people) <= set(even)


def test_a_meeting_moves_both_half_of_the_way() -> None:
    model = torch.nn.Linear(2, 1)
    start = torch.nn.utils.parameters_to_vector(model.parameters()).detach().clone()

    class Lock:
        def __enter__(self) -> None: ...
        def __exit__(self, *_: object) -> None: ...

    meeting = workers.Meeting(model, Lock())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 1
    meeting(model)
    mine = torch.nn.utils.parameters_to_vector(model.parameters())
    torch.testing.assert_close(mine, start + 0.5)
    torch.testing.assert_close(meeting.weights, start + 0.5)
    assert meeting.weights.is_shared()


def test_two_workers_train_one_detector_and_a_run_goes_on_from_it(tmp_path: Path) -> None:
    corpus(tmp_path)
    first, second = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    config = TrainConfig(steps=6, batch=8, warm=1, meet_every=1)
    pipeline.train_detector(tmp_path, first, config, sizes=TINY, every=3, workers=2)
    assert (tmp_path / "a.part").is_file()
    _, _, history = store.load(first)
    assert (history["functions"], history["workers"]) == (96, 2)
    still = dataclasses.replace(config, rate=0.0, decay=0.0)
    pipeline.train_detector(tmp_path, second, still, start=first, every=6)
    one, other = store.load(first)[0].state_dict(), store.load(second)[0].state_dict()
    same = [name for name in one if torch.equal(one[name], other[name])]
    assert set(one) - set(same) <= {"telling.2.bias"}  # the kinds are balanced anew
    assert store.load(second)[2]["functions"] == 144


def test_a_worker_that_fails_is_an_error(tmp_path: Path) -> None:
    """The helpers find no corpus."""
    model = Detector(TINY)
    with (
        pytest.raises(TreesError, match="1 of 1 training processes failed"),
        workers.helped(model, tmp_path / "absent", TrainConfig(steps=1), 2),
    ):
        pass
