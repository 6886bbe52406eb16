"""The page's charts: residency before and after, lanes over time, the losses, budget against step time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from ..units import format_bytes, format_seconds
from ..values import Plan, RunRecord, Timeline
from .svg import BOTTOM, LEFT, TOP, Axes, bar, frame, labels, rule, steps, ticks

_LANES = ("compute", "out", "in")
_LANE_HEIGHT = 30
#: Units of a drawing's 960 below which a box cannot be told from its neighbour: half a pixel of a wide screen.
THINNEST = 0.5


def byte_ticks(top: float) -> dict[float, str]:
    """Round tick values in the binary unit that suits the size."""
    base = next((2.0**e for e in (40, 30, 20, 10) if top >= 2**e), 1.0)
    return labels(ticks(top, base=base), format_bytes)


def second_ticks(right: float) -> dict[float, str]:
    """Round tick values in seconds."""
    return labels(ticks(right, about=8), lambda s: format_seconds(s) if s else "0")


def residency(record: RunRecord) -> str:
    """Bytes alive over the step: without the plan, with it, as measured, and the budget."""
    curves = (
        (record.plain_timeline, "plain"),
        (record.timeline, "planned"),
        (record.measured_timeline, "measured"),
    )
    shown = [timeline for timeline, _ in curves if timeline]
    if not shown:
        return ""
    right = max(timeline.seconds for timeline in shown)
    highest = max(timeline.peak_bytes for timeline in shown)
    near = record.budget_bytes <= 1.5 * highest  # a budget far above would flatten the curves
    top = 1.06 * max(highest, record.budget_bytes if near else 0)
    axes = Axes(right=right, top=top, height=330)
    body = ""
    for timeline, css in curves:
        if timeline:
            for kind, fill in ((f"{css}-fill", True), (css, False))[css == "measured" :]:
                body += steps(
                    axes, timeline.starts, timeline.residency, timeline.seconds, css=kind, fill=fill
                )
    body += rule(
        axes, record.resident_bytes, f"resident {format_bytes(record.resident_bytes)}", css="resident"
    )
    if near:
        body += rule(axes, record.budget_bytes, f"budget {format_bytes(record.budget_bytes)}", css="budget")
    return frame(
        axes,
        body=body,
        label="bytes alive over the step",
        x_ticks=second_ticks(right),
        y_ticks=byte_ticks(top),
    )


def stalls(timeline: Timeline) -> list[tuple[float, float]]:
    """Gaps on the compute lane: what it waited for."""
    spans = sorted((s.start, s.end) for s in timeline.spans if s.lane == "compute")
    gaps, end = [], 0.0
    for start, stop in spans:
        if start - end > 1e-6:
            gaps.append((end, start))
        end = max(end, stop)
    return gaps


def lanes(timeline: Timeline) -> str:
    """What each lane does, and where the compute lane waits."""
    height = TOP + BOTTOM + _LANE_HEIGHT * len(_LANES)
    axes = Axes(right=timeline.seconds, top=1, height=height)
    body = ""
    for index, lane in enumerate(_LANES):
        y = TOP + index * _LANE_HEIGHT
        body += f'<text class="name" x="{LEFT - 8}" y="{y + 19}" text-anchor="end">{lane}</text>'
        work = sorted((s.start, s.end, s.label or lane) for s in timeline.spans if s.lane == lane)
        bars = []
        for group in _joined(work, axes):
            start, end = group[0][0], max(stop for _, stop, _ in group)
            busy = format_seconds(sum(stop - begin for begin, stop, _ in group))
            what = (
                group[0][2]
                if len(group) == 1
                else f"{len(group)} pieces of work, {group[0][2]} to {group[-1][2]}"
            )
            tip = f"{what}: {busy} from {format_seconds(start)}"
            width = axes.x(end) - axes.x(start)
            bars.append(bar(axes.x(start), y + 4, width, _LANE_HEIGHT - 8, css=lane, tip=tip))
        body += "".join(bars)
    return frame(
        axes,
        body=body + _waits(timeline, axes),
        label="lanes over time",
        x_ticks=second_ticks(timeline.seconds),
        y_ticks={},
    )


def _waits(timeline: Timeline, axes: Axes) -> str:
    bars = []
    for group in _joined([(start, end, "") for start, end in stalls(timeline)], axes):
        waited = format_seconds(sum(end - start for start, end, _ in group))
        tip = f"waited {waited}" if len(group) == 1 else f"waited {len(group)} times, {waited} in all"
        start, end = group[0][0], group[-1][1]
        bars.append(bar(axes.x(start), TOP + 8, axes.x(end) - axes.x(start), 14, css="stall", tip=tip))
    return "".join(bars)


def _joined(work: Sequence[tuple[float, float, str]], axes: Axes) -> list[list[tuple[float, float, str]]]:
    """Neighbours that are too thin to be told apart, together: 10,000 operators are some thousand boxes."""
    groups: list[list[tuple[float, float, str]]] = []
    for piece in work:
        thin = axes.x(piece[1]) - axes.x(piece[0]) < THINNEST
        if groups and thin and axes.x(piece[1]) - axes.x(groups[-1][0][0]) < THINNEST:
            groups[-1].append(piece)
        else:
            groups.append([piece])
    return groups


def losses(record: RunRecord) -> str:
    """Training loss by step."""
    if len(record.losses) < 2:
        return ""
    top = 1.08 * max(record.losses)
    axes = Axes(right=len(record.losses) - 1, top=top, height=220)
    points = " ".join(f"{axes.x(i):.1f},{axes.y(loss):.1f}" for i, loss in enumerate(record.losses))
    marks = labels([v for v in ticks(axes.right, about=8) if v == int(v)], lambda v: f"{v:.0f}")
    return frame(
        axes,
        body=f'<polyline class="loss" points="{points}"/>',
        label="training loss by step",
        x_ticks=marks,
        y_ticks=labels(ticks(top), lambda v: f"{v:g}"),
    )


def pareto(lines: Mapping[str, Sequence[Plan]]) -> str:
    """Predicted step time against predicted peak: one line per technique, one point per plan."""
    plans = [plan for line in lines.values() for plan in line]
    if len(plans) < 2:
        return ""
    right = 1.05 * max(p.predicted_peak_bytes for p in plans)
    top = 1.1 * max(p.predicted_step_seconds for p in plans)
    axes = Axes(right=right, top=top, height=320)
    body = "".join(_line(axes, name, line, index % 6) for index, (name, line) in enumerate(lines.items()))
    return frame(
        axes,
        body=body,
        label="predicted step time against predicted peak",
        x_ticks=byte_ticks(right),
        y_ticks=labels(ticks(top), lambda s: format_seconds(s) if s else "0"),
    )


def _line(axes: Axes, name: str, plans: Sequence[Plan], colour: int) -> str:
    ordered = sorted(plans, key=lambda p: p.predicted_peak_bytes)
    places = [(axes.x(p.predicted_peak_bytes), axes.y(p.predicted_step_seconds)) for p in ordered]
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    body = f'<polyline class="line line{colour}" points="{points}"/>'
    for (x, y), plan in zip(places, ordered, strict=True):
        tip = escape(
            f"{name}, budget {format_bytes(plan.budget_bytes)}: peak {format_bytes(plan.predicted_peak_bytes)}, "
            f"{format_seconds(plan.predicted_step_seconds)} a step"
        )
        body += f'<circle class="point line{colour}" cx="{x:.1f}" cy="{y:.1f}" r="4.5"><title>{tip}</title></circle>'
    return body
