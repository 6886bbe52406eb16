"""The largest batch under a fixed budget: plain, planned, and the largest that any plan without tiling can reach.

While an operator runs, the residents, the gradients made so far and all that it touches are on the device, whatever the
plan; the largest of these sums is the floor. It grows with the batch, so the batch at which it passes the budget ends
every plan. Steps are captured on tensors without bytes and planned for an A100 with a PCIe 4 link; `--run` then trains
a small ResNet-50 for real at its largest planned batch.

python benchmarks/plan-largest-batch/run.py
"""

import sys
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

sys.path.insert(0, str(Path(__file__).parents[1]))
import outsize
from outsize import api, zoo
from outsize.measure import estimate, load_hardware
from outsize.plan import PlanSettings
from outsize.values import RunRecord
from outsize.zoo.models.convolutional import ResNet, ResNetSize
from outsize.zoo.models.unet import UNet, UNetSize
from plan_bench import Case, save

GIB = 2**30
SETTINGS = PlanSettings(margin=0.0, moves=25, move_ops=2_500)
Maker = tuple[Callable[[], torch.nn.Module], tuple[int, ...], int]
MODELS: dict[str, Maker] = {
    "resnet50 224²": (lambda: ResNet(ResNetSize(stages=(3, 4, 6, 3)), classes=1000), (3, 224, 224), 40 * GIB),
    "unet3d 128³": (
        lambda: UNet(UNetSize(width=16, depth=3), dimensions=3, classes=3),
        (1, 128, 128, 128),
        40 * GIB,
    ),
}


def case(maker: Maker, batch: int) -> Case:
    build, shape, _ = maker
    with FakeTensorMode(allow_non_fake_inputs=True):
        graph = api.capture(build(), (torch.empty(batch, *shape),)).graph
    return Case(graph, estimate(graph, load_hardware("a100")))


def largest(maker: Maker, bytes_of: Callable[[Case], int]) -> tuple[int, Case]:
    """The largest batch whose figure is within the budget; figures grow in proportion to the batch, and are checked."""
    budget, few, more = maker[2], case(maker, 1), case(maker, 5)
    slope = (bytes_of(more) - bytes_of(few)) / 4
    batch = max(1, int((budget - bytes_of(few)) / slope) + 1)
    while bytes_of(case(maker, batch)) > budget:
        batch -= 1
    while bytes_of(case(maker, batch + 1)) <= budget:
        batch += 1
    return batch, case(maker, batch)


def planned(name: str) -> dict:
    maker = MODELS[name]
    plain, _ = largest(maker, lambda c: c.peak)
    limit, at_limit = largest(maker, lambda c: c.floor)
    row: dict = {"model": name, "budget_bytes": maker[2], "plain": plain, "limit_of_any_plan": limit,
                 "floor_at_limit_and_next": [at_limit.floor, case(maker, limit + 1).floor]}  # fmt: skip
    for planner, actions in (("search", ("swap", "recompute")), ("search", ("swap",))):
        batch, made = limit, at_limit.plan(maker[2], planner, actions, SETTINGS)
        while made is None:
            batch -= 1
            made = case(maker, batch).plan(maker[2], planner, actions, SETTINGS)
        row["+".join(actions)] = {"batch": batch, "peak_bytes": made.predicted_peak_bytes,
            "step_over_plain_per_sample": made.predicted_step_seconds / made.plain_step_seconds}  # fmt: skip
    row["gain"] = row["swap+recompute"]["batch"] / plain
    row["within_limit"] = row["swap+recompute"]["batch"] / limit
    print(row, flush=True)
    return row


def run(size: int = 64, plain_batch: int = 4) -> dict:
    """ResNet-50 at a small image size: the budget is the plain step's peak at one batch, the batch then grows."""

    def peaks(batch: int, budget: int) -> RunRecord:
        work = zoo.load("resnet50", seed=0, batch=batch, size=size)
        module = outsize.compile(work.module, budget)
        for data in islice(work.batches(), 3):
            module.zero_grad(set_to_none=True)
            work.loss_fn(module(*data.args), data.target).backward()
        return outsize.report(module, timelines=False)

    budget = peaks(plain_batch, 2**40).measured_peak_bytes
    batch, row = plain_batch, {"size": size, "plain_batch": plain_batch, "budget_bytes": budget, "ran": []}
    for batch in (8, 16, 24, 32, 40, 48):
        try:
            record = peaks(batch, budget)
        except outsize.BudgetError as error:
            row["refused"] = {"batch": batch, "smallest_feasible_bytes": error.smallest_feasible_bytes}
            break
        row["ran"].append({"batch": batch, "measured_peak_bytes": record.measured_peak_bytes,
                           "predicted_peak_bytes": record.predicted_peak_bytes})  # fmt: skip
        print(row["ran"][-1], flush=True)
    return row


if __name__ == "__main__":
    rows = [planned(name) for name in MODELS]
    save(__file__, {"bars": {"resnet50": 8, "unet3d": 3, "within_limit": 0.97}, "rows": rows, "run": run()})
