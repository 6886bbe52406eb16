"""`outsize train`: trains a model of the zoo, or the user's own, under a budget that the plain step exceeds."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    import torch
    from rich.console import Console

    from ..values import RunRecord
    from ..zoo import Workload
    from ..zoo.training import Step

#: Shown in the help, which must not import the zoo; a test keeps them equal to `zoo.names()`.
MODELS = (
    "gpt", "gpt-tied", "bert", "lstm", "resnet50", "resnet152", "vgg16", "vit", "unet2d", "unet3d", "autoencoder",
)  # fmt: skip
MODEL_HELP = (
    f"One of {', '.join(MODELS)}. Text models read the source of Python's standard library, image models "
    "scikit-learn's handwritten digits enlarged; unet2d and unet3d segment overlapping discs and spheres seen through "
    "a simulated fluorescence microscope (depth absorption, point-spread function, Poisson and read-out noise)."
)

Target = Annotated[
    str | None,
    typer.Argument(
        metavar="[MODEL | FILE.py:BUILD]",
        help="A model's name (gpt if none is given), or a function of your own that returns (module, batches, loss_fn).",
    ),
]
Model = Annotated[str | None, typer.Option("--model", help=MODEL_HELP)]
Data = Annotated[
    Path | None,
    typer.Option(
        help="Your data: a file or folder of text; for images and volumes a .npz file with x and y."
    ),
]
Batch = Annotated[int | None, typer.Option(min=1, help="Samples per batch; each model has a default.")]
Size = Annotated[
    int | None,
    typer.Option(min=1, help="Context length in bytes (text), or side in pixels (images, volumes)."),
]
Tiny = Annotated[
    bool, typer.Option("--tiny", help="A small version of the model, for a try: seconds, not minutes.")
]
Steps = Annotated[int | None, typer.Option(min=1, help="Training steps; each model has a default.")]
Rate = Annotated[float | None, typer.Option(min=0, help="AdamW's learning rate; each model has a default.")]
Device = Annotated[
    str | None,
    typer.Option(
        metavar="cpu|cuda|cuda:N",
        help="Device to train on; the budget is of its memory. A GPU swaps to host memory.",
    ),
]
Workers = Annotated[int, typer.Option(min=1, help="Processes that share the work, each under the budget.")]
Effort = Annotated[
    int,
    typer.Option(
        min=1,
        max=8,
        help="How long to plan: 1 takes about a second; each step up adds seconds and may make the step faster.",
    ),
]
Trace = Annotated[
    Path | None, typer.Option(help="Write one real step here, operators and transfers, for ui.perfetto.dev.")
]
ChunkMb = Annotated[
    float | None,
    typer.Option(help="MiB of gradients that workers synchronise at a time, instead of searching for it."),
]
NoPlan = Annotated[
    bool, typer.Option("--no-plan", help="Train without a plan, under the same meter, for comparison.")
]
Live = Annotated[
    bool,
    typer.Option(
        "--live",
        help="Show budget, bytes alive, peak, losses and stalls as they move, in place of the progress bar.",
    ),
]
Seed = Annotated[int, typer.Option(help="Of initialisation, data and dropout.")]


def train(
    target: Target = None,
    model: Model = None,
    steps: Steps = None,
    budget: Annotated[
        str, typer.Option(help="Peak bytes of a step: '300 MiB', or a share of the plain step's peak.")
    ] = "60%",
    disk: Annotated[
        Path | None, typer.Option(help="Directory to swap to; by default the real disk with the most room.")
    ] = None,
    data: Data = None,
    batch: Batch = None,
    size: Size = None,
    tiny: Tiny = False,
    lr: Rate = None,
    seed: Seed = 0,
    json: Annotated[
        Path | None, typer.Option(help="Write the figures of the run here, for `outsize report`.")
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Write the report page here.")] = None,
    trace: Trace = None,
    live: Live = False,
    no_plan: NoPlan = False,
    device: Device = None,
    workers: Workers = 1,
    effort: Effort = 1,
    chunk_mb: ChunkMb = None,
) -> None:
    """Train a network under a memory budget that its plain step exceeds, and show what that took.

    The plain step is the step without a plan. Without arguments: a byte-level GPT on the source of Python's standard
    library, in 60 % of the bytes that its plain step needs.
    """
    import torch
    from rich.console import Console

    from .. import api, parallel
    from ..device.place import device_of
    from ..zoo import training

    proofread(budget, disk, json, html, trace, device=device)
    _proofread_chunk(chunk_mb, several=workers > 1 or parallel.is_worker())
    if workers > 1 and not parallel.is_worker():
        parallel.launch("outsize", sys.argv[1:], workers=workers)
        return
    first = parallel.is_first()
    console = Console(stderr=True, quiet=not first)
    with console.status("loading"):
        workload = load(target, model, data=data, batch=batch, size=size, tiny=tiny, seed=seed)
        workload = workload.on(device) if device else workload
    console.print(workload.describe(), markup=False, highlight=False)
    torch.manual_seed(seed)
    optimizer: torch.optim.Optimizer = training.make_optimizer(workload, learning_rate=lr)
    limit = None
    if no_plan:
        api.meter(workload.module, optimizer=optimizer)
    else:
        limit = announce(console, workload, optimizer, budget)
        api.compile(workload.module, budget=limit, optimizer=optimizer, disk=disk, effort=effort)
    steps = steps or workload.steps
    if parallel.is_worker():
        workload, optimizer = training.share(workload, learning_rate=lr, chunk_mb=chunk_mb)
    shown = _view(live=live)
    with shown(console, steps, limit, device_of(workload.module.parameters())) as on_step:
        pictured, interrupted = html is not None or trace is not None, False
        try:
            record = training.run(workload, optimizer, steps=steps, on_step=on_step, record=pictured)
        except training.Interrupted as stop:
            record, interrupted = stop.record, True
            if trace is not None and record.measured_timeline is None:
                console.print("no trace: the step to record was yet to come")
                trace = None
    if first:
        show(record, workload.name, json=json, html=html, trace=trace)
    if interrupted:
        raise typer.Exit(130)


def _view(*, live: bool) -> Any:
    from . import live as view

    return view.live if live else progress


def _proofread_chunk(chunk_mb: float | None, *, several: bool) -> None:
    from ..errors import WorkloadError

    if chunk_mb is not None and (chunk_mb <= 0 or not several):
        raise WorkloadError(
            f"--chunk-mb {chunk_mb:g} must be positive, and divides the gradients of several workers: add --workers 2"
        )


def show(record: RunRecord, name: str, *, json: Path | None, html: Path | None, trace: Path | None) -> None:
    """Print what a training was, and write what was asked for of it."""
    from rich.console import Console

    from ..report import page, renderable
    from .report import write, write_trace

    Console().print(renderable(record))
    if json is not None:
        write(json, record.to_json())
    if html is not None:
        write(html, page(record, title=f"{name}, {len(record.losses)} steps"))
    if trace is not None:
        write_trace(trace, record)


def proofread(budget: str, disk: Path | None, *outputs: Path | None, device: str | None = None) -> None:
    """A slip of the pen is told before the work begins.

    Raises:
        OutsizeError: the budget cannot be read, the disk tier's directory or an output file cannot be written to, the
            device is not there.
    """
    from ..device.place import check_device
    from ..runtime.tiers.file import SwapFile
    from ..zoo import training
    from .report import check_writable

    for path in outputs:
        check_writable(path)
    training.budget_bytes(budget, 2**30)
    if disk is not None:
        SwapFile(disk).close()
    if device is not None:
        check_device(device)


def load(target: str | None, model: str | None, **wanted: Any) -> Workload:
    """The named model of the zoo (gpt where none is named), or the user's `file.py:build`.

    Raises:
        WorkloadError: it cannot be loaded, or an option does not apply to it.
    """
    from .. import zoo
    from ..errors import WorkloadError

    if target and model:
        raise WorkloadError(f"two models were named, {target!r} and --model {model}: name one")
    name = target or model or "gpt"
    if ":" not in name and not name.endswith(".py"):
        return zoo.load(name, **wanted)
    seed = wanted.pop("seed")
    if given := [f"--{option}" for option, value in wanted.items() if value]:
        raise WorkloadError(
            f"{', '.join(given)} choose data and sizes of the zoo; build() in {name} sets its own"
        )
    return zoo.load_build(name, seed=seed)


def announce(console: Console, workload: Workload, optimizer: Any, budget: str) -> int:
    """Says what the plain step would take, and gives the budget in bytes.

    Raises:
        UnitError: the budget cannot be read.
    """
    from ..units import format_bytes, format_seconds
    from ..zoo import training

    with console.status("capturing and measuring the plain step (once per machine)"):
        plain = training.plain_plan(workload, optimizer)
    limit = training.budget_bytes(budget, plain.plain_peak_bytes)
    console.print(
        f"plain step: peak {format_bytes(plain.plain_peak_bytes)}, {format_seconds(plain.plain_step_seconds)}; "
        f"budget: {format_bytes(limit)} ({100 * limit / plain.plain_peak_bytes:.0f} %)",
        markup=False,
        highlight=False,
    )
    return limit


@contextmanager
def progress(console: Console, steps: int, limit: int | None, device: torch.device) -> Iterator[Any]:
    """A progress bar on stderr; gives the function to call after each step.

    The bytes alive are read from the meter whenever the bar is drawn, so they move within a step. What the process
    holds beside the step (the interpreter, the libraries) is taken off, as counted between steps.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn
    from rich.text import Text

    from ..device import memory
    from ..units import format_seconds

    beside: list[int] = []

    class Alive(ProgressColumn):
        max_refresh = 0.2

        def render(self, task: Any) -> Text:
            alive = f"alive {mib(max(0, memory.bytes_in_use(device) - beside[0]))}" if beside else ""
            return Text(alive, style="cyan", no_wrap=True)

    def mib(nbytes: int) -> str:
        return f"{nbytes / 2**20:.{0 if nbytes > 2**24 else 2}f}"

    of_budget = "" if limit is None else f" of {mib(limit)}"
    columns = (
        TextColumn("step"), MofNCompleteColumn(), BarColumn(bar_width=12), TextColumn("{task.description}"),
        Alive(), TextColumn("{task.fields[peak]}"),
    )  # fmt: skip
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("planning, first step", total=steps, peak="")

        def on_step(step: Step) -> None:
            beside[:] = [memory.bytes_in_use(device) - step.alive_bytes]
            bar.update(
                task,
                completed=step.index + 1,
                description=f"loss {step.loss:.3f} {format_seconds(step.seconds)}/step",
                peak=f"peak {mib(step.record.measured_peak_bytes)}{of_budget} MiB",
            )

        yield on_step
