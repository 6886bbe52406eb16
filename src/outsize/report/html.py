"""A run as one HTML page that needs nothing else: no network, no plugin, under a content policy that forbids both.

The text and CSS stand in `page.html`; here are the parts that depend on the record.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib.resources import files
from string import Template

from ..units import format_bytes, format_seconds
from ..values import Decision, Plan, RunRecord
from . import charts
from .figures import (
    REASONS,
    SHAPE_HEADS,
    Figure,
    action_words,
    figures,
    shape_rows,
    storage_bytes,
    storage_name,
)

#: Of the lines of a sweep, in the order in which `page.html` numbers them.
COLOURS = ("planned", "swap", "recompute", "encode", "budget", "plain")


def page(record: RunRecord, *, title: str = "A step under a budget") -> str:
    """The page of a run as text, under this heading."""
    return _fill(title, _subtitle(record), figures(record), _sections(record))


def sweep_page(lines: Mapping[str, Sequence[Plan]], *, title: str = "Peak against step time") -> str:
    """The page of a sweep: plans of one step at several budgets, by technique."""
    return _fill(title, _sweep_subtitle(lines), [], _sweep_sections(lines))


def _fill(title: str, subtitle: str, cards: Iterable[Figure], sections: Iterable[str]) -> str:
    template = Template(files(__package__).joinpath("page.html").read_text(encoding="utf-8"))
    return template.substitute(
        title=escape(title),
        subtitle=escape(subtitle),
        cards="".join(map(_card, cards)),
        sections="".join(sections),
    )


def _subtitle(record: RunRecord) -> str:
    parts = [f"{record.steps} steps" if record.steps != 1 else "1 step"]
    if record.planner:
        parts.append(f"planner {record.planner}")
    return ", ".join(parts)


def _card(figure: Figure) -> str:
    css = {True: "card good", False: "card bad", None: "card"}[figure.good]
    size = ' class="long"' if len(figure.value) > 20 else ""
    note = f"<span>{escape(figure.note)}</span>" if figure.note else ""
    return f'<div class="{css}"><span>{escape(figure.label)}</span><b{size}>{escape(figure.value)}</b>{note}</div>'


def _sections(record: RunRecord) -> Iterable[str]:
    if curve := charts.residency(record):
        key = (
            '<p class="key dim"><i style="color:var(--plain)"></i>plain step'
            '<i style="color:var(--planned)"></i>planned step'
            + ('<i style="color:var(--measured)"></i>measured step' if record.measured_timeline else "")
            + '<i style="color:var(--budget)"></i>budget</p>'
        )
        caption = "Simulated on the profiled costs of this machine."
        if record.measured_timeline:
            caption += " The measured step is a real one: the peak of each operator, as the meter counted it."
        yield _figure("Bytes alive over the step", key + curve, caption)
    else:
        yield "<h2>Bytes alive over the step</h2><p class='dim'>This record holds no timeline.</p>"
    waits = "Red on the compute lane: it waits for a transfer. Point at a bar for its name and time."
    if record.timeline and record.timeline.spans:
        yield _figure("Lanes, as planned", charts.lanes(record.timeline), waits)
    if record.measured_timeline:
        yield _figure("Lanes, as measured", charts.lanes(record.measured_timeline), waits)
    if curve := charts.losses(record):
        yield _figure("Training loss", curve, "By step.")
    if len(record.shapes) > 1:
        yield _shapes(record)
    yield _decisions(record)
    yield _refusals(record)
    if record.notes:
        yield "<h2>Notes</h2><ul>" + "".join(f"<li>{escape(n)}</li>" for n in record.notes) + "</ul>"


def _sweep_subtitle(lines: Mapping[str, Sequence[Plan]]) -> str:
    estimated = any(plan.estimated for line in lines.values() for plan in line)
    return (
        "Estimated from the hardware's data sheet." if estimated else "On the profiled costs of this machine."
    )


def _sweep_sections(lines: Mapping[str, Sequence[Plan]]) -> Iterable[str]:
    names = "".join(
        f'<i class="line{index % 6}" style="border-color:var(--{COLOURS[index % 6]})"></i>{escape(name)}'
        for index, name in enumerate(lines)
    )
    key = f'<p class="key dim">{names}</p>'
    yield _figure(
        "Predicted step time against predicted peak", key + charts.pareto(lines), "One point per budget."
    )
    heads = [("technique", False), ("budget", True), ("of plain", True), ("predicted peak", True)]
    heads += [("step", True), ("against plain", True), ("swapped", True), ("recomputed", True)]
    rows = (_sweep_row(name, plan) for name, line in lines.items() for plan in line)
    yield "<h2>Plans</h2>" + _table("plans", heads, rows)


def _sweep_row(name: str, p: Plan) -> str:
    slower = p.predicted_step_seconds / p.plain_step_seconds if p.plain_step_seconds else 0.0
    share = p.budget_bytes / p.plain_peak_bytes if p.plain_peak_bytes else 0.0
    again = p.recomputed_flops / p.plain_flops if p.plain_flops else 0.0
    return (
        f"<tr><td>{escape(name)}</td>"
        + _number(p.budget_bytes, format_bytes(p.budget_bytes))
        + _number(share, f"{100 * share:.0f} %")
        + _number(p.predicted_peak_bytes, format_bytes(p.predicted_peak_bytes))
        + _number(p.predicted_step_seconds, format_seconds(p.predicted_step_seconds))
        + _number(slower, f"{slower:.3f} ×")
        + _number(p.swapped_bytes, format_bytes(p.swapped_bytes))
        + _number(again, f"{100 * again:.1f} %")
        + "</tr>"
    )


def _figure(title: str, drawing: str, caption: str) -> str:
    return f'<h2>{title}</h2><figure tabindex="0">{drawing}<figcaption>{caption}</figcaption></figure>'


def _table(name: str, heads: Sequence[tuple[str, bool]], rows: Iterable[str]) -> str:
    """A table that scrolls, and whose columns sort, by mouse and by keyboard; a head's flag says that its column holds
    numbers."""
    head = "".join(
        f'<th class="{"n" if number else ""}" aria-sort="none"><button>{text}</button></th>'
        for text, number in heads
    )
    return (
        f'<div class="scroll" role="region" aria-label="{name}" tabindex="0"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _number(value: float, text: str) -> str:
    return f'<td class="n" data-v="{value}">{text}</td>'


def _shapes(record: RunRecord) -> str:
    heads = [(head, 0 < place < len(SHAPE_HEADS) - 1) for place, head in enumerate(SHAPE_HEADS)]
    rows = []
    for shape, texts in zip(record.shapes, shape_rows(record), strict=True):
        figures = (
            shape.steps,
            shape.plain_peak_bytes,
            shape.predicted_peak_bytes,
            shape.measured_peak_bytes,
            shape.predicted_step_seconds,
        )
        numbers = "".join(_number(value, text) for value, text in zip(figures, texts[1:-1], strict=True))
        rows.append(f"<tr><td><code>{escape(texts[0])}</code></td>{numbers}<td>{escape(texts[-1])}</td></tr>")
    return f"<h2>Shapes ({len(rows)})</h2>" + _table("shapes", heads, rows)


def _decisions(record: RunRecord) -> str:
    if not record.decisions:
        return "<h2>Decisions</h2><p class='dim'>None: the step runs as it is.</p>"
    ranked = sorted(record.decisions, key=lambda d: -storage_bytes(record, d.storage))
    heads = [("storage", False), ("bytes", True), ("action", False), ("idle from", True), ("to", True)]
    heads += [("lane time", True), ("reason", False)]
    rows = (_decision(record, decision) for decision in ranked)
    return f"<h2>Decisions ({len(ranked)})</h2>" + _table("decisions", heads, rows)


def _decision(record: RunRecord, d: Decision) -> str:
    nbytes = storage_bytes(record, d.storage)
    return (
        f"<tr><td><code>{escape(storage_name(record, d.storage))}</code></td>"
        + _number(nbytes, format_bytes(nbytes))
        + f'<td><span class="tag {d.action}">{escape(action_words(d))}</span></td>'
        + _number(d.after, str(d.after))
        + _number(d.before, str(d.before))
        + _number(d.seconds, format_seconds(d.seconds))
        + f"<td>{escape(d.reason)}</td></tr>"
    )


def _refusals(record: RunRecord) -> str:
    if not record.refusals:
        return ""
    counted = Counter(r.reason for r in record.refusals)
    total = {
        reason: sum(storage_bytes(record, r.storage) for r in record.refusals if r.reason == reason)
        for reason in counted
    }
    summary = _table(
        "left alone, by reason",
        [("reason", False), ("storages", True), ("bytes", True), ("meaning", False)],
        (
            f"<tr><td>{reason}</td>{_number(n, str(n))}{_number(total[reason], format_bytes(total[reason]))}"
            f"<td>{REASONS[reason]}</td></tr>"
            for reason, n in counted.most_common()
        ),
    )
    ranked = sorted(record.refusals, key=lambda r: -storage_bytes(record, r.storage))
    each = _table(
        "left alone, each",
        [("storage", False), ("bytes", True), ("reason", False), ("detail", False)],
        (
            f"<tr><td><code>{escape(storage_name(record, r.storage))}</code></td>"
            + _number(storage_bytes(record, r.storage), format_bytes(storage_bytes(record, r.storage)))
            + f"<td>{r.reason}</td><td>{escape(r.detail)}</td></tr>"
            for r in ranked
        ),
    )
    return f"<h2>Left alone ({len(ranked)})</h2>{summary}<p></p>{each}"
