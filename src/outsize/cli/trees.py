"""`outsize trees`: find the suspicious line, train and judge the detector, find functions that do the
same.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.progress import Progress

app = typer.Typer(help="Find the suspicious line in a program.", no_args_is_help=True)

Model = Annotated[Path | None, typer.Option(help="A trained detector, in place of the one that ships.")]
Json = Annotated[
    str | None, typer.Option("--json", help="Write the result as JSON to this file, - for stdout.")
]
Least = Annotated[
    float | None,
    typer.Option(
        help="Report places of at least this probability, instead of the detector's thresholds.",
        min=0,
        max=1,
    ),
]
FailAbove = Annotated[
    float | None,
    typer.Option(
        help="Exit with 1 where a place has at least this probability; by default where one is above the thresholds."
    ),
]
Prior = Annotated[
    float | None,
    typer.Option(
        help="Share of functions that you believe to have a bug; probabilities follow from it (calibrated at 0.5).",
        min=0.0001,
        max=0.9999,
    ),
]
Diff = Annotated[
    str | None,
    typer.Option(
        metavar="REV",
        help="Report only functions and top-level statements that have changed since this revision.",
    ),
]


@app.command()
def scan(
    paths: Annotated[list[Path], typer.Argument(help="Files and folders.")],
    top: Annotated[
        int | None, typer.Option(help="Report at most so many places; as text, 20 if not given.", min=1)
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Also report what is below the detector's own thresholds, ranked.")
    ] = False,
    min_probability: Least = None,
    fail_above: FailAbove = None,
    prior: Prior = None,
    diff: Diff = None,
    baseline: Annotated[Path | None, typer.Option(help="Leave out the findings listed in this file.")] = None,
    write_baseline: Annotated[
        Path | None, typer.Option(help="List what is found in this file, for --baseline.")
    ] = None,
    cache: Annotated[
        Path | None,
        typer.Option(help="Keep results in this file, and scan only files that have changed since."),
    ] = None,
    json: Json = None,
    sarif: Annotated[str | None, typer.Option(help="Write SARIF 2.1.0 to this file, - for stdout.")] = None,
    model: Model = None,
) -> None:
    """Report suspicious places: file:line:column, kind, repair, probability, and what speaks for it."""
    from outsize.errors import TreesError
    from outsize.programs.trees import known, reporting, store
    from outsize.programs.trees import scan as scanning
    from outsize.programs.trees.cache import opened

    if json == sarif == "-":
        raise TreesError("--json and --sarif cannot both go to stdout; give one of them a file")
    if not any(path.exists() for path in paths):
        raise TreesError(f"no such file or folder: {', '.join(map(str, paths))}")
    old = known.read_baseline(baseline) if baseline else frozenset()
    weights = model or store.SHIPPED
    detector, calibration, _ = store.load(weights)
    if everything and min_probability is None:
        min_probability = scanning.LOWEST
    config = scanning.ScanConfig(min_probability=min_probability, prior=prior)
    with _progress() as progress, opened(cache, weights, config) as remembered:
        files = list(scanning.find_files(paths, _warn))
        task = progress.add_task("scanning", total=len(files))
        found = scanning.scan(
            _advancing(files, progress, task), detector, calibration, config, warn=_warn,
            wanted=_wanted(diff, paths), cache=remembered,
        )  # fmt: skip
        fresh = (finding for finding in found if known.entry(finding) not in old)
        findings = reporting.ranked(fresh, top if top or json or sarif or write_baseline else 20)
    for target, text in (
        (json, lambda: reporting.as_json(findings)),
        (sarif, lambda: reporting.as_sarif(findings, _version())),
        (write_baseline and str(write_baseline), lambda: known.baseline_text(findings)),
    ):
        if target:
            _write(target, text())
    if not json and not sarif and not write_baseline:
        for finding in findings:
            typer.echo(reporting.as_text(finding))
        typer.echo(f"{len(files)} files, {len(findings)} places", err=True)
    if not write_baseline and any(scanning.fails(f, calibration, fail_above) for f in findings):
        raise typer.Exit(1)


@app.command()
def corpus(
    out: Annotated[Path, typer.Option(help="Folder for the packed splits.")] = Path("runs/trees"),
    wheels: Annotated[Path, typer.Option(help="Folder with the pinned wheels.")] = Path("runs/wheels"),
    requirements: Annotated[bool, typer.Option(help="Print the wheels as pip reads them, and stop.")] = False,
) -> None:
    """Build the training corpus from the pinned list: parse, remove copies, split by distribution."""
    from outsize.programs.trees import corpus as building

    if requirements:
        typer.echo(building.requirements(building.read_pins()), nl=False)
        return
    report = building.build(out, wheels, said=lambda text: typer.echo(text, err=True))
    for name, value in report["totals"].items():
        typer.echo(f"{name}: {value}")


@app.command()
def train(
    corpus: Annotated[Path, typer.Option(help="Folder written by `outsize trees corpus`.")] = Path(
        "runs/trees"
    ),
    out: Annotated[Path, typer.Option(help="Where to write the detector.")] = Path(
        "runs/detector.safetensors"
    ),
    minutes: Annotated[float, typer.Option(help="Stop after so many minutes; 0 sets no limit.", min=0)] = 0.0,
    steps: Annotated[int, typer.Option(help="Stop after so many steps.", min=1)] = 20_000,
    budget: Annotated[
        str | None, typer.Option(help="Keep a step under so many bytes, e.g. '600 MiB'.")
    ] = None,
    start: Annotated[
        Path | None, typer.Option("--from", help="Go on from this detector instead of fresh weights.")
    ] = None,
    workers: Annotated[int, typer.Option(help="Processes that train together.", min=1)] = 1,
    rate: Annotated[float, typer.Option(help="The largest learning rate.", min=0)] = 1.5e-3,
    seed: Annotated[int, typer.Option(help="Of the weights, the order and the bugs.")] = 0,
) -> None:
    """Train the detector on injected bugs, calibrate it on the validation split, and write it."""
    from outsize.programs.trees import pipeline
    from outsize.programs.trees.train import TrainConfig

    config = TrainConfig(minutes=minutes, steps=steps, seed=seed, budget=budget, rate=rate)
    report = pipeline.train_detector(
        corpus, out, config, start=start, workers=workers, said=lambda text: typer.echo(text, err=True)
    )
    typer.echo(f"{out}: located {report['located_at_1']:.1%} of the validation split's bugs")


@app.command(name="eval")
def evaluate(
    corpus: Annotated[Path, typer.Option(help="Folder written by `outsize trees corpus`.")] = Path(
        "runs/trees"
    ),
    split: Annotated[str, typer.Option(help="valid or test.")] = "test",
    seed: Annotated[int, typer.Option(help="Of the injected bugs.")] = 1,
    limit: Annotated[
        int, typer.Option(help="At most so many functions, evenly spread; 0 takes all.", min=0)
    ] = 0,
    json: Json = None,
    model: Model = None,
) -> None:
    """Inject bugs into held-out packages and count how many are found, and how much sound code is left
    alone.
    """
    import json as encoder

    from outsize.programs.trees import pipeline, store

    report = pipeline.evaluate_detector(
        model or store.SHIPPED, corpus / f"{split}.forest", seed=seed, limit=limit
    )
    if json:
        _write(json, encoder.dumps(report, indent=1) + "\n")
    if json != "-":
        for name, value in report.items():
            typer.echo(f"{name}: {value}")


@app.command()
def similar(
    place: Annotated[str, typer.Argument(metavar="FILE:LINE", help="A line inside the function.")],
    folder: Annotated[Path, typer.Option("--in", help="Where to look.")] = Path("."),
    top: Annotated[int, typer.Option(help="How many.", min=1)] = 10,
    json: Json = None,
    model: Model = None,
) -> None:
    """Find functions that do the same: renamed, reordered, `for` for `while`, a loop for a comprehension."""
    import dataclasses
    import json as encoder

    from outsize.errors import TreesError
    from outsize.programs.trees import search
    from outsize.programs.trees import similar as matching

    path, colon, line = place.rpartition(":")
    if not colon or not line.isdigit():
        raise TreesError(f"{place!r} is not FILE:LINE, such as src/module.py:12")
    matcher = matching.load_matcher(model or matching.SHIPPED)
    query = search.function_at(Path(path), int(line))
    with _progress() as progress:
        task = progress.add_task("files", total=None)
        found = search.similar(
            matcher, query, folder, top=top, warn=_warn, seen=lambda: progress.advance(task)
        )
    if json:
        _write(json, encoder.dumps([dataclasses.asdict(match) for match in found], indent=1) + "\n")
    if json != "-":
        for match in found:
            typer.echo(f"{match.path}:{match.line}-{match.end_line}: {match.similarity:.3f} {match.name}")


def _wanted(diff: str | None, paths: list[Path]) -> Callable[[str, int, int], bool] | None:
    if diff is None:
        return None
    from outsize.programs.trees.changes import changed_lines, touches

    changed: dict[Path, list[tuple[int, int]]] = {}
    for folder in sorted({(p if p.is_dir() else p.parent).resolve() for p in paths if p.exists()}):
        changed |= changed_lines(diff, folder)
    return lambda path, first, last: touches(changed.get(Path(path).resolve(), ()), first, last)


def _progress() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    return Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        console=Console(stderr=True), transient=True,
    )  # fmt: skip


def _advancing(files: list[Path], progress: Progress, task: Any) -> Any:
    for file in files:
        yield file
        progress.advance(task)


def _warn(text: str) -> None:
    typer.echo(f"warning: {' '.join(text.split())}", err=True)


def _version() -> str:
    from outsize import __version__

    return __version__


def _write(target: str, text: str) -> None:
    if target == "-":
        typer.echo(text, nl=False)
        return
    from outsize.errors import TreesError

    try:
        Path(target).write_text(text)
    except OSError as error:
        raise TreesError(f"cannot write {target}: {error}") from error
