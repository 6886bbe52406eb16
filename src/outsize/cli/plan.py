"""`outsize plan`: will it fit, and what will it cost? Nothing is trained, and the hardware need not be here."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .train import Batch, Data, Effort, Model, Seed, Size, Target, Tiny, load

if TYPE_CHECKING:
    from ..zoo import Workload

#: The lines of a sweep: by name a planner and what it may do.
TECHNIQUES = {
    "mixed": ("search", ("swap", "recompute", "encode")),
    "swap only": ("search", ("swap",)),
    "recompute only": ("search", ("recompute",)),
    "units": ("units", ("swap", "recompute")),
    "slack": ("slack", ("swap",)),
    "distance": ("distance", ("swap",)),
}


def plan(
    target: Target = None,
    model: Model = None,
    budget: Annotated[
        str, typer.Option(help="Peak bytes of a step: '20 GiB', or a share of the plain step's peak.")
    ] = "60%",
    hardware: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE.toml",
            help="Estimate for h100-sxm, h100-pcie, a100, rtx4090, gh200, mi300x or a data sheet of your own; "
            "nothing is allocated. Without it, operators are measured here.",
        ),
    ] = None,
    planner: Annotated[
        str | None,
        typer.Option(
            help="Who chooses: search (default), units, slack, distance, or exact (small steps only)."
        ),
    ] = None,
    effort: Effort = 1,
    sweep: Annotated[
        bool,
        typer.Option(
            "--sweep", help="Plan several budgets with each technique: the curve of peak against time."
        ),
    ] = False,
    points: Annotated[int, typer.Option(min=2, help="Number of budgets in a sweep.")] = 8,
    data: Data = None,
    batch: Batch = None,
    size: Size = None,
    tiny: Tiny = False,
    seed: Seed = 0,
    json: Annotated[
        Path | None, typer.Option(help="Write the plan, or the plans by technique, here.")
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Write the curve of a sweep here.")] = None,
) -> None:
    """Predict peak and step time under a budget without running the step."""
    from rich.console import Console

    from ..errors import OutsizeError
    from ..zoo.training import budget_bytes, unallocated
    from .report import check_writable

    for path in (json, html):
        check_writable(path)
    if html is not None and not sweep:
        raise OutsizeError("--html draws the curve of a sweep: add --sweep")

    budget_bytes(budget, 2**30)  # a slip of the pen is told before the work begins

    def wanted() -> Workload:
        return load(target, model, data=data, batch=batch, size=size, tiny=tiny, seed=seed)

    with Console(stderr=True).status("loading"):
        workload = wanted() if hardware is None else unallocated(wanted)
    if sweep:
        _sweep(workload, hardware, points, json, html)
    else:
        _once(workload, hardware, budget, planner, effort, json)


def _once(
    workload: Workload, hardware: str | None, budget: str, planner: str | None, effort: int, json: Path | None
) -> None:
    from rich.console import Console

    from .. import api
    from ..report import plan_summary
    from ..zoo import training
    from .report import write

    optimizer = training.make_optimizer(workload)
    chosen: dict[str, Any] = {"planner": planner} if planner else {}
    with Console(stderr=True).status("capturing and planning"):
        plain = training.plain_plan(workload, optimizer, hardware=hardware)
        made = api.plan(
            workload.module,
            workload.example().args,
            budget=training.budget_bytes(budget, plain.plain_peak_bytes),
            hardware=hardware,
            optimizer=optimizer,
            effort=effort,
            **chosen,
        )
    Console().print(plan_summary(made, title=_title(workload, hardware)))
    if json is not None:
        write(json, made.to_json())


def _sweep(
    workload: Workload, hardware: str | None, points: int, json: Path | None, html: Path | None
) -> None:
    import dataclasses
    from json import dumps

    from rich.console import Console

    from .. import api
    from ..report import sweep_page, sweep_table
    from ..zoo import training
    from .report import write

    optimizer = training.make_optimizer(workload)
    with Console(stderr=True).status("capturing and planning"):
        args = workload.example().args
        lines = api.sweep(
            workload.module, args, TECHNIQUES, points=points, hardware=hardware, optimizer=optimizer
        )
    Console().print(sweep_table(lines))
    if html is not None:
        write(html, sweep_page(lines, title=_title(workload, hardware)))
    if json is not None:
        plans = {name: [dataclasses.asdict(p) for p in line] for name, line in lines.items()}
        write(json, dumps(plans, indent=1))


def _title(workload: Workload, hardware: str | None) -> str:
    return f"{workload.name} on {hardware}, estimated" if hardware else workload.name
