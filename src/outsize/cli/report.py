"""`outsize report RUN.json`: a saved run as text, as one HTML page, or as a trace."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ..values import RunRecord


def report(
    run: Annotated[Path, typer.Argument(help="A saved run, as `outsize train --json` writes it.")],
    html: Annotated[Path | None, typer.Option(help="Write one self-contained page here.")] = None,
    trace: Annotated[
        Path | None, typer.Option(help="Write the timelines here, for ui.perfetto.dev or chrome://tracing.")
    ] = None,
) -> None:
    """Show a saved run: figures, decisions, refusals; with --html the curves and lanes as well."""
    from rich.console import Console

    from ..files import Door
    from ..report import page, renderable
    from ..values import RunRecord, load_json

    door = Door(kind="a run record", remedy="write one with `outsize train ... --json FILE`")
    record = load_json(RunRecord, run, door)
    Console().print(renderable(record))
    if html is not None:
        write(html, page(record, title=f"Run {run.stem}"))
    if trace is not None:
        write_trace(trace, record)


def write_trace(path: Path, record: RunRecord) -> None:
    """Writes the timelines of a run, the measured one first: simulated ones stand beside it for comparison.

    Raises:
        OutsizeError: the record holds none, or the file cannot be written.
    """
    from ..errors import OutsizeError
    from ..report import trace_json

    timelines = {
        "measured step": record.measured_timeline,
        "planned step, simulated": record.timeline,
        "plain step, simulated": record.plain_timeline,
    }
    known = {name: timeline for name, timeline in timelines.items() if timeline is not None}
    if not known:
        raise OutsizeError("this run holds no timeline, so there is no trace to write")
    write(path, trace_json(known))


def write(path: Path, text: str) -> None:
    """Writes a file that the user named, and says so on stderr.

    Raises:
        OutsizeError: the file cannot be written.
    """
    from ..errors import OutsizeError

    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise OutsizeError(f"cannot write {path}: {error.strerror}") from error
    typer.echo(f"wrote {path}", err=True)


def check_writable(path: Path | None) -> None:
    """Refuses, before minutes of work, an output file that could not be written after them.

    Raises:
        OutsizeError: its folder is missing or closed to writing, or it is a folder itself.
    """
    import os

    from ..errors import OutsizeError

    if path is None:
        return
    folder = path.resolve().parent
    if path.is_dir() or not folder.is_dir() or not os.access(path if path.exists() else folder, os.W_OK):
        raise OutsizeError(f"cannot write {path}: name a file in an existing folder that you may write to")
