"""Inputs to which a program has no answer: the certificate does not hold, or says where the model stops."""

import pytest

from outsize.errors import NpiError
from outsize.native import available
from outsize.programs import npi

ENGINES = ("network", "tables", "native") if available() else ("network", "tables")
DIGITS = range(10)


def tapes(*lists, domains=DIGITS):
    domains = domains if isinstance(domains, tuple) else (domains,) * len(lists)
    return lambda: [npi.Tape(v, domain=d).at() for v, d in zip(lists, domains)]


def learn(program, *examples):
    template = npi.parameterize(npi.trace(program, examples))
    model = npi.train(template)
    return model, npi.verify(template, model)


def lower(xs, out):
    while not xs.at_end():
        out.write(xs.read() - 3)
        xs.move(1)
        out.move(1)


def divides(xs, ys, out):
    while not xs.at_end():
        if xs.read() % ys.read() == 0:
            out.write(1)
        xs.move(1)
        ys.move(1)
        out.move(1)


def divides_if_it_can(xs, ys, out):
    while not xs.at_end():
        y = ys.read()
        if y != 0 and xs.read() % y == 0:
            out.write(1)
        xs.move(1)
        ys.move(1)
        out.move(1)


def difference(xs, ys, out):
    while not xs.at_end():
        x, y = xs.read(), ys.read()
        if x < y:
            out.write(y - x)
        else:
            out.write(x - y)
        xs.move(1)
        ys.move(1)
        out.move(1)


def histogram(xs, counts):
    while not xs.at_end():
        here = counts.copy()
        here.seek(xs.read())
        here.write(here.read() + 1)
        xs.move(1)


def by_way_of(xs, out):
    """What is written to one tape comes back by way of another."""
    while not xs.at_end():
        out.write(xs.read())
        xs.write(out.read() + 1)
        xs.move(1)
        out.move(1)


WIDER = (DIGITS, range(-3, 10))


@pytest.mark.parametrize(
    ("program", "example", "why"),
    [
        (lower, tapes([5, 9], [0, 0]), "does not fit the tape"),
        (divides, tapes([6, 5], [3, 2], [0, 0]), "the program's expression fails"),
    ],
)
def test_an_input_that_can_occur_and_has_no_answer_keeps_a_certificate_from_holding(program, example, why):
    _, certificate = learn(program, example)
    assert not certificate.holds
    assert not certificate.answers
    assert not any("inputs of every length" in fact for fact in certificate.proved)
    assert any(
        why in fact and "give that tape a wider domain, or test before" in fact
        for fact in certificate.not_proved
    )


@pytest.mark.parametrize(
    ("program", "example", "refused"),
    [
        (lower, tapes([5, 9], [0, 0], domains=WIDER), 0),
        (divides_if_it_can, tapes([6, 5, 1], [3, 2, 0], [0, 0, 0]), 10),
        (difference, tapes([6, 5], [3, 7], [0, 0]), 45),
    ],
)
def test_a_wider_tape_or_a_test_before_is_enough(program, example, refused):
    _, certificate = learn(program, example)
    assert certificate.holds, certificate.not_proved
    assert certificate.total
    assert certificate.proved[-1].endswith("inputs of every length")
    assert max(p["refused"] for p in certificate.primitives.values()) == refused


@pytest.mark.parametrize(
    ("program", "example"),
    [(histogram, tapes([1, 1, 2], [0] * 10)), (by_way_of, tapes([1, 2], [0, 0]))],
)
def test_what_no_finite_domain_holds_is_said(program, example):
    model, certificate = learn(program, example)
    assert certificate.holds, certificate.not_proved
    assert not certificate.total
    assert "on which it is not stopped by an error, as where" in certificate.proved[-1]
    assert any("is given (9)" in fact and "the program may go on" in fact for fact in certificate.not_proved)
    with pytest.raises(NpiError, match="outside of its domain"):
        npi.run(model, [tapes([1] * 10 if program is histogram else [9], [0] * 10)()])


def test_a_record_tells_a_certificate_that_holds_from_one_that_stops(tmp_path):
    _, certificate = learn(lower, tapes([5, 9], [0, 0]))
    path = tmp_path / "c.json"
    path.write_text(certificate.to_json())
    assert npi.read_certificate(path).primitives["out"]["avoidable"] is True


@pytest.mark.parametrize("engine", ENGINES)
def test_a_domain_may_reach_over_64_bits(engine):
    far, near = (-(2**62), 7, 2**62), (-(2**62) - 3, 4, 2**62 - 3)
    make = tapes(far, [4] * 3, domains=(far, near))
    model, certificate = learn(lower, make)
    assert certificate.holds
    heads = make()
    npi.run(model, [heads], engine=engine)
    assert heads[1].tape.cells == list(near)
    for strange in (8, 2**62 - 1, -(2**63) + 1, 2**63 - 1):
        with pytest.raises(NpiError, match="outside of its domain"):
            npi.run(model, [tapes([strange], [4], domains=(None, near))()], engine=engine)


@pytest.mark.parametrize("engine", ENGINES)
def test_off_the_tape_is_said_as_a_plain_pointer_says_it(engine):
    model, _ = learn(lower, tapes([5, 9], [0, 0], domains=WIDER))
    plain, heads = tapes([5, 9, 8], [0, 0])(), tapes([5, 9, 8], [0, 0])()
    with pytest.raises(NpiError) as said:
        lower(*plain)
    with pytest.raises(NpiError) as found:
        npi.run(model, [heads], engine=engine)
    assert str(found.value) == str(said.value)


def one(p):
    return p.read() == 1


def either(p, q):
    if one(p):
        return True
    return one(q)


def any_one(p):
    while not p.at_end():
        if one(p):
            return True
        p.move(1)
    return False


def marks(p, q, out):
    if either(p, q):
        out.write(1)
    if any_one(p):
        out.write(out.read() + 2)


def test_a_helpers_answer_may_be_returned_on_one_way_and_not_on_another():
    model, certificate = learn(marks, tapes([1, 0], [0], [0]), tapes([0, 0], [1], [0]), tapes([0], [0], [0]))
    assert certificate.holds, certificate.not_proved
    for p, q in ([[1], [0]], [[0, 1], [1]], [[0, 0], [0]]):
        plain, heads = tapes(p, q, [0])(), tapes(p, q, [0])()
        marks(*plain)
        npi.run(model, [heads])
        assert heads[2].tape.cells == plain[2].tape.cells


def never(xs, out):
    """What only a value of 10 or more would do, and then something that no row of a possible way holds."""
    while not xs.at_end():
        x = xs.read()
        if x > 5:
            out.write(1)
            if x < 5:
                put(out, x * 7)
        xs.move(1)
        out.move(1)


def put(out, x):
    if x > 40:
        out.write(x - 3)
    else:
        out.write(0)


def test_a_way_that_no_values_take_is_learned_and_answers_nothing():
    model, certificate = learn(never, tapes([3, 7], [0, 0]))
    assert certificate.holds, certificate.not_proved
    assert certificate.total
    slots = [slot for slot, p in certificate.primitives.items() if p["refused"] == p["inputs"] == 1]
    assert slots, "sites behind `x < 5` are never asked"
    for slot in slots:
        with pytest.raises(NpiError, match="outside of its domain"):
            model.primitives[slot]((0,) * len(model.primitives[slot].domains))
