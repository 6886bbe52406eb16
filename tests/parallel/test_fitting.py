"""A checkpoint that is damaged, or of another model, is refused before any of it is taken over."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp

from outsize.errors import ParallelError
from outsize.parallel import distribute, load_state_dict, state_dict

from .nets import batch, loss_of, smooth


@pytest.fixture(scope="module")
def trained() -> tuple[Any, Any, dict[str, Any]]:
    model, optimizer = distribute(smooth(), torch.optim.AdamW, lr=1e-3)
    for step in range(2):
        loss_of(model(batch(step, 0))).backward()
        optimizer.step()
    return model, optimizer, state_dict(model, optimizer)


State = dict[str, Any]


def first(mapping: dict[str, Any]) -> str:
    return next(iter(mapping))


def flip(state: State) -> None:
    """One bit of one weight."""
    state["model"][first(state["model"])].view(torch.int32).flatten()[3] ^= 1


def wider(state: State) -> None:
    name = first(state["model"])
    state["model"][name] = torch.zeros(3, 3)


def moment(state: State) -> None:
    entries = state["optimizer"]["state"]
    entries[first(entries)]["exp_avg"] = torch.zeros(1)


def swap_names(state: State) -> None:
    names = state["optimizer"]["param_groups"][0]["params"]
    names[0], names[1] = names[1], names[0]


DAMAGES: dict[str, tuple[Callable[[State], Any], str]] = {
    "a bit of a weight": (flip, "not those that were saved"),
    "a learning rate": (lambda s: s["optimizer"]["param_groups"][0].update(lr=2e-3), "not those that were saved"),
    "no model": (lambda s: s.pop("model"), "has no model"),
    "no optimizer": (lambda s: s.pop("optimizer"), "has no optimizer"),
    "a list for a model": (lambda s: s.update(model=[]), "has no model"),
    "a weight less": (lambda s: s["model"].pop(first(s["model"])), "differ in"),
    "a weight more": (lambda s: s["model"].update(extra=1), "differ in 'extra'"),
    "another shape": (wider, "has shape"),
    "no tensor": (lambda s: s["model"].update({first(s["model"]): "x"}), "not a tensor"),
    "no groups": (lambda s: s["optimizer"].pop("param_groups"), "has no param_groups"),
    "a group that is none": (lambda s: s["optimizer"].update(param_groups=[3]), "other parameters"),
    "names exchanged": (swap_names, "in another order"),
    "state of nobody": (lambda s: s["optimizer"]["state"].update(ghost={}), "'ghost'"),
    "state that is none": (
        lambda s: s["optimizer"]["state"].update({first(s["optimizer"]["state"]): 7}), "none of its parameters"),
    "a moment of another shape": (moment, "exp_avg has shape"),
    "a setting of another optimizer": (
        lambda s: s["optimizer"]["param_groups"][0].update(momentum=0.9), "differs in 'momentum'"),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_does_not_fit_is_refused_and_changes_nothing(
    trained: tuple[Any, Any, State], damage: str
) -> None:
    model, optimizer, whole = trained
    change, message = DAMAGES[damage]
    state = copy.deepcopy(whole)
    change(state)
    before = state_dict(model, optimizer)
    if message != "not those that were saved":
        state.pop("checksum")  # what fits is asked of values that were changed on purpose, too
    with pytest.raises(ParallelError, match=f"cannot be loaded: .*{message}.*; load a checkpoint"):
        load_state_dict(model, optimizer, state)
    assert state_dict(model, optimizer)["checksum"] == before["checksum"]
    load_state_dict(model, optimizer, copy.deepcopy(whole))


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
def test_a_bit_that_changed_in_the_file_is_noticed(trained: tuple[Any, Any, State], tmp_path: Path) -> None:
    model, optimizer, whole = trained
    dcp.save(whole, checkpoint_id=tmp_path, no_dist=True)
    (file,) = tmp_path.glob("*.distcp")
    data = bytearray(file.read_bytes())
    name = first(whole["model"])
    at = data.find(whole["model"][name].numpy().tobytes())
    assert at > 0
    data[at + 5] ^= 4
    file.write_bytes(data)
    state = state_dict(model, optimizer)
    dcp.load(state, checkpoint_id=tmp_path, no_dist=True)  # without a word
    assert not torch.equal(state["model"][name], whole["model"][name])
    with pytest.raises(ParallelError, match="not those that were saved"):
        load_state_dict(model, optimizer, state)
