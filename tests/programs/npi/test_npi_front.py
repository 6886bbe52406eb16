"""From an ordinary program to a template: log, tuples, primitives, loops, refusals."""

import random

import pytest

from outsize.errors import NpiError
from outsize.programs import npi
from outsize.programs.npi.calls import Action, Row, Step
from outsize.programs.npi.closure import check_consistent

DIGITS = range(10)


def carry(x, y, c):
    return (x + y + c) // 10


def plus(a, b, c, out):
    while not a.at_start():
        x, y, z = a.read(), b.read(), c.read()
        out.write((x + y + z) % 10)
        c.write(carry(x, y, z))
        a.move(-1)
        b.move(-1)
        out.move(-1)
    out.write(c.read())


def plus_example(a, b):
    def make():
        tapes = [npi.Tape(map(int, s), domain=DIGITS) for s in (a, b, "0" * (len(a) + 1))]
        return tapes[0].at_last(), tapes[1].at_last(), npi.Tape([0], domain=range(2)).at(), tapes[2].at_last()

    return make


@pytest.fixture(scope="module")
def template():
    return npi.parameterize(npi.trace(plus, [plus_example("95", "17")]))


def test_the_plain_program_runs_as_it_is():
    heads = plus_example("95", "17")()
    plus(*heads)
    assert heads[3].tape.cells == [1, 1, 2]


def test_data_assignments_become_primitives_and_no_datum_is_left(template):
    assert {s.name: s.text for s in template.sites.values()} == {
        "out": "(((x0 + x1) + x2) % 10)",
        "carry": "carry(x0, x1, x2)",
    }
    v = template.vocabulary
    assert v.slots == ("", "carry", "copy", "out")
    assert all(o[0] in "pv" for operands in v.tuples for o in operands)
    assert not any(c.isdigit() for key in v.keys for c in key.replace("plus_while1", ""))


def test_the_loop_is_a_call_of_its_own_that_ends_by_calling_itself(template):
    body = max((r for r in template.rows if r.program == "plus_while1"), key=lambda r: len(r.steps))
    assert str(body) == (
        "plus_while1: at start(p0); [no] read(p0, p1, p2); write out(p3, v0, v1, v2); "
        "write carry(p2, v0, v1, v2); left(p0, p1, p3); tail plus_while1(p0, p1, p2, p3)"
    )


def test_primitive_data_are_the_whole_domain(template):
    data, whole = template.sites["carry"].pairs(1_000)
    assert whole
    assert data == {(x, y, c): (x + y + c) // 10 for x in DIGITS for y in DIGITS for c in (0, 1)}


def test_the_closure_is_what_the_traces_show(template):
    assert template.uncovered == ()
    assert len(template.closure.rows) == 3


def test_two_programs_of_one_template_have_one_fingerprint():
    assert npi.template_of("addition").fingerprint() == npi.template_of("subtraction").fingerprint()
    assert npi.template_of("addition").fingerprint() != npi.template_of("map").fingerprint()


def example(*lists, domain=None):
    return lambda: tuple(npi.Tape(values, domain=domain).at() for values in lists)


def index(p, q):
    for _ in range(p.read()):
        q.move(1)


def by_table(p, q):
    q.write([7, 8, 9][p.read()])


def randomly(p):
    if random.random() < 0.5:
        p.move(1)


def twice(p):
    if p.at_end():
        return
    helper(p, p)


def helper(p, q):
    q.move(1)


def endless(p):
    p.move(1)
    endless(p)


def unreached(p):
    if p.read() > 5:
        p.write(p.read() + 1)


@pytest.mark.parametrize(
    ("program", "lists", "says"),
    [
        (index, ([2], [0, 0, 0]), r"unbounded value.*read at test_npi_front.py:\d+"),
        (by_table, ([2], [0]), "unbounded value"),
        (twice, ([1, 2],), "same pointer twice"),
        (endless, ([1],), "off the tape|ever returns"),
        (unreached, ([1],), "no example reaches"),
        (randomly, ([1],), r"random\.random at line \d+.*function of the values"),
    ],
)
def test_programs_that_cannot_be_templates_are_refused(program, lists, says):
    with pytest.raises(NpiError, match=says):
        npi.parameterize(npi.trace(program, [example(*lists)]))


def test_contradicting_traces_are_refused():
    right, left = (Row("f", (Step(0, Action(key, ("p0",))),)) for key in ("right", "left"))
    with pytest.raises(NpiError, match="contradict"):
        check_consistent([right, left])


def test_no_example_is_refused():
    with pytest.raises(NpiError, match="no example"):
        npi.trace(plus, [])


def test_a_lambda_of_pointers_is_not_needed_but_a_class_is_refused():
    with pytest.raises(NpiError, match="plain Python function"):
        npi.trace(dict, [example([1])])


def first_big(p):
    while not p.at_end():
        if p.read() > 5:
            return True
        p.move(1)
    return False


def finds(p, out):
    if first_big(p):
        out.write(1)
    else:
        out.write(0)


def test_a_returned_bit_is_an_observation_of_the_call():
    template = npi.parameterize(
        npi.trace(finds, [example([1, 9], [0], domain=DIGITS), example([1], [0], domain=DIGITS)])
    )
    rows = [str(r) for r in template.closure.rows if r.program == "finds"]
    assert rows == [
        "finds: call first_big(p0); [no] write out_2(p1); return()",
        "finds: call first_big(p0); [yes] write out(p1); return()",
    ]
    check_consistent(template.rows + template.closure.rows)


def with_jumps(p, out):
    while not p.at_end():
        x = p.read()
        p.move(1)
        if x == 0:
            continue
        if x == 9:
            break
        out.write(x)
        out.move(1)
    out.write(9)


def test_break_and_continue_survive_the_lifting():
    make = example([1, 0, 2, 9, 3], [0] * 6, domain=DIGITS)
    plain = make()
    with_jumps(*plain)
    rows_in = example([1, 0, 2], [0] * 4, domain=DIGITS)
    template = npi.parameterize(npi.trace(with_jumps, [make, rows_in]))
    model = npi.train(template)
    heads = make()
    npi.run(model, [heads])
    assert heads[1].tape.cells == plain[1].tape.cells == [1, 2, 9, 0, 0, 0]
    assert heads[0].position == plain[0].position
