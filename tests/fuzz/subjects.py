"""Each reader of files, with a sound file for it, and a use of what it read.

`use` does with a value what the product does with it, so that a damage which the reader let through shows where it
would hurt. A subject's `errors` are what may be raised: by the reader about the file, by the use about its content.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import io
import json
import random
import shutil
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from outsize.errors import OutsizeError, TreesError, UnitError, WorkloadError
from outsize.files import Door, seal_text
from outsize.measure import load_hardware
from outsize.measure import store as measured
from outsize.measure.roofline import estimate
from outsize.plan import PlanSettings, Request, check, lower, make_plan
from outsize.plan.schedule.lower import lower_decisions
from outsize.programs.trees import Forest, LocalizedTreeConv, Topology, corpus, parse, similar, store
from outsize.programs.trees.batch import collate
from outsize.programs.trees.dedup import exact_keys, near_duplicates, normalised_keys
from outsize.programs.trees.functions import Functions, concatenate
from outsize.programs.trees.inject import inject
from outsize.programs.trees.model import Detector, DetectorConfig
from outsize.programs.trees.python_front import Source, python_file, python_functions
from outsize.programs.trees.words import WordTable
from outsize.report import page, render, trace_json
from outsize.slack import compute_slack
from outsize.values import Decision, Plan, Profile, RunRecord, Schedule, StepGraph, load_json
from outsize.zoo.data import images, text
from tests.plan.graphs import chain
from tests.report.sample import record

from .mutate import bytes_changed, json_changed, numbers_changed, sealed_changed, value_changed
from .subject import Subject

CODE = """
class Stack:
    def push(self, item, count=1):
        for index in range(count):
            self.items.append(item)
            if index > 3 and self.limit == len(self.items):
                return False
        self.size = self.size + count * 2
        return swap(item, count)

def area(width, height):
    total = width * height - 1
    other = [total + k for k in (1, 2) if k is not None]
    return total if width < height else other
"""
TINY = DetectorConfig(width=8, layers=2, rows=64, inner=4, head=4)
DOOR = Door(kind="a test's value", remedy="write it again")


def _packed() -> Functions:
    return concatenate([python_functions(CODE), python_functions("def one(a, b): return max(a, b) + b\n")])


def _save_functions(path: Path) -> None:
    _packed().save(path)


def _use_forest(forest: Forest) -> None:
    for texts, column in (
        (forest.kinds, forest.kind),
        (forest.fields, forest.field),
        (forest.tokens, forest.token),
    ):
        assert all(texts[int(index)] is not None for index in column)
    tree = LocalizedTreeConv(8, layers=2, residual=True, norm=True)
    for part in (forest, forest.tree(forest.trees - 1)) if forest.trees else ():
        x = torch.randn(part.nodes, 8, requires_grad=True)
        states = tree.edge_states(x, Topology.of(part), x)
        (states.up.sum() + states.down.sum() + states.pivot.sum()).backward()


def _use_functions(functions: Functions) -> None:
    if not functions.count:
        return
    exact_keys(functions), normalised_keys(functions), near_duplicates(functions)
    chosen = functions.select(range(functions.count))
    bugs = inject(chosen, np.random.default_rng(0), share=1.0, likely=0.5)
    table = WordTable(chosen.forest.tokens, TINY.rows)
    for model in (Detector(TINY),):
        batch = collate(chosen, table, bugs)
        if batch.table.count:
            sum(model.losses(batch)).backward()
    similar.Matcher(similar.MatcherConfig(width=8, layers=2, rows=64, inner=4, out=4))(functions.compact())


def _use_detector(loaded: tuple[Detector, store.Calibration, dict[str, Any]]) -> None:
    model, calibration, history = loaded
    batch = collate(_packed(), WordTable(_packed().forest.tokens, model.config.rows))
    assert all(bool(torch.isfinite(p).all()) for p in model.parameters())
    model(batch)
    int(history.get("functions", 0)), calibration.slope * 2


def _use_record(run: RunRecord) -> None:
    render(run), page(run, title="x").encode()
    lines = {"planned": run.timeline, "plain": run.plain_timeline, "measured": run.measured_timeline}
    trace_json({name: line for name, line in lines.items() if line is not None}).encode()


def _step() -> tuple[StepGraph, Profile]:
    return chain(6, rate=80.0)


def _plan() -> Plan:
    graph, profile = _step()
    settings = PlanSettings(min_bytes=1, moves=6)
    slack = compute_slack(graph, profile)
    return make_plan(graph, profile, slack, Request(budget_bytes=650, planner="slack", settings=settings))


def _schedule() -> tuple[StepGraph, Profile, Schedule]:
    """Every kind of entry once: a swap, a recomputation, an encoding, and one that is swapped."""
    graph, profile = chain(8)

    def decision(storage: int, action: str, after: int, before: int, **more: Any) -> Decision:
        places = {"free_before": after + 1, "fetch_before": before - (action in ("swap", "encode_swap"))}
        return Decision(storage=storage, action=action, after=after, before=before, **{**places, **more})

    decisions = (
        decision(10, "swap", 2, 15, tier="disk", free_before=4),
        decision(12, "encode", 4, 13, codec="relu", encoded_bytes=40),
        decision(14, "recompute", 6, 11, region=(5,)),
        decision(9, "encode_swap", 1, 16, codec="relu", tier="disk", encoded_bytes=40, free_before=3),
    )
    return graph, profile, lower_decisions(graph, decisions)


def _use_plan(plan: Plan) -> None:
    graph, profile = _step()
    check(graph, profile, lower(graph, plan), max(plan.budget_bytes, 1))


def _use_schedule(schedule: Schedule) -> None:
    check(*_schedule()[:2], schedule, 10**6)


def _use_graph(graph: StepGraph) -> None:
    profile = estimate(graph, load_hardware("h100-pcie"))
    compute_slack(graph, profile), graph.plain_residency(profile.workspace), list(graph.candidates())
    check(graph, profile, lower_decisions(graph, ()), 2**62)


def _use_hardware(hardware: Any) -> None:
    graph, _ = chain(4)
    profile = estimate(graph, hardware)
    compute_slack(graph, profile)
    for link in profile.links.values():
        assert 0 <= link.out_seconds(2**40) < 1e40
        assert 0 <= link.in_seconds(2**40) < 1e40


def _make_costs(path: Path) -> None:
    costs = {f"aten.mm {i}": (1e-4 * i, 4096 * i, 64) for i in range(9)}
    path.write_text(json.dumps({"checksum": seal_text(costs), "costs": costs}))


def _costs_changed(data: bytes, rng: random.Random) -> bytes:
    """Half of the time with a checksum that fits."""
    value = value_changed(json.loads(data), rng)
    if isinstance(value, dict) and rng.random() < 0.7:
        value["checksum"] = seal_text(value.get("costs"))
    return json.dumps(value).encode()


def _read_costs(path: Path) -> Any:
    """The warning about a damaged cache as an error, which it is to who asks."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            return measured.read(path)
        except UserWarning as told:
            raise OutsizeError(str(told)) from told


def _use_costs(costs: dict[str, Any]) -> None:
    assert all(0 <= cost.seconds < 1e14 and cost.workspace_bytes >= 0 for cost in costs.values())


def _make_arrays(path: Path) -> None:
    buffer = io.BytesIO()
    rng = np.random.default_rng(0)
    save = np.savez_compressed if "packed" in path.name else np.savez
    save(buffer, x=rng.random((6, 1, 4, 4)), y=np.arange(6) % 3)
    path.write_bytes(buffer.getvalue())


def _use_arrays(samples: images.Samples) -> None:
    next(images.shuffled(samples.train, batch=2, seed=0))


def _use_text(found: text.Corpus) -> None:
    text.check_length(found, context=8)
    next(text.next_byte(found.train, batch=2, context=8, seed=0))


def _read_code(path: Path) -> Any:
    return python_file(Source(path.read_bytes()))


def _use_code(found: Any) -> None:
    for functions in (found.functions, found.outside):
        functions.forest.check()


def _copy(source: Path) -> Callable[[Path], None]:
    return lambda path: shutil.copyfile(source, path) and None


def _json(value: Any) -> Callable[[Path], None]:
    return lambda path: path.write_text(json.dumps(dataclasses.asdict(value), indent=1)) and None


def _folder(name: str) -> Path:
    import outsize.measure

    return Path(outsize.measure.__file__).parent / "hardware" / name


def _graph() -> StepGraph:
    return chain(4)[0]


SUBJECTS: dict[str, Subject] = {
    "forest": Subject(
        file="x.forest", make=lambda p: parse(CODE, "python").save(p), read=Forest.load, use=_use_forest,
        errors=TreesError, change=sealed_changed, sealed=True),
    "functions": Subject(
        file="train.forest", make=_save_functions, read=Functions.load, use=_use_functions, errors=TreesError,
        change=sealed_changed, sealed=True),
    "detector": Subject(
        file="d.safetensors", make=lambda p: store.save(Detector(TINY), p, history={"functions": 3}), read=store.load,
        use=_use_detector, errors=TreesError, change=sealed_changed, sealed=True),
    "matcher": Subject(
        file="m.safetensors",
        make=lambda p: similar.save_matcher(
            similar.Matcher(similar.MatcherConfig(width=8, layers=2, rows=64, inner=4, out=4)), p),
        read=similar.load_matcher, use=lambda model: similar.embed(model, _packed()), errors=TreesError,
        change=sealed_changed, sealed=True),
    "corpus list": Subject(
        file="corpus.json", make=_copy(corpus.PINS), read=corpus.read_pins, use=corpus.requirements, errors=TreesError,
        change=json_changed),
    "run record": Subject(
        file="run.json", make=_json(record()), read=lambda p: load_json(RunRecord, p, DOOR), use=_use_record,
        change=json_changed),
    "plan": Subject(
        file="plan.json", make=lambda p: _json(_plan())(p), read=lambda p: load_json(Plan, p, DOOR), use=_use_plan,
        change=json_changed),
    "schedule": Subject(
        file="schedule.json", make=lambda p: _json(_schedule()[2])(p),
        read=lambda p: load_json(Schedule, p, DOOR), use=_use_schedule, change=json_changed),
    "graph": Subject(
        file="graph.json", make=_json(_graph()), read=lambda p: load_json(StepGraph, p, DOOR), use=_use_graph,
        change=json_changed),
    "hardware": Subject(
        file="mine.toml", make=_copy(_folder("a100.toml")), read=lambda p: load_hardware(str(p)),
        use=_use_hardware, errors=UnitError, change=numbers_changed),
    "measurements": Subject(
        file="ops-0.json", make=_make_costs, read=_read_costs, use=_use_costs, change=_costs_changed, sealed=True),
    "arrays": Subject(
        file="mine.npz", make=_make_arrays, read=lambda p: images.arrays(p, seed=0, dimensions=4), use=_use_arrays,
        errors=WorkloadError),
    "packed arrays": Subject(
        file="packed.npz", make=_make_arrays, read=lambda p: images.arrays(p, seed=0, dimensions=4), use=_use_arrays,
        errors=WorkloadError),
    "text": Subject(
        file="text.txt", make=lambda p: p.write_text(CODE * 9) and None, read=lambda p: text.folder(p, seed=0),
        use=_use_text, errors=WorkloadError),
    "scanned code": Subject(
        file="code.py", make=lambda p: p.write_text(CODE) and None, read=_read_code, use=_use_code, errors=TreesError),
}  # fmt: skip


# What the readers of programs let through before they were written anew ended in the C machine's heap.
if importlib.util.find_spec("outsize.programs.npi.weights_file"):
    from .npi_subjects import SUBJECTS as OF_PROGRAMS

    SUBJECTS |= OF_PROGRAMS


def mutant(data: bytes, subject: Subject, rng: random.Random) -> tuple[bytes, bool]:
    """The next damaged file, and whether a checksum has to tell."""
    if subject.change is not None and rng.random() < 0.6:
        return subject.change(data, rng), False
    changed = bytes_changed(data, rng, other=data)
    return changed, subject.sealed and changed != data


def chosen(names: Sequence[str]) -> dict[str, Subject]:
    return {name: SUBJECTS[name] for name in names or SUBJECTS}
