"""Running: three engines against each other and against Python, limits, swaps, one forward per list."""

import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from outsize.errors import NpiError
from outsize.native import available
from outsize.programs import npi
from outsize.programs.npi.brains import NetworkBrain, PrimitiveCaller
from outsize.programs.npi.library import LIBRARY
from outsize.programs.npi.machine import Machine

ENGINES = ("network", "tables", "native") if available() else ("network", "tables")


def results(name, cases, engine, model=None):
    entry = LIBRARY[name]
    heads = [entry.encode(*case) for case in cases]
    stats = npi.run(model or npi.shipped(name), heads, engine=engine)
    return [entry.decode(h) for h in heads], stats


@pytest.mark.parametrize("name", LIBRARY)
def test_every_template_on_every_engine(name):
    source = random.Random(3)
    model, entry = npi.shipped(name), LIBRARY[name]
    cases = [entry.sample(source, n) for n in (1, 2, 3, 5, 9) for _ in range(4)]
    want = [entry.oracle(*case) for case in cases]
    outcomes = [results(name, cases, engine, model) for engine in ENGINES]
    assert [r for r, _ in outcomes] == [want] * len(ENGINES)
    assert len({(s.steps, s.depth) for _, s in outcomes}) == 1


@pytest.mark.parametrize("name", sorted(set(LIBRARY) - {"multiplication"}))
def test_a_thousand_elements(name):
    source = random.Random(4)
    cases = [LIBRARY[name].sample(source, 1_000) for _ in range(2)]
    assert results(name, cases, ENGINES[-1])[0] == [LIBRARY[name].oracle(*case) for case in cases]


@pytest.mark.parametrize("name", ["bubble_sort", "merge_sort", "quick_sort", "insertion_sort"])
@given(xs=st.lists(st.integers(0, 255), max_size=40))
@settings(max_examples=25, deadline=None)
def test_sorts(name, xs):
    assert results(name, [(xs,)], ENGINES[-1], MODELS[name])[0] == [sorted(xs)]


MODELS = {name: npi.shipped(name) for name in ("bubble_sort", "merge_sort", "quick_sort", "insertion_sort")}


@given(a=st.integers(0, 10**30), b=st.integers(0, 10**30))
@settings(max_examples=25, deadline=None)
def test_arithmetic(a, b):
    a, b = max(a, b), min(a, b)
    for name, want in (("addition", a + b), ("subtraction", a - b), ("multiplication", a * b)):
        assert results(name, [(str(a), str(b))], "tables", ARITHMETIC[name])[0] == [str(want)]


ARITHMETIC = {name: npi.shipped(name) for name in ("addition", "subtraction", "multiplication")}


def test_tail_calls_take_the_frame_over():
    assert results("addition", [("9" * 300, "1")], "tables")[1].depth == 2
    assert results("insertion_sort", [(list(range(15, 0, -1)),)], "network")[1].depth == 3


def test_deep_recursion_is_not_python_recursion():
    chain = [[i + 1] for i in range(599)] + [[]]
    order, stats = results("topological_sort", [(chain,)], "tables")
    assert order == [list(range(600))]
    assert stats.depth > 600


def test_map_asks_its_primitive_once_per_list():
    model, entry = npi.shipped("map"), LIBRARY["map"]
    caller = PrimitiveCaller(model.primitives["f"])
    heads = [entry.encode(list(range(100))), entry.encode(list(range(50)))]
    Machine(NetworkBrain(model.controller), {"f": caller}).run(heads)
    assert caller.forwards == 1
    assert entry.decode(heads[0]) == [(3 * x + 1) % 100 for x in range(100)]


@pytest.mark.parametrize("engine", ENGINES)
def test_limits(engine):
    entry, model = LIBRARY["bubble_sort"], npi.shipped("bubble_sort")
    with pytest.raises(NpiError, match="made 10 system calls and not ended"):
        npi.run(model, [entry.encode([3, 2, 1])], engine=engine, limits=npi.Limits(steps=10))
    graph = LIBRARY["topological_sort"].encode([[1], [2], [3], []])
    with pytest.raises(NpiError, match="frames deep"):
        npi.run(npi.shipped("topological_sort"), [graph], engine=engine, limits=npi.Limits(depth=4))


@pytest.mark.parametrize("engine", ENGINES)
def test_a_primitive_outside_of_its_domain(engine):
    with pytest.raises(
        NpiError, match=r"less is called on .*outside of its domain|input \d must be one of 256"
    ):
        results("merge_sort", [([3, 256],)], engine)


@pytest.mark.parametrize("engine", ENGINES)
def test_leaving_the_tape_is_an_error(engine):
    heads = (npi.Tape([1, 2]).at(), npi.Tape([0]).at())
    with pytest.raises(NpiError, match="is off the tape"):
        npi.run(npi.shipped("map"), [heads], engine=engine)


def test_strict_refuses_a_low_margin():
    entry = LIBRARY["addition"]
    with pytest.raises(NpiError, match="margin"):
        npi.run(npi.shipped("addition"), [entry.encode("1", "2")], strict=1e3)
    npi.run(npi.shipped("addition"), [entry.encode("1", "2")], strict=1e-3)


def test_swapped_primitives_run_under_the_frozen_controller():
    model = npi.shipped("merge_sort")
    more = {(x, y): int(x > y) for x in range(20) for y in range(20)}
    swapped = npi.swap(model, "less", more)
    assert swapped.controller is model.controller
    assert swapped.checks["less"].errors == 0
    xs = [3, 19, 0, 7, 7]
    assert results("merge_sort", [(xs,)], ENGINES[-1], swapped)[0] == [sorted(xs, reverse=True)]


def test_a_swap_after_a_run_is_run_on_every_engine():
    """What the first run laid out for the C machine held the old primitive."""
    model, entry = npi.shipped("map"), LIBRARY["map"]
    npi.run(model, [entry.encode([1])])
    swapped = npi.swap(model, "f", {(x,): x * x for x in range(10)})
    for engine in ENGINES:
        assert results("map", [([3, 9],)], engine, swapped)[0] == [[9, 81]]
    assert results("map", [([3, 9],)], ENGINES[-1], model)[0] == [[10, 28]]


def test_addition_becomes_another_base():
    table = {(x, y, c): x + y + c for x in range(7) for y in range(7) for c in (0, 1)}
    model = npi.swap(npi.shipped("addition"), "digit", {k: v % 7 for k, v in table.items()})
    model = npi.swap(model, "carry", {k: v // 7 for k, v in table.items()})
    assert results("addition", [("666", "1")], ENGINES[-1], model)[0] == ["1000"]


def test_a_partly_known_primitive_has_a_bound():
    some = {(x, y): int(x < y) for x in range(12) for y in range(12) if (x + 3 * y) % 4}
    swapped = npi.swap(npi.shipped("merge_sort"), "less", some)
    check = swapped.checks["less"]
    assert check.kind == "statistical"
    assert check.inputs == len(some) // 5
    assert 0 < check.error_bound < 1


def test_saving_keeps_every_bit(tmp_path):
    model = npi.shipped("quick_sort")
    npi.save(model, tmp_path / "q.safetensors")
    again = npi.load(tmp_path / "q.safetensors")
    assert again.controller.fingerprint() == model.controller.fingerprint()
    assert {s: p.fingerprint() for s, p in again.primitives.items()} == {
        s: p.fingerprint() for s, p in model.primitives.items()
    }
    assert again.checks == model.checks


def test_damaged_files_are_refused(tmp_path):
    data = (npi.store.WEIGHTS / "map.safetensors").read_bytes()
    for name, content in {"short": data[:1_000], "empty": b"", "noise": bytes(range(256)) * 9}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(NpiError, match="not a trained template"):
            npi.load(tmp_path / name)


def test_numpy_batches_do_not_depend_on_company():
    """The same addition alone and among others decides alike: margins are far above float noise."""
    source = random.Random(2)
    entry, model = LIBRARY["addition"], npi.shipped("addition")
    cases = [entry.sample(source, n) for n in (1, 4, 9, 30) for _ in range(8)]
    together, _ = results("addition", cases, "network", model)
    alone = [results("addition", [case], "network", model)[0][0] for case in cases]
    assert together == alone
    assert np.isfinite(torch.cat([p.flatten() for p in model.controller.parameters()]).detach().numpy()).all()
