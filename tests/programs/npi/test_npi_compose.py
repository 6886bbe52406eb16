"""Programs in slots: what a model with a certified program for a primitive answers, and what is proved of it."""

import dataclasses
import random

import pytest
import torch
from typer.testing import CliRunner

from outsize.cli.main import app
from outsize.errors import NpiError
from outsize.programs import npi
from outsize.programs.npi.filler import ProgramPrimitive
from outsize.programs.npi.library import LIBRARY

from . import hidden_sites

ENTRY = LIBRARY["merge_sort"]
LARGE = [(1 << 62) + 1, -5, 300, -(1 << 62), 0, 300, 70_000]


@pytest.fixture(scope="module")
def less():
    return npi.filler_of("less_integers")


@pytest.fixture(scope="module")
def model(less):
    return npi.swap(npi.shipped("merge_sort"), "less", less)


@pytest.fixture(scope="module")
def composed(less):
    return npi.compose(npi.template_of("merge_sort"), "less", less)


def sort(model, values, **how):
    heads = ENTRY.encode(values)
    npi.run(model, [heads], **how)
    return ENTRY.decode(heads)


@pytest.mark.parametrize("engine", ["auto", "tables", "network"])
def test_the_frozen_controller_sorts_by_a_program(model, engine):
    assert sort(model, LARGE, engine=engine) == sorted(LARGE)


def test_it_is_proved_over_all_integers(model, composed, tmp_path):
    """The slot's inputs have no domain any more: nothing is enumerated, the program's own proof stands there."""
    certificate = npi.verify(composed, model)
    assert certificate.holds, certificate.not_proved
    assert composed.sites["less"].domains == [None, None]
    assert certificate.primitives["less"]["kind"] == "program"
    assert certificate.guard.inputs == 1_000
    proved = model.certified(certificate)
    assert proved.ends == proved.fingerprint() != ""
    path = tmp_path / "c.json"
    path.write_text(certificate.to_json())
    npi.read_certificate(path).match(model, composed)
    with pytest.raises(NpiError, match="not about this model: program changed"):
        certificate.match(model, npi.template_of("merge_sort"))


def test_it_is_another_program_than_before(composed, less):
    plain = npi.template_of("merge_sort")
    assert composed.identity() != plain.identity()
    assert composed.fingerprint() == plain.fingerprint()  # the same higher-order function
    assert composed.identity() == npi.compose(plain, "less", npi.filler_of("less_integers")).identity()
    assert plain.sites["less"].reference is None
    with pytest.raises(NpiError, match="train the template that they were put into"):
        npi.train(composed)


def test_other_answers_than_the_programs_are_found(composed, less):
    """The network for `less` on bytes, and a program whose model was changed, are not what the composed template says."""
    assert not npi.verify(composed, npi.shipped("merge_sort")).holds
    broken = dataclasses.replace(npi.filler_of("less_integers"))
    with torch.no_grad():
        broken.model.primitives["below"].layers[4].weight.neg_()
    certificate = npi.verify(composed, npi.swap(npi.shipped("merge_sort"), "less", broken))
    assert not certificate.holds
    assert certificate.primitives["less"]["errors"] > 0


def after(x, y):
    return LIBRARY["less_integers"].encode(y, x)


def same(x, y):
    return LIBRARY["less_integers"].encode(x, y)


def written(heads):
    return heads[2].tape.cells[0]


def own(encode, decode=written):
    return npi.as_filler(npi.template_of("less_integers"), npi.shipped("less_integers"), encode, decode)


def test_encode_and_decode_are_part_of_what_is_proved():
    plain, shipped = npi.template_of("merge_sort"), npi.shipped("merge_sort")
    backwards = npi.compose(plain, "less", own(after))
    model = npi.swap(shipped, "less", own(after))
    assert sort(model, LARGE) == sorted(LARGE, reverse=True)
    assert npi.verify(backwards, model).holds
    assert not npi.verify(backwards, npi.swap(shipped, "less", own(same))).holds
    # On bytes the network's own expression is what counts.
    assert not npi.verify(plain, model).holds


def test_a_name_for_encode_does_not_make_two_of_them_one(composed, less):
    forged = dataclasses.replace(less, encode=after)
    assert forged.identity() == less.identity()
    assert not npi.verify(composed, npi.swap(npi.shipped("merge_sort"), "less", forged)).holds


def test_a_program_that_computes():
    """`zip_with` by the addition of numbers of any length; its result goes to a tape that nothing else writes."""
    filler = npi.filler_of("addition")
    entry, model = LIBRARY["zip_with"], npi.swap(npi.shipped("zip_with"), "g", filler)
    heads = entry.encode([10**17, 7, 0], [10**17 + 5, 995, 0])
    npi.run(model, [heads])
    assert entry.decode(heads) == [2 * 10**17 + 5, 1_002, 0]
    certificate = npi.verify(npi.compose(npi.template_of("zip_with"), "g", filler), model)
    assert certificate.holds, certificate.not_proved
    heads = entry.encode([-1], [1])
    with pytest.raises(NpiError, match="not a natural number"):
        npi.run(model, [heads])


def test_what_cannot_be_composed_is_refused(less, tmp_path, model):
    shipped = npi.shipped("merge_sort")
    with pytest.raises(NpiError, match="no primitive 'more'"):
        npi.swap(shipped, "more", less)
    with pytest.raises(NpiError, match="no primitive 'more'"):
        npi.compose(npi.template_of("merge_sort"), "more", less)
    with pytest.raises(NpiError, match="takes 1 inputs, less_integers 2"):
        npi.swap(npi.shipped("map"), "f", less)
    with pytest.raises(NpiError, match="takes 1 inputs, less_integers 2"):
        npi.compose(npi.template_of("map"), "f", less)
    with pytest.raises(NpiError, match="not certified"):
        npi.as_filler(
            npi.template_of("less_integers"), dataclasses.replace(less.model, ends=""), same, written
        )
    with pytest.raises(NpiError, match="the model is of merge_sort"):
        npi.as_filler(npi.template_of("less_integers"), shipped, same, written)
    with pytest.raises(NpiError, match="save both models"):
        npi.save(model, tmp_path / "m.safetensors")
    with pytest.raises(NpiError, match="plain Python functions"):
        npi.as_filler(less.template, less.model, same, sum)
    with pytest.raises(NpiError, match="assigns the outer name STATE"):
        npi.as_filler(less.template, less.model, same, remembered)
    anything = dataclasses.replace(less, held=(None, None, None))
    with pytest.raises(NpiError, match="not what its examples show"):
        npi.verify(npi.template_of("merge_sort"), npi.swap(shipped, "less", anything))
    with pytest.raises(NpiError, match="has to stay within a domain"):
        npi.compose(
            npi.template_of("addition"), "carry", npi.as_filler(less.template, less.model, three, written)
        )


STATE = 0


def remembered(heads):
    global STATE
    STATE += 1
    return STATE % 2


def three(x, y, c):
    return LIBRARY["less_integers"].encode(x, y + c)


def shared(x, y):
    a, _, answer = LIBRARY["less_integers"].encode(x, y)
    return a, a.copy(), answer


def strange(x, y):
    a, b, answer = LIBRARY["less_integers"].encode(x, y)
    a.tape.cells[0] = 17
    return a, b, answer


def wide(heads):
    return 1 << 63


@pytest.mark.parametrize(
    ("encode", "decode", "says"),
    [
        (shared, written, "as none of its examples"),
        (strange, written, "does not hold"),
        (same, wide, "64 bits"),
    ],
)
def test_what_lies_outside_of_the_inner_proof_is_an_error(encode, decode, says):
    """For the plain program as for its model."""
    made = own(encode, decode)
    with pytest.raises(NpiError, match=says):
        made((1, 2))
    with pytest.raises(NpiError, match=says):
        ProgramPrimitive("less", made).one((1, 2))


def test_composition_goes_on():
    """A composed and certified model is a program like any other: it fills a slot in turn."""
    template = npi.compose(npi.template_of("merge"), "less", npi.filler_of("less_integers"))
    model = npi.swap(npi.shipped("merge"), "less", npi.filler_of("less_integers"))
    model = model.certified(npi.verify(template, model))
    outer, entry = npi.as_filler(template, model, lists, first), LIBRARY["zip_with"]
    filled = npi.swap(npi.shipped("zip_with"), "g", outer)
    heads = entry.encode([5, 1 << 40, -3], [4, 7, 1 << 50])
    npi.run(filled, [heads])
    assert entry.decode(heads) == [4, 7, -3]
    certificate = npi.verify(npi.compose(npi.template_of("zip_with"), "g", outer), filled)
    assert certificate.holds, certificate.not_proved


def lists(x, y):
    return LIBRARY["merge"].encode([x], [y])


def first(heads):
    return heads[4].tape.cells[0]


def test_less_integers_is_right():
    source = random.Random(5)
    for _ in range(50):
        x, y = LIBRARY["less_integers"].sample(source, 4)
        heads = LIBRARY["less_integers"].encode(x, y)
        npi.run(npi.shipped("less_integers"), [heads])
        assert LIBRARY["less_integers"].decode(heads) == (x < y)


def call(*words):
    return CliRunner().invoke(app, ["npi", *words])


def test_the_command_line(tmp_path):
    plain = call("swap", "merge_sort", "[300, -5, 2]", "--primitive", "less=less_integers")
    assert plain.stdout.splitlines() == ["less: the program less_integers", "[-5, 2, 300]"]
    assert "not proved" in plain.stderr
    proved = call("swap", "merge_sort", "[300, -5, 2]", "--primitive", "less=less_integers", "--verify")
    assert proved.stdout.splitlines()[-1] == "[-5, 2, 300]"
    assert "not proved" not in proved.stderr
    assert "merge_sort with less_integers as less on inputs of every length" in proved.stdout
    other = tmp_path / "f.csv"
    other.write_text("".join(f"{x},{x}\n" for x in range(100)))
    error = call("swap", "map", "--primitive", f"f={other}", "--verify").exception
    assert isinstance(error, NpiError)
    assert "does not hold" in str(error)


def test_slots_keep_their_names():
    """Sites are named in the order in which they are met, and examples that were found come after the exploration."""
    heads = [lambda: [npi.Tape(t, domain=range(11)).at() for t in ([0, 1], [0, 0])]]
    plain = npi.parameterize(npi.trace(hidden_sites.level, heads))
    assert len(plain.traces.examples) > 2
    filler = npi.as_filler(npi.template_of("less_integers"), npi.shipped("less_integers"), one_of, written)
    slot = next(iter(plain.sites))
    made = npi.compose(plain, slot, filler)
    assert {s.name: s.where for s in made.sites.values()} == {s.name: s.where for s in plain.sites.values()}


def one_of(x):
    return LIBRARY["less_integers"].encode(7, x)
