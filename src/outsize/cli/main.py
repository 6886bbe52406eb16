"""Entry point: gathers the verbs and turns the project's errors into one line and an exit code.

Verb modules import nothing heavy at module level, so `--help` answers at once.
Exit codes: 0 done, 1 a check found something, 2 a wrong argument or an `OutsizeError`, 130 Ctrl-C.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from .. import __version__
from ..errors import OutsizeError
from . import npi, trees
from .doctor import doctor
from .plan import plan
from .report import report
from .train import train

app = typer.Typer(
    name="outsize",
    help="Train networks that are too large for the memory at hand, under a byte budget that holds.",
    invoke_without_command=True,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


app.command()(train)
app.command()(plan)
app.command()(report)
app.command()(doctor)
app.add_typer(trees.app, name="trees")
app.add_typer(npi.app, name="npi")


@app.callback()
def outsize(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit


def main() -> None:
    """Run the command line; `OutsizeError` becomes a message on stderr and exit code 2."""
    try:
        app()
    except OutsizeError as error:
        Console(stderr=True).print(
            f"[bold red]{type(error).__name__}[/]: {escape(str(error))}", soft_wrap=True
        )
        sys.exit(2)
    except SystemExit as ended:  # typer makes this of Ctrl-C
        if ended.code == 130:
            Console(stderr=True).print("[yellow]interrupted[/]: no temporary file was left behind")
        raise


if __name__ == "__main__":
    main()
