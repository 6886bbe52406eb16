"""`outsize doctor`: what of outsize works on this machine, and what to do about the rest.

Each finding is read from what the package itself asks before it trains: nothing here guesses.
"""

from __future__ import annotations

import importlib.metadata
import platform
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Annotated, Literal, final

import typer

State = Literal["works", "limited", "missing"]
#: Libraries that an extra brings, and what they are for.
_EXTRAS = {
    "triton": "kernels on a GPU",
    "zstandard": "compressed swap files",
    "tree-sitter": "outsize trees",
    "plotly": "charts of reports",
    "transformers": "Trainer",
    "lightning": "Lightning",
    "accelerate": "accelerate",
    "peft": "LoRA",
    "trl": "SFTTrainer",
}


@final
@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        name: what.
        state: `works`; `limited`: training works, slower or with less; `missing`: it does not.
        needed: whether `outsize.compile` on this machine needs it.
        found: what is there.
        advice: what to do, where something can be done.
    """

    name: str
    state: State
    needed: bool = False
    found: str
    advice: str = ""


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """Say what of outsize works on this machine: torch, compiler, kernels, memory, allocator, disk, GPU, libraries."""
    import json

    from .. import __version__

    found = [finding for look in _LOOKS for finding in look()]
    fine = not any(finding.needed and finding.state == "missing" for finding in found)
    if as_json:
        typer.echo(
            json.dumps(
                {"version": __version__, "trains": fine, "findings": [asdict(f) for f in found]}, indent=2
            )
        )
    else:
        _show(found, fine, __version__)
    raise typer.Exit(0 if fine else 1)


def _show(found: list[Finding], fine: bool, version: str) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    color = {"works": "green", "limited": "yellow", "missing": "red"}
    table = Table(title=f"outsize {version}", title_justify="left", box=None, padding=(0, 2, 0, 0))
    for column in ("", "state", "found"):
        table.add_column(column)
    for one in found:
        shade = color[one.state] if one.needed or one.state != "missing" else "dim"
        text = escape(one.found) + (f"\n[dim]{escape(one.advice)}[/]" if one.advice else "")
        table.add_row(one.name, f"[{shade}]{one.state}[/]", text)
    console = Console()
    console.print(table)
    console.print(
        "[green]Training under a budget works here.[/]"
        if fine
        else "[red]Training under a budget does not work here.[/]"
    )


def _python() -> list[Finding]:
    system = f"{platform.system()} {platform.release()}, {platform.machine()}"
    linux = sys.platform.startswith("linux")
    return [
        Finding(name="Python", state="works", needed=True, found=platform.python_version()),
        Finding(
            name="system",
            state="works" if linux else "limited",
            found=system,
            advice="" if linux else "budgets of CPU memory need Linux; plans for other hardware do not",
        ),
    ]


def _torch() -> list[Finding]:
    import torch

    from ..capture import check_version
    from ..errors import OutsizeError

    found = f"{torch.__version__}, {torch.get_num_threads()} threads"
    try:
        check_version()
    except OutsizeError as error:
        return [Finding(name="torch", state="missing", needed=True, found=found, advice=str(error))]
    return [Finding(name="torch", state="works", needed=True, found=found)]


def _kernels() -> list[Finding]:
    from .. import native

    compiler = next((path for name in ("cc", "gcc", "clang") if (path := shutil.which(name))), None)
    here = Finding(
        name="C compiler",
        state="works" if compiler else "limited",
        found=compiler or "none",
        advice=""
        if compiler or native.available()
        else "install one (apt-get install gcc), then reinstall outsize",
    )
    if native.kernels is None:
        advice = "searching plans, codecs and the update are slower; reinstall where there is a C compiler"
        return [Finding(name="C module", state="limited", found="not built", advice=advice), here]
    levels = ", ".join(native.kernels.codec_levels())
    return [Finding(name="C module", state="works", found=f"built; vector code: {levels}"), here]


def _memory() -> list[Finding]:
    from ..device import allocator, memory
    from ..errors import OutsizeError
    from ..units import format_bytes

    free, whole = memory.free_bytes(), memory.total_bytes()
    room = Finding(
        name="memory", state="works", needed=True, found=f"{format_bytes(free)} free of {format_bytes(whole)}"
    )
    owner = memory.malloc_owner()
    try:
        memory.check_counted()
    except OutsizeError as error:
        counted = Finding(
            name="allocator", state="missing", needed=not _gpus(), found=owner, advice=str(error)
        )
        return [room, counted]
    allocator.install()
    refusal = allocator.facts().get("refusal")
    return [
        room,
        Finding(
            name="allocator",
            state="limited" if refusal else "works",
            needed=True,
            found=f"{owner}, counted" + ("" if refusal else "; large blocks in outsize's own arena"),
            advice=f"large blocks come from the system, which costs time: {refusal}" if refusal else "",
        ),
    ]


def _disk() -> list[Finding]:
    from ..errors import OutsizeError
    from ..runtime.tiers.file import choose_directory, file_system
    from ..units import format_bytes

    try:
        place = choose_directory()
    except (OutsizeError, AttributeError) as error:  # Windows has no `statvfs`
        advice = str(error) if isinstance(error, OutsizeError) else "swapping to disk needs Linux or macOS"
        return [Finding(name="disk", state="limited", found="no directory to swap to", advice=advice)]
    free = shutil.disk_usage(place).free
    found = f"{place} ({file_system(place)}), {format_bytes(free)} free"
    return [Finding(name="disk", state="works", found=found)]


def _gpus() -> list[str]:
    import torch

    from ..units import format_bytes

    if not torch.cuda.is_available():
        return []
    devices = (torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count()))
    return [f"{one.name}, {format_bytes(one.total_memory)}" for one in devices]


def _gpu() -> list[Finding]:
    gpus = _gpus()
    if not gpus:
        return [
            Finding(
                name="GPU", state="missing", found="none that torch sees", advice="training runs on the CPU"
            )
        ]
    return [Finding(name="GPU", state="works", found="; ".join(gpus))]


def _extras() -> list[Finding]:
    findings = []
    for library, purpose in _EXTRAS.items():
        try:
            version = importlib.metadata.version(library)
        except importlib.metadata.PackageNotFoundError:
            findings.append(Finding(name=library, state="missing", found=f"not installed ({purpose})"))
        else:
            findings.append(Finding(name=library, state="works", found=f"{version} ({purpose})"))
    return findings


_LOOKS: tuple[Callable[[], list[Finding]], ...] = (_python, _torch, _kernels, _memory, _disk, _gpu, _extras)
