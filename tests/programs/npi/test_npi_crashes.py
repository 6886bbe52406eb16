"""What used to end Python, run on for ever, or come out as a raw exception is one error that says where."""

import linecache
import time

import pytest
import torch
from typer.testing import CliRunner

from outsize.cli.main import app
from outsize.errors import NpiError
from outsize.programs import npi
from outsize.programs.npi import record, tables
from outsize.programs.npi.certify import ends_of
from outsize.programs.npi.controller import Controller
from outsize.programs.npi.fitting import train_primitive
from outsize.programs.npi.library import LIBRARY
from outsize.programs.npi.tables import compile_tables

DIGITS = range(10)


def tapes(*lists, domain=DIGITS):
    return lambda: tuple(npi.Tape(values, domain=domain).at() for values in lists)


def built(name, text):
    """The functions of a text, as if it were a file."""
    file = f"<{name}>"
    linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)
    space = {}
    exec(compile(text, file, "exec"), space)
    return space["main"]


def never_moves(p, q):
    while not p.at_end():
        q.write(1)


def does_nothing(p, q):
    while True:
        pass


def to_and_fro(p, q):
    while not p.at_end():
        p.move(1)
        p.move(-1)


@pytest.mark.parametrize("program", [never_moves, does_nothing, to_and_fro])
def test_a_program_that_does_not_end_is_stopped_while_it_is_traced(program, monkeypatch):
    monkeypatch.setattr(record, "CALLS_LIMIT", 3_000)
    with pytest.raises(
        NpiError, match=r"still running after 3000 calls, in \w+_while1 \(test_npi_crashes.py:\d+\)"
    ):
        npi.trace(program, [tapes([1], [0])])


def walk(p, q):
    while not p.at_end():
        q.write(p.read())
        p.move(1)


def test_an_example_may_be_long():
    """40,000 rounds of a loop are 40,000 calls one after the other, none inside of another."""
    template = npi.parameterize(npi.trace(walk, [tapes([1] * 40_000, [0])]))
    assert len(template.traces.executions[0]) == 40_002
    assert len(template.closure.rows) == 3


def sink(p, q):
    if not p.at_end():
        p.move(1)
        sink(p, q)


def test_calls_inside_of_each_other_are_counted():
    with pytest.raises(
        NpiError, match=r"nests 1000 calls \(sink, test_npi_crashes.py:\d+\): trace smaller examples"
    ):
        npi.trace(sink, [tapes([1] * 5_000, [0])])
    assert npi.parameterize(npi.trace(sink, [tapes([1] * 300, [0])])).closure.rows


def test_a_chain_of_seventy_functions_is_analysed():
    text = "def f0(p):\n    p.move(1)\n" + "".join(
        f"def f{i}(p):\n    f{i - 1}(p)\n    if not p.at_end():\n        p.move(-1)\n        p.move(1)\n"
        for i in range(1, 70)
    )
    main = built("chain", text + "def main(p):\n    while not p.at_end():\n        f69(p)\n")
    template = npi.parameterize(npi.trace(main, [tapes([1, 2])]))
    assert ends_of(template, {})[0].proved


def test_a_call_of_hundreds_of_actions_is_tabulated(monkeypatch):
    lines = ["    q.write(p.read())", "    p.goto(q)"] * 120
    main = built("long", "\n".join(["def main(p, q):", *lines]))
    template = npi.parameterize(npi.trace(main, [tapes([1], [0])]))
    controller = Controller(template.vocabulary)
    row = max(template.closure.rows, key=lambda row: len(row.steps))
    assert len(row.steps) > 300
    monkeypatch.setattr(tables, "forest", lambda _: {"main": chain(row)})
    assert compile_tables(controller).walk(row) == [step.action for step in row.steps]


def chain(row):
    """A decision tree that is one path."""
    tree = (row.steps[-1].action, ())
    for step in reversed(row.steps[:-1]):
        tree = (step.action, ((0, tree),))
    return tree


def test_an_expression_of_a_thousand_terms():
    main = built("deep", "def main(p, q):\n    q.write(sum(p.read() for _ in range(1000)) % 10)\n")
    with pytest.raises(NpiError, match="nested 201 deep; compute it in a function"):
        npi.trace(main, [tapes([1], [0])])


def test_a_shift_by_a_large_value():
    main = built("shift", "def main(p, q):\n    q.write((1 << (p.read() * 10000)) % 10)\n")
    with pytest.raises(NpiError, match="more bits than a cell"):
        npi.trace(main, [tapes([9], [0])])


TABLE, CHOSEN = {1: 3, 2: 4}, None


def look(x):
    return TABLE[x]


def checked(x):
    assert x < 5
    return x


def uses(p, q):
    while not p.at_end():
        q.write(CHOSEN(p.read()))
        p.move(1)
        q.move(1)


@pytest.mark.parametrize(("function", "refused"), [(look, 8), (checked, 5)])
def test_a_data_function_may_fail_where_it_has_no_answer(function, refused, monkeypatch):
    monkeypatch.setitem(globals(), "CHOSEN", function)
    template = npi.parameterize(npi.trace(uses, [tapes([1, 2], [0, 0])]))
    model = npi.train(template)
    certificate = npi.verify(template, model)
    assert not certificate.holds
    (slot,) = certificate.primitives
    assert certificate.primitives[slot]["refused"] == refused
    assert (
        f" of {refused} inputs: the program's expression fails there" in certificate.primitives[slot]["stops"]
    )
    assert certificate.guard.failures > 0
    with pytest.raises(NpiError, match="outside of its domain"):
        npi.run(model, [tapes([9], [0])()])
    with pytest.raises(NpiError, match="fails while it is recorded"):
        npi.trace(uses, [tapes([9], [0])])


@pytest.mark.parametrize(
    ("domain", "says"),
    [
        (range(10**30), "a domain has 1000000000000000000000000000000 values"),
        (range(10**12), "must have 1 to"),
        (10, "a domain's values are given as 10"),
        ("01", "a domain's values are given as '01'"),
        ([0.5, 1], "a value of a domain is 0.5"),
        ([], "a domain has 0 values"),
        ([1 << 70], "cells have 64 bits"),
        ([None], "a value of a domain is None"),
    ],
)
def test_domains_are_small_sets_of_integers(domain, says):
    with pytest.raises(NpiError, match=says):
        npi.Tape([], domain=domain)


def test_domains_are_sets():
    for domain in ([3, 1, 1, 2], {1, 2, 3}, (True, 2, 3), range(3, 0, -1)):
        assert list(npi.Tape([], domain=domain).domain) == [1, 2, 3]


@pytest.mark.parametrize("values", [[0.5], "12", [None], 5, ["1"], [torch.tensor(0.5)]])
def test_cells_are_integers(values):
    with pytest.raises(NpiError, match=r"tapes hold integers|give a list of integers"):
        npi.Tape(values)


def test_cells_stay_integers():
    head = npi.Tape([1, 2]).at()
    for bad in (0.5, "1", None):
        with pytest.raises(NpiError, match="tapes hold integers"):
            head.write(bad)
    heads = LIBRARY["map"].encode([1, 2])
    heads[0].tape.cells[0] = 1.5
    with pytest.raises(NpiError, match=r"a tape holds 1\.5"):
        npi.run(npi.shipped("map"), [heads])


def call(*words, **options):
    return CliRunner().invoke(app, ["npi", *words], **options)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("train", "reverse", "--seed", str(10**30)), "the seed is 1000000"),
        (("train", "reverse", "--seed", "-1"), "the seed is -1"),
    ],
)
def test_seeds(words, says, tmp_path):
    error = call(*words, "--out", str(tmp_path / "x")).exception
    assert isinstance(error, NpiError)
    assert says in str(error)


@pytest.mark.parametrize("engine", ["network", "tables", "native"])
def test_limits_of_any_size(engine):
    words = (
        "run",
        "map",
        "[1, 2]",
        "--engine",
        engine,
        "--max-steps",
        str(10**20),
        "--max-depth",
        str(10**20),
    )
    assert call(*words).stdout.strip() == "[4, 7]"
    for bad in ({"steps": 0}, {"steps": 2.5}, {"depth": 0}):
        with pytest.raises(NpiError, match="an integer from 1 on"):
            npi.Limits(**bad)


def test_standard_input_of_any_system():
    for text in ("12\r\n30\r\n", "12\n30\n", "12\r\n30", "\ufeff12\n30\n"):
        assert call("run", "addition", "-", input=text).stdout.strip() == "42"
    error = call("run", "addition", "-", input=b"\xff\xfe\x00").exception
    assert isinstance(error, NpiError)


def test_a_large_csv_ends(tmp_path):
    """20,000 rows of 20,000 answers are refused at once; of two answers they are learned."""
    pairs = tmp_path / "square.csv"
    pairs.write_text("".join(f"{x},{x * x}\n" for x in range(20_000)))
    error = call("swap", "map", "--primitive", f"f={pairs}").exception
    assert isinstance(error, NpiError)
    assert "20000 pairs and 20000 different answers" in str(error)
    data = {(x,): int(x < 7_000) for x in range(20_000)}
    begin = time.process_time()
    _, check = train_primitive("f", data, domains=[tuple(range(20_000))], exhaustive=True)
    assert check.errors == 0, time.process_time() - begin
