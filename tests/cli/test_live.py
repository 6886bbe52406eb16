"""`outsize train --live`: what the view shows of the steps that it is told of."""

from __future__ import annotations

import io
from dataclasses import replace

import torch
from rich.console import Console

from outsize.cli.live import WIDTH, View, live
from outsize.values import RunRecord
from outsize.zoo.training import Step

RECORD = RunRecord(
    budget_bytes=8 * 2**20, plain_peak_bytes=2**24, predicted_peak_bytes=2**22, measured_peak_bytes=6 * 2**20,
    resident_bytes=2**20, swapped_out_bytes=0, swapped_in_bytes=0, stall_seconds=0.0, predicted_step_seconds=0.1,
    measured_step_seconds=0.1, decisions=(), refusals=(),
)  # fmt: skip


def step(index: int, loss: float, stall: float = 0.0) -> Step:
    record = replace(RECORD, stall_seconds=stall)
    return Step(index=index, loss=loss, seconds=0.25, record=record, alive_bytes=2 * 2**20)


def shown(view: View, encoding: str = "utf-8") -> dict[str, str]:
    out = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    Console(file=out, width=100).print(view)
    out.seek(0)
    rows = [line.rstrip().partition("  ") for line in out.read().splitlines()]
    return {name.strip(): rest.strip() for name, _, rest in rows}


def test_bars_stand_on_one_scale_and_lines_have_a_character_a_step() -> None:
    in_use = [100 * 2**20]
    view = View(10, 8 * 2**20, lambda: in_use[0])
    assert "planning, first step" in shown(view)["step"]
    view.add(step(0, 4.0))
    view.add(step(1, 1.0, stall=0.5))
    in_use[0] += 2 * 2**20  # in the middle of the third step
    rows = shown(view)
    assert rows["step"].startswith("2 of 10")
    assert rows["budget"] == f"8.00 MiB  {'█' * WIDTH}"
    assert rows["alive"] == f"4.00 MiB  {'█' * (WIDTH // 2)}"
    assert rows["peak"] == f"6.00 MiB  {'█' * (3 * WIDTH // 4)}"
    assert rows["loss"] == "1  █▁"
    assert rows["stall"].endswith("▁█")
    assert rows["step time"].endswith("██")


def test_a_first_step_that_is_planned_leaves_the_others_to_be_seen() -> None:
    view = View(9, 2**23, lambda: 0)
    for index, seconds in enumerate((60.0, 0.2, 0.4, 0.2, 0.2)):
        view.add(replace(step(index, 1.0), seconds=seconds))
    assert shown(view)["step time"].endswith("█▅█▅▅")


def test_without_a_budget_and_without_unicode() -> None:
    view = View(3, None, lambda: 0)
    view.add(step(0, 1.0))
    rows = shown(view, "latin-1")
    assert "budget" not in rows
    assert rows["peak"].endswith("#" * WIDTH)


def test_what_is_no_terminal_gets_the_last_state() -> None:
    out = io.StringIO()
    with live(Console(file=out, width=100), 2, 2**23, torch.device("cpu")) as on_step:
        on_step(step(0, 4.0))
        on_step(step(1, 3.0))
    assert out.getvalue().count("step time") == 1
    assert "2 of 2" in out.getvalue()
    assert out.getvalue().endswith("\n")
