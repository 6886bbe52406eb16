"""The few chart parts that the page needs, as SVG text: axes, step curves, bars, points.

A chart is 960 units wide and scales with the page. Curves of thousands of entries are thinned to two points per pixel
column (lowest and highest), so a peak is never lost.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

WIDTH = 960
LEFT, RIGHT, TOP, BOTTOM = 84, 16, 18, 42


@dataclass(frozen=True, kw_only=True)
class Axes:
    """Maps data (x from 0 to `right`, y from 0 to `top`) to the drawing."""

    right: float
    top: float
    height: int = 280

    def x(self, value: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * value / (self.right or 1)

    def y(self, value: float) -> float:
        return self.height - BOTTOM - (self.height - TOP - BOTTOM) * value / (self.top or 1)


def ticks(top: float, *, base: float = 1.0, about: int = 5) -> list[float]:
    """Round values from 0 to `top`: multiples of 1, 2 or 5 times a power of ten, in units of `base`."""
    if top / base < 1e-300:  # below, a fifth of it is no power of ten any more
        return [0.0]
    raw = top / base / about
    power = 10 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw) * base
    return [step * i for i in range(int(top / step + 1e-9) + 1)]


def frame(axes: Axes, *, body: str, label: str, x_ticks: dict[float, str], y_ticks: dict[float, str]) -> str:
    """A whole chart: grid, tick labels, and `body` drawn over them."""
    bottom = axes.height - BOTTOM
    parts = []
    for value, text in y_ticks.items():
        y = axes.y(value)
        parts.append(
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text class="tick" x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{escape(text)}</text>'
        )
    for value, text in x_ticks.items():
        parts.append(
            f'<text class="tick" x="{axes.x(value):.1f}" y="{bottom + 18}" text-anchor="middle">{escape(text)}</text>'
        )
    parts.append(f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{bottom}" y2="{bottom}"/>')
    return (
        f'<svg viewBox="0 0 {WIDTH} {axes.height}" role="img" aria-label="{escape(label)}">'
        f"<title>{escape(label)}</title>{''.join(parts)}{body}</svg>"
    )


def steps(
    axes: Axes, xs: Sequence[float], ys: Sequence[float], end: float, *, css: str, fill: bool = False
) -> str:
    """A curve that holds each y from its x to the next one's, the last one to `end`."""
    points = _thin([(axes.x(x), axes.y(y)) for x, y in zip(xs, ys)])
    if not points:
        return ""
    path = f"M{points[0][0]:.1f},{points[0][1]:.1f}"
    for x, y in points[1:]:
        path += f"H{x:.1f}V{y:.1f}"
    path += f"H{axes.x(end):.1f}"
    if fill:
        path += f"V{axes.y(0):.1f}H{points[0][0]:.1f}Z"
    return f'<path class="{css}" d="{path}"/>'


def _thin(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Keeps, per half pixel of x, the lowest, the highest and the last point, in order."""
    kept: list[tuple[float, float]] = []
    group: list[tuple[float, float]] = []
    for point in [*points, None]:
        if group and (point is None or int(point[0] * 2) != int(group[0][0] * 2)):
            high, low = min(group, key=lambda p: p[1]), max(group, key=lambda p: p[1])
            kept += [p for p in group if p is high or p is low or p is group[-1]]
            group = []
        if point is not None:
            group.append(point)
    return kept


def rule(axes: Axes, y: float, text: str, *, css: str) -> str:
    """A level line across the chart with its name at the right end."""
    place = axes.y(y)
    return (
        f'<line class="{css}" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{place:.1f}" y2="{place:.1f}"/>'
        f'<text class="{css}-text" x="{WIDTH - RIGHT}" y="{place - 6:.1f}" text-anchor="end">{escape(text)}</text>'
    )


def bar(x: float, y: float, width: float, height: float, *, css: str, tip: str) -> str:
    """A filled box with a tooltip, never too thin to be seen."""
    return (
        f'<rect class="{css}" x="{x:.2f}" y="{y:.1f}" width="{max(width, 0.6):.2f}" height="{height:.1f}">'
        f"<title>{escape(tip)}</title></rect>"
    )


def labels(values: Sequence[float], text: Callable[[float], str]) -> dict[float, str]:
    """Tick values with their texts."""
    return {value: text(value) for value in values}
