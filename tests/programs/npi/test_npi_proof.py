"""Certificates: what holds, what no longer holds, and programs of which termination cannot be shown."""

import json
import re

import pytest
import torch

from outsize.errors import NpiError
from outsize.programs import npi
from outsize.programs.npi.certify import ends_of
from outsize.programs.npi.library import LIBRARY
from outsize.programs.npi.primitive import weights_hash
from outsize.programs.npi.tables import compile_tables


@pytest.mark.parametrize("name", LIBRARY)
def test_every_shipped_template_is_proved(name):
    template, model = npi.template_of(name), npi.shipped(name)
    certificate = npi.verify(template, model)
    assert certificate.holds, certificate.not_proved
    assert certificate.check.errors == 0
    assert certificate.check.least_margin > 1
    assert certificate.tables_agree
    assert certificate.termination.proved
    assert all(p["kind"] == "exhaustive" and p["errors"] == 0 for p in certificate.primitives.values())
    assert certificate.sequences <= 25
    assert certificate.proved[-1].endswith("inputs of every length")


@pytest.mark.parametrize("name", LIBRARY)
def test_tables_answer_the_verification_set_as_the_program(name):
    tables = compile_tables(npi.shipped(name).controller)
    for row in npi.template_of(name).closure.rows:
        assert tables.walk(row) == [step.action for step in row.steps]


def test_subtraction_has_additions_controller():
    a, b = npi.shipped("addition").controller, npi.shipped("subtraction").controller
    assert weights_hash(a) == weights_hash(b)
    assert a.fingerprint() != b.fingerprint(), "their words differ"
    assert b.vocabulary.slots == ("", "borrow", "copy", "difference") or "borrow" in b.vocabulary.slots


def test_changed_weights_lose_their_certificate(tmp_path):
    template, model = npi.template_of("map"), npi.shipped("map")
    path = tmp_path / "c.json"
    path.write_text(npi.verify(template, model).to_json())
    npi.read_certificate(path).match(model, template)
    with torch.no_grad():
        model.controller.heads.bias[0] += 1e-3
    with pytest.raises(NpiError, match="controller changed"):
        npi.read_certificate(path).match(model, template)


def test_a_spoilt_controller_does_not_verify():
    template, model = npi.template_of("filter"), npi.shipped("filter")
    with torch.no_grad():
        model.controller.heads.weight.mul_(-1)
    certificate = npi.verify(template, model)
    assert not certificate.holds
    assert certificate.check.errors > 0
    assert any("the controller acts as filter" in fact for fact in certificate.not_proved)


def test_a_wrong_primitive_does_not_verify():
    template = npi.template_of("map")
    wrong = npi.swap(npi.shipped("map"), "f", {(x,): x for x in range(100)})
    certificate = npi.verify(template, wrong)
    assert not certificate.holds
    assert certificate.primitives["f"]["errors"] > 90


def test_damaged_certificates_are_refused(tmp_path):
    path = tmp_path / "c.json"
    good = json.loads(npi.verify(npi.template_of("map"), npi.shipped("map")).to_json())
    for bad in ("", "[]", "{}", json.dumps({**good, "format": 9}), json.dumps({**good, "check": 3})):
        path.write_text(bad)
        with pytest.raises(NpiError, match="certificate"):
            npi.read_certificate(path)


def test_compiled_python_source_runs_like_the_program():
    model, entry = npi.shipped("merge_sort"), LIBRARY["merge_sort"]
    space = {}
    exec(npi.to_python(model.controller), space)
    space["slots"]["less"] = lambda x, y: x < y
    heads = entry.encode([5, 3, 9, 1, 1, 0])
    space["merge_sort"](*heads)
    assert entry.decode(heads) == [0, 1, 1, 3, 5, 9]


def clip(xs, limit):
    while not xs.at_end():
        if xs.read() > limit.read():
            xs.write(0)
        xs.move(1)


def test_without_a_domain_the_certificate_is_a_bound():
    """What cannot be enumerated is sampled: the control is proved, the datum is bounded."""

    def example(values, limit):
        return lambda: (npi.Tape(values).at(), npi.Tape([limit]).at())

    values = [7 * i % 61 for i in range(60)]
    template = npi.parameterize(npi.trace(clip, [example(values, limit) for limit in (5, 30)]))
    certificate = npi.verify(template, npi.train(template))
    more = certificate.primitives["more"]
    assert more["kind"] == "statistical"
    assert more["inputs"] == 24
    assert more["error_bound"] > 0
    assert certificate.bounded
    assert not certificate.holds, "a bound is about inputs drawn as the examples, not about all"
    assert not any("every length" in fact for fact in certificate.proved)
    assert any(
        re.search(r"1 - m \* 0.\d+ if its inputs are drawn as .* which says nothing beyond \d calls", fact)
        for fact in certificate.not_proved
    )
    assert not certificate.ends, "how far it goes may rest on a test that errs"


def shift(xs, limit):
    while not xs.at_end():
        if xs.read() > limit.read():
            xs.write(xs.read() + 1)
        xs.move(1)


def test_a_bound_may_say_nothing_of_one_call():
    def example():
        return npi.Tape([7 * i % 61 for i in range(60)]).at(), npi.Tape([30]).at()

    template = npi.parameterize(npi.trace(shift, [example]))
    certificate = npi.verify(template, npi.train(template))
    assert not certificate.holds
    assert not certificate.bounded
    assert any("says nothing: train on more" in fact for fact in certificate.not_proved)


def ends(program, *tapes):
    def make():
        return tuple(npi.Tape(values, domain=range(10)).at() for values in tapes)

    return termination(npi.parameterize(npi.trace(program, [make])))[0]


def termination(template):
    return ends_of(template, {slot: site.pairs(1 << 17) for slot, site in template.sites.items()})


def forth_and_back(p):
    if p.at_end():
        return
    p.move(1)
    p.move(-1)
    if p.read() == 3:
        forth_and_back(p)


def stays(p, q):
    while not p.at_end():
        if q.at_end():
            p.move(1)
        elif q.read() == 1:
            return


def walks(p, q):
    while not p.at_end():
        p.move(1)
        if q.at_start():
            q.move(1)


def to_and_fro(p):
    while not p.at_end():
        p.move(1)
        if p.at_end():
            return
        if p.read() == 5:
            p.move(-1)


@pytest.mark.parametrize(
    ("program", "tapes", "proved"),
    [
        (forth_and_back, ([0],), False),
        (stays, ([1], [1]), False),
        (walks, ([1, 2], [1]), True),
        (to_and_fro, ([1, 2, 5 - 4],), False),
    ],
)
def test_termination_is_claimed_only_where_a_measure_shrinks(program, tapes, proved):
    result = ends(program, *tapes)
    assert result.proved is proved
    assert bool(result.open) is not proved


def mark_only(mark, edge, other):
    if mark.read() == 0:
        mark.write(1)
        mark.seek(edge.read())
        mark_only(mark, edge, other)


def mark_and_unmark(mark, edge, other):
    """A second pointer on the same tape brings marks back: their count proves nothing."""
    if mark.read() == 0:
        mark.write(1)
        other.write(0)
        mark.seek(edge.read())
        mark_and_unmark(mark, edge, other)


def test_marks_count_only_if_no_write_brings_them_back():
    def run(program, shared):
        def make():
            tape = npi.Tape([0, 1, 1], domain=range(2))
            other = tape if shared else npi.Tape([0, 1, 1], domain=range(2))
            return tape.at(), npi.Tape([1]).at(), other.at(2)

        found, layouts = termination(npi.parameterize(npi.trace(program, [make])))
        return found.proved, layouts

    assert run(mark_only, shared=True) == (True, None), "in whatever way the pointers share tapes"
    assert run(mark_and_unmark, shared=False) == (True, ((0, 1, 2),)), "as in the example only"
    assert run(mark_and_unmark, shared=True) == (False, ((0, 1, 0),))
