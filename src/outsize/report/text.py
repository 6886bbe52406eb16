"""A run as text for the terminal."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Mapping, Sequence

from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.table import Table

from ..units import format_bytes, format_seconds
from ..values import Plan, RunRecord
from .figures import (
    REASONS,
    SHAPE_HEADS,
    Figure,
    action_words,
    figures,
    plan_figures,
    shape_rows,
    storage_bytes,
    storage_name,
)

#: Decisions shown in the terminal; the page shows all.
_SHOWN = 8


def summary(record: RunRecord, *, title: str = "") -> Table:
    """The summary table: one figure per line."""
    return _table(figures(record), title)


def plan_summary(plan: Plan, *, title: str = "") -> Table:
    """The figures of a plan that has not run."""
    return _table(plan_figures(plan), title)


def _table(lines: Sequence[Figure], title: str) -> Table:
    table = Table(title=title or None, title_justify="left", show_header=False)
    table.add_column(style="bold")
    table.add_column(justify="right")
    table.add_column(style="dim")
    for figure in lines:
        colour = {True: "green", False: "red", None: ""}[figure.good]
        value = escape(figure.value)
        table.add_row(figure.label, f"[{colour}]{value}[/]" if colour else value, escape(figure.note))
    return table


def decisions(record: RunRecord, *, shown: int = _SHOWN) -> Table:
    """The largest decisions, one per line."""
    table = Table(title=f"largest of {len(record.decisions)} decisions", title_justify="left")
    table.add_column("storage", max_width=22, overflow="fold")
    for column in ("bytes", "action", "idle", "lane time"):
        table.add_column(column, justify="left" if column == "action" else "right", no_wrap=True)
    table.add_column("reason")
    ranked = sorted(record.decisions, key=lambda d: -storage_bytes(record, d.storage))
    for d in ranked[:shown]:
        table.add_row(
            escape(storage_name(record, d.storage)),
            format_bytes(storage_bytes(record, d.storage)),
            action_words(d),
            f"{d.after}–{d.before}" if d.after < d.before else "over the turn",
            format_seconds(d.seconds),
            escape(d.reason),
        )
    return table


def shapes(record: RunRecord) -> Table:
    """The plans of a module, one for each shape that it saw; the figures above are those of the latest step."""
    table = Table(title=f"{len(record.shapes)} shapes of inputs", title_justify="left")
    table.add_column(SHAPE_HEADS[0], overflow="fold")
    for head in SHAPE_HEADS[1:-1]:
        table.add_column(head, justify="right", no_wrap=True)
    table.add_column(SHAPE_HEADS[-1])
    for row in shape_rows(record):
        table.add_row(*map(escape, row))
    return table


def refusals(record: RunRecord) -> str:
    """What was left alone, counted by reason, in words."""
    counted = Counter(r.reason for r in record.refusals)
    return ", ".join(f"{count} ({REASONS[reason]})" for reason, count in counted.most_common())


def renderable(record: RunRecord) -> Group:
    """Summary, largest decisions, refusals and notes, for a rich console."""
    parts: list[RenderableType] = [summary(record)]
    if len(record.shapes) > 1:
        parts.append(shapes(record))
    if record.decisions:
        parts.append(decisions(record))
    if record.refusals:
        parts.append(f"storages left alone: {refusals(record)}")
    parts += [escape(f"note: {note}") for note in record.notes]
    return Group(*parts)


def render(record: RunRecord, *, width: int = 110) -> str:
    """The same as plain text."""
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(renderable(record))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    return str(text)


def sweep_table(lines: Mapping[str, Sequence[Plan]]) -> Table:
    """Plans of one step at several budgets, by technique."""
    table = Table()
    table.add_column("technique", no_wrap=True)
    for column in ("budget", "of plain", "peak", "step", "× plain", "recomputed"):
        table.add_column(column, justify="right", no_wrap=True)
    for name, plans in lines.items():
        for p in plans:
            table.add_row(
                escape(name),
                format_bytes(p.budget_bytes),
                f"{100 * p.budget_bytes / p.plain_peak_bytes:.0f} %",
                format_bytes(p.predicted_peak_bytes),
                format_seconds(p.predicted_step_seconds),
                f"{p.predicted_step_seconds / p.plain_step_seconds:.3f}" if p.plain_step_seconds else "–",
                f"{100 * p.recomputed_flops / p.plain_flops:.1f} %" if p.plain_flops else "–",
            )
        table.add_section()
    return table
