"""What the report says, and that its page and trace are well formed, honest and closed to the network."""

import io
import json
import re
import xml.etree.ElementTree as ET
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from typer.testing import CliRunner

from outsize.cli.main import app
from outsize.report import (
    charts,
    figures,
    page,
    render,
    svg,
    sweep_page,
    sweep_table,
    trace_events,
    trace_json,
)
from outsize.report.figures import REASONS
from outsize.values import LaneSpan, Plan, Refusal, RunRecord, Timeline, from_json
from outsize.values.plan import Reason

from .sample import MIB, record, timeline


def test_every_figure_of_the_record_is_shown() -> None:
    text = render(record())
    for said in [
        "60.00 MiB", "100.00 MiB", "58.00 MiB", "57.00 MiB", "95.0 % of the budget", "20.00 MiB", "30.00 MiB",
        "4.00 ms", "54.00 ms", "55.00 ms", "5.600 → 3.100", "5.500 → 3.000", "relu_1", "swap to disk",
        "1 (fewer bytes than a transfer is worth)", "1 (comes from a random draw",
        "10.0 % of the step's", "a <note>", "gelu_<2>",
    ]:  # fmt: skip
        assert said in text, said


def test_a_broken_promise_is_marked() -> None:
    good = {figure.label: figure.good for figure in figures(record())}
    bad = {figure.label: figure.good for figure in figures(record(measured_peak_bytes=61 * MIB))}
    assert good["measured peak"] is True
    assert bad["measured peak"] is False
    assert 'class="card bad"' in page(record(measured_peak_bytes=61 * MIB))
    assert 'class="card bad"' not in page(record())


def test_a_plain_run_shows_no_budget() -> None:
    plain = record(budget_bytes=2**62, decisions=(), refusals=(), planner="slack")
    assert "budget" not in render(plain)
    assert "57.00 MiB" in render(plain)
    assert "budget 4" not in charts.residency(plain)


class Page(HTMLParser):
    """Collects tags and checks that they close in order."""

    VOID = frozenset({"meta", "br", "line", "rect", "path", "circle"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag


def test_the_page_is_whole_and_reaches_for_nothing() -> None:
    text = page(record(), title="Run <1>")
    parsed = Page()
    parsed.feed(text)
    assert parsed.open == []
    assert not [a for _, attrs in parsed.seen for a in attrs if a in ("src", "href", "xlink:href")]
    assert not re.search(r"https?://|url\(|@import|fetch\(|\$[a-z]", text)
    assert "default-src 'none'" in text
    assert "Run &lt;1&gt;" in text
    assert "gelu_&lt;2&gt;" in text
    assert "gelu_<2>" not in text


def test_charts_are_well_formed_svg() -> None:
    whole = record()
    drawings = [charts.residency(whole), charts.lanes(whole.timeline), charts.losses(whole)]
    for drawing in drawings:
        ET.fromstring(drawing)
    assert 'class="stall"' in drawings[1]
    assert "swap_out relu_1" in drawings[1]
    assert "budget 60.00 MiB" in drawings[0]


def test_a_measured_step_stands_beside_the_simulated_one() -> None:
    text = page(record(measured_timeline=timeline([40, 59, 57, 50, 40], stall=0.001)))
    assert text.count('class="measured"') == 1
    assert "measured step" in text
    assert text.index("Lanes, as planned") < text.index("Lanes, as measured")
    parsed = Page()
    parsed.feed(text)
    assert parsed.open == []
    assert "measured" not in page(record()).split("Bytes alive over the step")[1].split("Decisions")[0]


def plans(*budgets: int) -> list[Plan]:
    return [
        Plan(
            budget_bytes=b * MIB, planner="search", decisions=(), refusals=(), plain_peak_bytes=100 * MIB,
            predicted_peak_bytes=b * MIB, plain_step_seconds=1.0, predicted_step_seconds=2.0 - b / 100,
            resident_bytes=MIB, plain_flops=100, recomputed_flops=7,
        )
        for b in budgets
    ]  # fmt: skip


def test_a_sweep_has_a_line_per_technique_and_a_point_per_plan() -> None:
    lines = {"search": plans(40, 60, 80), "swap <only>": plans(60, 80)}
    drawing = charts.pareto(lines)
    ET.fromstring(drawing)
    assert drawing.count("<circle") == 5
    assert drawing.count("<polyline") == 2
    assert charts.pareto({"one": plans(40)}) == ""
    text = sweep_page(lines)
    parsed = Page()
    parsed.feed(text)
    assert parsed.open == []
    assert "swap &lt;only&gt;" in text
    console = Console(file=io.StringIO(), width=110)
    console.print(sweep_table(lines))
    assert "1.600" in console.file.getvalue()
    assert "7.0 %" in console.file.getvalue()


def test_without_timelines_the_page_says_so() -> None:
    text = page(record(timeline=None, plain_timeline=None, decisions=(), refusals=()))
    assert "holds no timeline" in text
    assert "the step runs as it is" in text


def test_every_reason_is_explained() -> None:
    assert set(REASONS) == set(Reason.__args__)
    for reason in REASONS:
        assert reason in page(record(refusals=(Refusal(storage=0, reason=reason),)))


def test_stalls_are_the_gaps_of_the_compute_lane() -> None:
    assert charts.stalls(timeline([1, 2, 3])) == []
    ((start, end),) = charts.stalls(timeline([1, 2, 3], stall=0.5))
    assert (start, end) == pytest.approx((0.02, 0.52))


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=4000))
def test_thinning_keeps_the_peak_and_the_end(values: list[int]) -> None:
    axes = svg.Axes(right=len(values), top=max(values) or 1)
    drawn = svg.steps(axes, range(len(values)), values, len(values), css="c")
    heights = [float(y) for y in re.findall(r"[V,](-?[\d.]+)", drawn)]
    assert min(heights) == pytest.approx(axes.y(max(values)), abs=0.06)
    assert max(heights) == pytest.approx(axes.y(min(values)), abs=0.06)
    assert heights[-1] == pytest.approx(axes.y(values[-1]), abs=0.06)
    assert drawn.count("V") <= 4 * svg.WIDTH * 2


@given(st.floats(1e-6, 1e15))
def test_ticks_are_few_and_inside(top: float) -> None:
    found = svg.ticks(top)
    assert 2 <= len(found) <= 7
    assert found[0] == 0
    assert found[-1] <= top * (1 + 1e-6)


def test_trace_has_every_span_and_every_residency() -> None:
    line = timeline([1, 2, 3])
    events = trace_events(line)
    spans = [e for e in events if e["ph"] == "X"]
    assert len(spans) == len(line.spans)
    assert {e["tid"] for e in spans} == {1, 2, 3}
    assert [e["args"]["bytes"] for e in events if e["ph"] == "C"] == list(line.residency)
    assert spans[1]["ts"] == pytest.approx(1e4)
    both = json.loads(trace_json({"a": line, "b": line}))["traceEvents"]
    assert {e["pid"] for e in both} == {1, 2}


def test_the_record_survives_its_json() -> None:
    assert from_json(RunRecord, record().to_json()) == record()


def test_the_verb_writes_page_and_trace(tmp_path: Path) -> None:
    run, html, trace = tmp_path / "run.json", tmp_path / "run.html", tmp_path / "run.trace.json"
    run.write_text(record().to_json())
    result = CliRunner().invoke(app, ["report", str(run), "--html", str(html), "--trace", str(trace)])
    assert result.exit_code == 0, result.output
    assert "57.00 MiB" in result.stdout
    assert "<svg" in html.read_text()
    assert len(json.loads(trace.read_text())["traceEvents"]) > 10


@pytest.mark.parametrize(
    ("text", "arguments", "said"),
    [
        (None, [], "cannot read a run"),
        ("{}", [], "RunRecord"),
        ("[", [], "not a saved RunRecord"),
        (record(timeline=None, plain_timeline=None).to_json(), ["--trace", "t.json"], "holds no timeline"),
        (record().to_json(), ["--html", "/no/such/folder/x.html"], "cannot write"),
    ],
)
def test_bad_input_is_told(tmp_path: Path, text: str | None, arguments: list[str], said: str) -> None:
    run = tmp_path / "run.json"
    if text is not None:
        run.write_text(text)
    result = CliRunner().invoke(app, ["report", str(run), *arguments])
    assert said in str(result.exception)


def test_work_too_thin_to_be_told_apart_is_drawn_together() -> None:
    """Ten thousand operators are no ten thousand boxes; what is wide enough stays a box of its own."""
    starts = [0.001 + i * 1e-4 for i in range(10_000)]
    spans = [
        LaneSpan(lane="compute", start=s, end=s + 9e-5, entry=i, label=f"op_{i}")
        for i, s in enumerate(starts)
    ]
    spans.append(LaneSpan(lane="out", start=0.1, end=0.2, entry=5, label="swap"))
    drawn = charts.lanes(
        Timeline(seconds=1.002, stall_seconds=0.1, residency=(1,), starts=(0.0,), spans=tuple(spans))
    )
    boxes = re.findall(r'<rect class="(\w+)"[^>]*><title>([^<]*)</title>', drawn)
    kinds = Counter(kind for kind, _ in boxes)
    assert kinds["out"] == 1
    assert 900 < kinds["compute"] < 2_500
    assert kinds["stall"] < 2_500
    together = [tip for kind, tip in boxes if kind == "compute" and "pieces of work" in tip]
    assert sum(int(tip.split()[0]) for tip in together) + kinds["compute"] - len(together) == 10_000
    assert any(
        re.fullmatch(r"\d+ pieces of work, op_\d+ to op_\d+: [\d.]+ µs from .*", tip) for tip in together
    )


def test_the_page_is_for_phones_keyboards_and_dark_rooms() -> None:
    text = page(record())
    assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in text
    assert "color-scheme: light dark" in text
    assert "prefers-color-scheme: dark" in text
    assert (
        text.count('<figure tabindex="0">') == text.count("<figure") > 0
    )  # they scroll where a screen is narrow
    heads, regions = re.findall(r"<th\b.*?</th>", text), re.findall(r'<div class="scroll"[^>]*>', text)
    assert heads
    assert all("<button>" in head and 'aria-sort="none"' in head for head in heads)
    assert len(regions) == text.count("<table>")
    assert all('tabindex="0"' in region and 'role="region"' in region for region in regions)
