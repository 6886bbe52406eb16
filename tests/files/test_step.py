"""A captured step is saved and read back whole: what `misfit` asks of a graph holds of every one that is captured."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from torch import nn

from outsize.api import capture
from outsize.errors import OutsizeError
from outsize.values import StepGraph, from_json, to_json
from tests.plan.graphs import chain, random_step


class Mixed(nn.Module):
    """Buffers that are updated, views, a result that is handed out twice, several outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.linear, self.dropout = nn.Linear(4, 5), nn.Dropout(0.5)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        made = torch.relu(self.norm(self.convolution(x)))
        found = self.linear(made.flatten(2).transpose(1, 2))
        return self.dropout(found), made.view(-1), found


def test_a_captured_step_comes_back() -> None:
    graph = capture(Mixed(), (torch.randn(2, 3, 6, 6),)).graph
    assert from_json(StepGraph, to_json(graph)) == graph


@pytest.mark.parametrize("seed", range(5))
def test_a_random_step_comes_back(seed: int) -> None:
    graph, _ = random_step(seed)
    assert from_json(StepGraph, to_json(graph)) == graph


FAULTS = {
    "another index of an op": (("ops", 3, "index"), 4, r"ops\[3\] has the index 4"),
    "another index of a storage": (("storages", 3, "index"), 4, r"storages\[3\] has the index 4"),
    "a storage that is not there": (("ops", 2, "reads"), [999], "touches storage 999"),
    "a storage read twice": (("ops", 2, "reads"), [1, 1], "reads a storage twice"),
    "a change of what is not read": (("ops", 0, "mutates"), [9], "changes one that it does not read"),
    "a storage made twice": (("ops", 1, "writes"), [5], "made twice"),
    "another producer": (("storages", 5, "producer"), 7, "said to come from op 7"),
    "a resident that is made": (("storages", 5, "kind"), "resident", "said to come from op 0"),
    "other uses": (("storages", 5, "uses"), [1], "read by other ops"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_graph_that_contradicts_itself_is_refused(fault: str) -> None:
    (group, number, name), value, problem = FAULTS[fault]
    data = json.loads(json.dumps(dataclasses.asdict(chain(4)[0])))
    data[group][number][name] = value
    with pytest.raises(OutsizeError, match=problem):
        from_json(StepGraph, json.dumps(data))
