"""A certificate that holds is right: margins, domains, caches, shared tapes, edited records, and a trial beside it."""

import copy
import dataclasses
import json
import random

import pytest
import torch
from typer.testing import CliRunner

from outsize.cli.main import app
from outsize.errors import NpiError
from outsize.native import available
from outsize.programs import npi
from outsize.programs.npi.certificate import _digest
from outsize.programs.npi.guard import INPUTS, compare
from outsize.programs.npi.library import LIBRARY
from outsize.programs.npi.rounding import certified_margins
from tests.programs.npi.random_programs import outcome, random_program, rows_machine

ENGINES = ("network", "tables", "native") if available() else ("network", "tables")
DIGITS = range(10)


def tapes(*lists, domain=DIGITS):
    return lambda: tuple(npi.Tape(values, domain=domain).at() for values in lists)


def verified(model, name="map"):
    return npi.verify(npi.template_of(name), model)


def changed(change, name="map"):
    model = npi.shipped(name)
    with torch.no_grad():
        change(model)
    return model


def last(model):
    return model.primitives["f"].layers[4]


DOUBTFUL = {
    "a primitive of NaN": lambda m: [p.fill_(float("nan")) for p in m.primitives["f"].parameters()],
    "one NaN in a primitive": lambda m: last(m).bias[:1].fill_(float("nan")),
    "an infinite bias": lambda m: last(m).bias[:1].fill_(float("inf")),
    "a controller of NaN": lambda m: m.controller.heads.bias.fill_(float("nan")),
    "small margins of a primitive": lambda m: [p.mul_(1e-3) for p in last(m).parameters()],
    "tiny margins of a primitive": lambda m: [p.mul_(1e-7) for p in last(m).parameters()],
    "margins lost in a large offset": lambda m: last(m).bias.add_(1e6),
    "small margins of the controller": lambda m: [p.mul_(1e-3) for p in m.controller.heads.parameters()],
    "another answer": lambda m: last(m).bias[:1].add_(1e4),
    "the whole function negated": lambda m: last(m).weight.mul_(-1),
}


@pytest.mark.parametrize("what", DOUBTFUL)
def test_what_is_no_number_or_no_margin_does_not_hold(what):
    certificate = verified(changed(DOUBTFUL[what]))
    assert not certificate.holds
    assert not certificate.ends
    json.loads(certificate.to_json())


def test_the_rounding_bound_covers_every_order_of_summation():
    """Rows alone, in pairs, in other orders of the hidden units: no logit moves by more than the bound allows."""
    torch.manual_seed(0)
    layers = torch.nn.Sequential(
        torch.nn.Linear(9, 64),
        torch.nn.ReLU(),
        torch.nn.Linear(64, 64),
        torch.nn.ReLU(),
        torch.nn.Linear(64, 2),
    )
    with torch.no_grad():
        layers[4].weight.mul_(1e3)
    x = torch.randint(0, 2, (200, 9)).float()
    want = torch.randint(0, 2, (200,))
    sure = certified_margins(layers, x, want)
    for _ in range(5):
        order = torch.randperm(64)
        shuffled = copy.deepcopy(layers)
        with torch.no_grad():
            shuffled[2].weight.copy_(layers[2].weight[:, order])
            shuffled[0].weight.copy_(layers[0].weight[order])
            shuffled[0].bias.copy_(layers[0].bias[order])
            rows = torch.cat([shuffled(row[None]) for row in x])
        gap = (rows.gather(1, want[:, None]) - rows.gather(1, 1 - want[:, None]))[:, 0]
        assert bool((gap.double() >= sure - 1e-9).all())


@pytest.mark.parametrize(
    ("table", "holds"),
    [
        ({(x,): (3 * x + 1) % 100 for x in range(100)}, True),
        ({(x,): (3 * x + 1) % 100 for x in range(-5, 120)}, True),
        ({(x,): (3 * x + 1) % 100 for x in range(99)}, False),
        ({(x,): x * x for x in range(50)}, False),
        ({(x,): 0 for x in range(101)}, False),
    ],
    ids=["its own", "wider", "narrower", "another", "constant"],
)
def test_a_swapped_primitive_is_compared_with_the_programs_own_expression(table, holds):
    model = npi.swap(npi.shipped("map"), "f", table)
    certificate = verified(model)
    assert certificate.holds is holds
    if not holds:
        assert not model.certified(certificate).ends


def test_what_was_laid_out_for_other_weights_is_not_run():
    def results(model):
        out = []
        for engine in ENGINES:
            heads = LIBRARY["map"].encode([3, 12])
            npi.run(model, [heads], engine=engine)
            out.append(LIBRARY["map"].decode(heads))
        return out

    model = npi.shipped("map")
    good = copy.deepcopy(model.primitives["f"].state_dict())
    with torch.no_grad():
        last(model).weight.mul_(-1)
    assert results(model) != [[10, 37]] * len(ENGINES)
    model.primitives["f"].load_state_dict(good)
    assert results(model) == [[10, 37]] * len(ENGINES)
    other = npi.swap(model, "f", {(x,): 0 for x in range(100)})
    assert results(other) == [[0, 0]] * len(ENGINES)
    assert results(dataclasses.replace(other, primitives=model.primitives)) == [[10, 37]] * len(ENGINES)
    for field in ("classes", "domains", "ranges"):
        with pytest.raises(AttributeError):
            setattr(model.primitives["f"], field, ())


def test_no_autocast_around_a_run_reaches_it():
    model = npi.shipped("map")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for engine in ENGINES:
            heads = LIBRARY["map"].encode(list(range(100)))
            npi.run(model, [heads], engine=engine)
            assert LIBRARY["map"].decode(heads) == LIBRARY["map"].oracle(list(range(100)))


def drain(mark, other):
    if mark.read() == 0:
        mark.write(1)
        other.write(0)
        drain(mark, other)


def pair(shared):
    def make():
        a = npi.Tape([0, 0], domain=range(2))
        b = a if shared else npi.Tape([0, 0], domain=range(2))
        return a.at(), b.at()

    return make


def test_pointers_that_share_a_tape_otherwise_than_the_proof_assumes_are_stopped(monkeypatch):
    template = npi.parameterize(npi.trace(drain, [pair(False)]))
    model = npi.train(template)
    certificate = npi.verify(template, model)
    assert certificate.holds
    assert certificate.layouts == ((0, 1),)
    assert any("share tapes otherwise" in fact for fact in certificate.not_proved)
    model = model.certified(certificate)
    for engine in ENGINES:
        monkeypatch.setitem(npi.trained.UNPROVED_STEPS, engine, 500)
        npi.run(model, [pair(False)()], engine=engine)
        with pytest.raises(NpiError, match="made 500 system calls and not ended"):
            npi.run(model, [pair(True)()], engine=engine)


def test_executions_of_a_batch_do_not_share_tapes():
    model = npi.shipped("map")
    one, two = npi.Tape([1, 2]), npi.Tape([0, 0])
    for batch in ([(one.at(), two.at()), (two.at(), one.at())], [(one.at(), two.at())] * 2):
        for engine in ENGINES:
            with pytest.raises(NpiError, match="execution 1 is on a tape of execution 0"):
                npi.run(model, batch, engine=engine)
    assert one.cells == [1, 2]


def half_of_the_plane(a, b, out):
    m = a.middle(b)
    if m.at_end():
        out.write(1)
    else:
        out.write(2)


def test_middle_beyond_a_shorter_tape_is_off_it():
    def at(n, position):
        def make():
            long = npi.Tape([0] * 100, domain=DIGITS)
            return npi.Tape([0] * n, domain=DIGITS).at(), long.at(position), npi.Tape([0], domain=DIGITS).at()

        return make

    template = npi.parameterize(npi.trace(half_of_the_plane, [at(2, 1), at(2, 4)]))
    model = npi.train(template)
    assert npi.verify(template, model).holds
    for engine in ENGINES:
        with pytest.raises(NpiError, match="position 25 is off the tape"):
            npi.run(model, [at(2, 50)()], engine=engine)


# -- records of certificates


@pytest.fixture(scope="module")
def record():
    return json.loads(verified(npi.shipped("map")).to_json())


EDITS = {
    "holds": lambda r: r.update(holds=False),
    "the program": lambda r: r.update(program="0" * 64),
    "errors": lambda r: r["check"].update(errors=3),
    "a primitive's inputs": lambda r: r["primitives"]["f"].update(inputs=10**6),
    "what is proved": lambda r: r["proved"].append("that all is well"),
    "what is not proved": lambda r: r["not_proved"].clear(),
    "another slot": lambda r: r["primitives"].update(g=dict(r["primitives"]["f"])),
    "open cycles": lambda r: r["termination"].update(open=["map_while1"]),
    "arrangements of tapes": lambda r: r.update(layouts=[[0, 0]]),
    "the trial": lambda r: r["guard"].update(inputs=10**9),
}


def signed(record):
    """As somebody writes it who knows how: the digest is right."""
    rest = {k: v for k, v in record.items() if k != "digest"}
    return json.dumps({**rest, "digest": _digest(rest)})


@pytest.mark.parametrize("what", EDITS)
def test_an_edited_record_is_refused(tmp_path, record, what):
    edited, path = copy.deepcopy(record), tmp_path / "c.json"
    EDITS[what](edited)
    path.write_text(json.dumps(edited))
    with pytest.raises(NpiError, match="edited since"):
        npi.read_certificate(path)
    path.write_text(signed(edited))
    result = CliRunner().invoke(app, ["npi", "verify", "map", "--against", str(path)])
    assert isinstance(result.exception, NpiError), result.output


@pytest.mark.parametrize(
    "change",
    [
        lambda r: r.update(holds=1),
        lambda r: r["check"].update(states=True),
        lambda r: r["check"].update(least_margin="3"),
        lambda r: r.update(primitives=[]),
        lambda r: r["primitives"]["f"].pop("weights"),
        lambda r: r["primitives"]["f"].update(errors=1),
        lambda r: r["check"].update(least_margin=1e-3),
        lambda r: r.update(made_here=True),
        lambda r: r.pop("guard"),
        lambda r: r.update(layouts=3),
    ],
)
def test_a_record_of_another_make_is_refused(tmp_path, record, change):
    edited, path = copy.deepcopy(record), tmp_path / "c.json"
    change(edited)
    path.write_text(signed(edited))
    with pytest.raises(NpiError, match="is not a certificate"):
        npi.read_certificate(path)


def test_a_record_lifts_no_limit(tmp_path, record):
    path = tmp_path / "c.json"
    path.write_text(json.dumps(record))
    certificate = npi.read_certificate(path)
    certificate.match(npi.shipped("map"), npi.template_of("map"))
    with pytest.raises(NpiError, match="read from a file proves nothing"):
        npi.shipped("map").certified(certificate)


def g(x):
    return (3 * x + 2) % 100


def named_map(xs, out):
    while not xs.at_end():
        out.write(f(xs.read()))
        xs.move(1)
        out.move(1)


def f(x):
    return (3 * x + 1) % 100


def test_a_certificate_is_about_its_program(monkeypatch):
    """The same rows, the same weights and the same names, and another function in the slot."""

    def template():
        examples = [tapes([3, 4], [0, 0], domain=range(100)), tapes([], [])]
        return npi.parameterize(npi.trace(named_map, examples))

    first = template()
    model = npi.train(first)
    certificate = npi.verify(first, model)
    certificate.match(model, first)
    monkeypatch.setattr(g, "__name__", "f")
    monkeypatch.setitem(globals(), "f", g)
    second = template()
    assert second.fingerprint() == first.fingerprint()
    assert second.identity() != first.identity()
    with pytest.raises(NpiError, match="program changed since"):
        certificate.match(model, second)
    with pytest.raises(NpiError, match="changed since it was traced"):
        npi.verify(first, model)
    assert not npi.verify(second, model).holds


# -- the trial


def test_the_trial_runs_a_thousand_inputs_on_every_engine(record):
    assert record["guard"]["inputs"] == INPUTS == 1_000
    assert set(record["guard"]["engines"]) == set(ENGINES)
    assert record["guard"]["different"] == 0


def test_the_trial_notices_what_the_proof_would_not(monkeypatch):
    """The compiled tables are changed after they were read off: the trial says on which input, and nothing holds."""
    template, model = npi.template_of("filter"), npi.shipped("filter")
    broken = npi.swap(model, "keep", {(x,): int(x % 3 == 0) for x in range(100)})
    guard = compare(template, broken)
    assert guard.different > 0
    assert "the program gives" in guard.first
    monkeypatch.setattr("outsize.programs.npi.certify._exhaustive", lambda *_: exact_check())
    certificate = npi.verify(template, broken)
    assert certificate.exact
    assert not certificate.holds
    assert any("trials differ" in fact for fact in certificate.not_proved)


def exact_check():
    from outsize.programs.npi.fitting import PrimitiveCheck

    return PrimitiveCheck(kind="exhaustive", inputs=100, errors=0, least_margin=2.0, error_bound=0.0)


@pytest.mark.parametrize("first", range(0, 60, 20))
def test_random_programs_are_read_as_python_reads_them(first):
    """The program's own rows, run as tables, against the program: twenty programs, ten inputs each."""
    compared = 0
    for seed in range(first, first + 20):
        made = random_program(seed)
        try:
            template = npi.parameterize(npi.trace(made.function, made.examples))
        except NpiError:
            continue  # an example is missing, or a loop returns in the middle of a function
        machine = rows_machine(template)
        for make in made.inputs(random.Random(seed), 10):
            want = outcome(lambda heads, made=made: made.function(*heads), make)
            assert outcome(lambda heads, machine=machine: machine.run([heads]), make) == want, made.text
            compared += 1
    assert compared >= 40


@pytest.mark.parametrize("seed", [31, 32])
def test_a_random_program_is_learned_and_certified(seed):
    made = random_program(seed)
    template = npi.parameterize(npi.trace(made.function, made.examples))
    model = npi.train(template)
    assert npi.verify(template, model).holds
