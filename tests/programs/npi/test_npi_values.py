"""Values in variables: carried from round to round, passed to helpers, returned by them; what it means for the proof."""

import random
import sys
from pathlib import Path

import pytest

from outsize.errors import NpiError
from outsize.native import available
from outsize.programs import npi
from outsize.programs.npi.machine import UNPROVED_STEPS

sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks" / "npi-tasks"))
import lists as LISTS
import numbers_ as NUMBERS
import structures as STRUCTURES

sys.path.insert(0, str(Path(__file__).parents[3] / "examples"))
import npi_notebook as NOTEBOOK

DIGITS, BITS = range(10), range(2)
ENGINES = ("network", "tables", "native") if available() else ("network", "tables")
TASKS = {task.name: task for task in (*LISTS.TASKS, *NUMBERS.TASKS, *STRUCTURES.TASKS)}


def tapes(*lists, domains=(DIGITS, DIGITS)):
    return lambda: tuple(npi.Tape(values, domain=d).at() for values, d in zip(lists, domains))


def learn(program, examples):
    template = npi.parameterize(npi.trace(program, examples))
    model = npi.train(template)
    return template, model, npi.verify(template, model)


def agrees(program, model, problems):
    """Plain program and model, on every engine."""
    for engine in ENGINES:
        for make in problems:
            plain, heads = make(), make()
            program(*plain)
            npi.run(model, [heads], engine=engine)
            assert [(h.tape.cells, h.position) for h in heads] == [(h.tape.cells, h.position) for h in plain]


def random_tapes(count):
    source = random.Random(5)
    return [tapes(source.choices(DIGITS, k=source.randint(1, 7)), [0] * 8) for _ in range(count)]


def found_later(p, q):
    found = False
    while not p.at_end():
        if p.read() == 3:
            found = True
        p.move(1)
    if found:
        q.write(1)


def last_seen(p, q):
    x = 7
    for y in p:
        x = y
    q.write(x)


def biggest(p):
    best = p.read()
    for x in p:
        if x > best:
            best = x
    return best


def biggest_of_rest(p, q):
    while not p.at_end():
        q.write(biggest(p.copy()))
        p.move(1)
        q.move(1)


def put(q, x):
    q.write((x + 1) % 10)
    q.move(1)


def through_a_helper(p, q):
    for x in p:
        put(q, x * 2)


def add_up(p):
    if p.at_end():
        return 0
    x = p.read()
    p.move(1)
    return (x + add_up(p)) % 10


def by_recursion(p, q):
    q.write(add_up(p))


def has_three(p):  # noqa: RET503
    for x in p:
        if x == 3:
            return True


def only_true(p, q):
    if has_three(p):
        q.write(1)
    else:
        q.write(2)


def nested_return(p, q):
    """Leaves two loops at once."""
    while not p.at_end():
        r = p.copy()
        r.move(1)
        for y in r:
            if y == p.read():
                q.write(y)
                return
        p.move(1)
    q.write(9)


def compares(p, q):
    last = 5
    for x in p:
        if x < last:
            q.write(1)
        elif x == last:
            q.write(2)
        elif x > last:
            q.write(3)
        last = x
        q.move(1)


def jumps(p, q):
    total = 0
    for x in p:
        if x == 0:
            continue
        if x == 9:
            break
        total = (total + x) % 10
    else:
        q.move(1)
    q.write(total)


PROGRAMS = [found_later, last_seen, biggest_of_rest, through_a_helper, by_recursion, only_true, nested_return, compares,
            jumps]  # fmt: skip


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda p: p.__name__)
def test_a_program_with_variables_is_proved_from_one_example(program):
    _, model, certificate = learn(program, [tapes([3, 1], [0] * 8)])
    assert certificate.holds, certificate.not_proved
    agrees(program, model, random_tapes(12))


def test_a_way_that_no_values_take_needs_no_example():
    template, _, _ = learn(compares, [tapes([3, 1], [0] * 8)])
    assert len(template.closure.impossible) == 1
    assert template.uncovered == ()


@pytest.mark.parametrize(
    "name", ["Euclid", "gcd by subtraction", "collatz", "fizzbuzz", "bracket matching", "insertion sort"]
)
def test_tasks_of_the_benchmark_are_proved_at_the_first_attempt(name):
    task = TASKS[name]
    _, model, certificate = learn(task.program, [lambda x=x: task.heads(x) for x in task.lessons])
    assert certificate.holds, certificate.not_proved
    source = random.Random(2)
    for _ in range(20):
        problem = task.sample(source)
        heads = task.heads(problem)
        npi.run(model, [heads])
        assert task.result(heads) == task.oracle(*problem)


def stuck(a, b):
    """Euclid by subtraction where one number may be 0: then it never ends."""
    x, y = a.read(), b.read()
    while x != y:
        if x > y:
            x -= y
        else:
            y -= x
    a.write(x)


@pytest.mark.parametrize(("low", "proved"), [(0, False), (1, True)])
def test_values_are_measures_only_where_they_shrink(low, proved):
    domain = range(low, 12)
    _, _, certificate = learn(stuck, [tapes([8], [6], domains=[domain, domain])])
    assert certificate.termination.proved is proved
    assert certificate.holds is proved


def circles(a, b):
    x = a.read()
    while x != 3:
        x = (x + 2) % 10
    b.write(x)


def test_a_value_that_goes_round_is_no_measure():
    _, _, certificate = learn(circles, [tapes([1], [0])])
    assert not certificate.holds
    assert certificate.termination.open == ("circles_while1",)


def shared(a, b):
    """Counts a down through another pointer: with both on one tape it would count itself up again."""
    while a.read() > 0:
        a.write(a.read() - 1)
        b.write(9)


def test_cells_are_measures_only_as_far_as_nobody_else_writes_them(monkeypatch):
    """With both pointers on one tape the count is set back in every round, so nothing is promised of that."""
    _, model, certificate = learn(shared, [tapes([3], [0])])
    assert certificate.holds
    assert certificate.layouts == ((0, 1),)
    monkeypatch.setitem(UNPROVED_STEPS, "tables", 1_000)
    tape = npi.Tape([3], domain=DIGITS)
    with pytest.raises(NpiError, match="not ended"):
        npi.run(model.certified(certificate), [(tape.at(), tape.at())], engine="tables")


def counts_up(p, q):
    n = 0
    for x in p:
        if x == 0:
            n += 1
    q.write(n)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_count_ends_with_an_error_and_never_wraps(engine):
    _, model, certificate = learn(counts_up, [tapes([0, 1], [0], domains=[DIGITS, range(400)])])
    assert certificate.holds
    for n, fits in ((399, True), (400, False)):
        heads = tapes([0] * n, [0], domains=[DIGITS, range(400)])()
        if fits:
            npi.run(model, [heads], engine=engine)
            assert heads[1].tape.cells == [n]
        else:
            with pytest.raises(NpiError, match="outside of its domain"):
                npi.run(model, [heads], engine=engine)


def sometimes(p):  # noqa: RET503
    if p.read() == 3:
        return p.read()


def misused(p, q):
    q.write(sometimes(p))


def maybe(p):  # noqa: RET503
    if p.read() == 3:
        return True


def kept_as_a_value(p, q):
    x = maybe(p)
    q.write(x)


@pytest.mark.parametrize(
    ("program", "says"), [(misused, "returns no value here"), (kept_as_a_value, "only its truth|None")]
)
def test_nothing_is_not_a_value(program, says):
    with pytest.raises(NpiError, match=says):
        learn(program, [tapes([3], [0])])


def test_decisions_print_with_their_values():
    _, model, _ = learn(biggest_of_rest, [tapes([3, 1], [0] * 8)])
    names = {"slots": {}}
    exec(npi.to_python(model.controller), names)
    names["slots"].update({slot: lambda *v, m=m: m(v) for slot, m in model.primitives.items()})
    for make in random_tapes(5):
        plain, heads = make(), make()
        biggest_of_rest(*plain)
        names["biggest_of_rest"](*heads)
        assert heads[1].tape.cells == plain[1].tape.cells


def test_the_notebook_goes_from_a_trace_to_a_certificate_to_a_swap(capsys):
    NOTEBOOK.main()
    said = capsys.readouterr().out
    assert "test better(v1, v0); [yes]" in said
    assert "so the model equals best_of on inputs of every length" in said
    assert said.rstrip().splitlines()[-1].endswith(": 3")


def jumps_in_else(p, q):
    """A `break` and a `continue` after a loop that was not left belong to the loop around it."""
    total = 0
    while not p.at_end():
        r = p.copy()
        p.move(1)
        n = 2
        while n > 0:
            if r.at_end() or r.read() == 3:
                break
            r.move(1)
            n -= 1
        else:
            total = (total + 1) % 10
            if total > 3:
                break
            continue
        total = (total + 2) % 10
    q.write(total)


def test_jumps_in_the_else_of_a_loop_are_those_of_the_loop_around():
    _, model, certificate = learn(jumps_in_else, [tapes([3, 1, 4, 1], [0] * 8)])
    assert certificate.holds, certificate.not_proved
    agrees(jumps_in_else, model, random_tapes(12))
