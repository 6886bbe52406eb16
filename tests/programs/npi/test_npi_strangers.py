"""Programs of another hand: trace, parameterize, train, verify, run; and what they may not do."""

import itertools
import math
import random
import sys
from pathlib import Path

import pytest

from outsize.errors import NpiError, NpiWarning
from outsize.native import available
from outsize.programs import npi

DIGITS, BITS = range(10), range(2)
ENGINES = ("network", "tables", "native") if available() else ("network", "tables")


def tapes(*lists, domain=DIGITS):
    return lambda: tuple(npi.Tape(values, domain=domain).at() for values in lists)


def learn(program, examples):
    template = npi.parameterize(npi.trace(program, examples))
    model = npi.train(template)
    return model, npi.verify(template, model)


def run_lengths(xs, value, count):
    while not xs.at_end():
        value.write(xs.read())
        count.write(1)
        xs.move(1)
        while not xs.at_end() and xs.read() == value.read():
            count.write(count.read() + 1)
            xs.move(1)
        value.move(1)
        count.move(1)


def run_lengths_tapes(xs, most=50):
    empty = [0] * len(xs)
    return lambda: (
        npi.Tape(xs, domain=DIGITS).at(),
        npi.Tape(empty, domain=DIGITS).at(),
        npi.Tape(empty, domain=range(most)).at(),
    )


def balanced(text, depth, ok):
    ok.write(1)
    while not text.at_end():
        if text.read() == 1:
            depth.move(1)
        else:
            depth.move(-1)
            if depth.at_start():
                ok.write(0)
                return
        text.move(1)
    bottom = depth.copy()
    bottom.move(-1)
    if not bottom.at_start():
        ok.write(0)


def balanced_tapes(text):
    return lambda: (
        npi.Tape(text, domain=(1, 2)).at(),
        npi.Tape([0] * (len(text) + 1)).at(),
        npi.Tape([0], domain=BITS).at(),
    )


def is_balanced(text):
    depths = list(itertools.accumulate((3 - 2 * x for x in text), initial=0))
    return int(min(depths) >= 0 and depths[-1] == 0)


sys.path.insert(0, str(Path(__file__).parents[3] / "examples"))
import npi_rule110 as RULE110  # noqa: E402


def evolve(problem):
    cells, generations = [0, *problem[0], 0], problem[1]
    for _ in range(generations):
        cells = [0, *(RULE110.rule(*cells[i - 1 : i + 2]) for i in range(1, len(cells) - 1)), 0]
    return cells


def same(p, q):
    return p.read() == q.read()


def palindrome(first, last, out):
    while first.before(last):
        if not same(first, last):
            out.write(0)
            return
        first.move(1)
        last.move(-1)
    out.write(1)


def palindrome_tapes(xs):
    def make():
        tape = npi.Tape(xs, domain=DIGITS)
        return tape.at(), tape.at_last(), npi.Tape([0], domain=BITS).at()

    return make


def square(x):
    return x * x % 10


def common(x, y):
    while y:
        x, y = y, x % y
    return x


def apply_to(xs, function):
    while not xs.at_end():
        xs.write(function(xs.read()))
        xs.move(1)


def against(xs, number):
    ten = 10
    while not xs.at_end():
        xs.write(common(xs.read(), number) % ten)
        xs.move(1)


def pipeline(xs):
    apply_to(xs.copy(), square)
    against(xs.copy(), number=6)
    apply_to(xs.copy(), function=square)


def random_list(source, values, low=0, high=30):
    return source.choices(values, k=source.randint(low, high))


def half_palindrome(source):
    xs = random_list(source, range(3), 0, 9)
    return xs + xs[::-1] if source.random() < 0.5 else xs


PROGRAMS = {
    "run lengths": (
        run_lengths, run_lengths_tapes, ([1, 1, 2], [], [3] * 5), lambda s: random_list(s, range(3)),
        lambda h: list(zip(h[1].tape.cells, h[2].tape.cells))[: h[1].position],
        lambda xs: [(k, len(list(g))) for k, g in itertools.groupby(xs)],
    ),
    "parentheses": (
        balanced, balanced_tapes, ([1, 2], [2], [1], []), lambda s: random_list(s, (1, 2), 0, 12),
        lambda h: h[2].tape.cells[0], is_balanced,
    ),
    "rule 110": (
        RULE110.automaton, lambda problem: RULE110.tapes(*problem), (([1, 0, 1], 2), ([1], 0)),
        lambda s: (random_list(s, BITS, 1, 20), s.randint(0, 9)), lambda h: h[0].tape.cells, evolve,
    ),
    "palindrome": (
        palindrome, palindrome_tapes, ([1, 2, 1], [1, 2], []), half_palindrome,
        lambda h: h[2].tape.cells[0], lambda xs: int(xs == xs[::-1]),
    ),
    "functions and constants as arguments": (
        pipeline, tapes, ([1, 2],), lambda s: random_list(s, DIGITS), lambda h: h[0].tape.cells,
        lambda xs: [square(math.gcd(square(x), 6) % 10) for x in xs],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_new_program_is_learned_and_proved(name):
    program, encode, lessons, sample, decode, want = PROGRAMS[name]
    model, certificate = learn(program, [encode(lesson) for lesson in lessons])
    assert certificate.holds, certificate.not_proved
    assert any("inputs of every length" in fact for fact in certificate.proved)
    source = random.Random(1)
    problems = [sample(source) for _ in range(40)]
    for engine in ENGINES:
        heads = [encode(problem)() for problem in problems]
        npi.run(model, heads, engine=engine)
        assert [decode(h) for h in heads] == [want(p) for p in problems]


def test_the_example_prints_the_automaton(capsys):
    RULE110.main()
    want = ["".join(" #"[cell] for cell in evolve(([0] * 47 + [1], n))) for n in range(16)]
    lines = capsys.readouterr().out.splitlines()
    assert lines[-16:] == want
    assert "so the model equals automaton on inputs of every length" in lines


def reciprocal(xs, out):
    while not xs.at_end():
        out.write(6 // xs.read())
        xs.move(1)
        out.move(1)


@pytest.mark.parametrize("engine", ENGINES)
def test_inputs_without_an_answer_are_refused_and_counted(engine):
    model, certificate = learn(reciprocal, [tapes([4], [0])])
    assert not certificate.holds
    assert certificate.primitives["out"]["refused"] == 1
    assert any(
        "that it answers where out is given (0): the program's expression fails" in f
        for f in certificate.not_proved
    )
    assert any("1 have no answer" in fact for fact in certificate.proved)
    heads = tapes([1, 2, 9], [0] * 3)()
    npi.run(model, [heads], engine=engine)
    assert heads[1].tape.cells == [6, 3, 0]
    with pytest.raises(NpiError, match=r"primitive out is called on .*0.*outside of its domain"):
        npi.run(model, [tapes([1, 0], [0] * 2)()], engine=engine)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_count_that_no_longer_fits_its_tape_is_an_error(engine):
    model, certificate = learn(run_lengths, [run_lengths_tapes(xs, 9) for xs in ([1, 1, 2], [], [3] * 5)])
    assert certificate.holds
    npi.run(model, [run_lengths_tapes([4] * 8, 9)()], engine=engine)
    with pytest.raises(NpiError, match="outside of its domain"):
        npi.run(model, [run_lengths_tapes([4] * 9, 9)()], engine=engine)


def tally(xs, bins):
    while not xs.at_end():
        bins.seek(xs.read())
        bins.write(bins.read() + 1)
        xs.move(1)


def test_without_a_domain_what_was_never_seen_is_an_error_and_the_rest_a_warning():
    def example(xs, count=0):
        return lambda: (npi.Tape(xs, domain=DIGITS).at(), npi.Tape([count] * 10).at())

    model, certificate = learn(tally, [example([1, 2, 1] + [3] * 20)])
    assert not any("every length" in fact for fact in certificate.proved)
    with (
        pytest.warns(NpiWarning, match="bins may answer wrongly"),
        pytest.raises(NpiError, match="from 0 to 19"),
    ):
        npi.run(model, [example([5], 25)()])


def test_ways_that_the_examples_do_not_show_are_looked_for():
    traces = npi.trace(palindrome, [palindrome_tapes([1, 2]), palindrome_tapes([])])
    template = npi.parameterize(traces)
    assert len(set(template.closure.rows) - set(traces.rows)) == 2
    assert template.uncovered == ()
    assert len(template.traces.examples) > 2
    assert npi.verify(template, npi.train(template)).holds


def test_executions_bring_the_pointers_that_the_program_takes():
    model = npi.shipped("map")
    head = npi.Tape([1]).at()
    for heads in ((head,), (head, head), (head, npi.Tape([0]).at(), npi.Tape([0]).at())):
        with pytest.raises(NpiError, match="map takes 2 different pointers"):
            npi.run(model, [heads])
    with pytest.raises(NpiError, match="64 bits"):
        npi.run(npi.shipped("reverse"), [(npi.Tape([1 << 70]).at(), npi.Tape([]).at())])


def positions(p, q):
    q.write(p.position)


def halves(p, q):
    q.write(p.read() / 2)


def as_text(p, q):
    q.write(int(f"{p.read()}"))


def huge(p, q):
    q.write(p.read() << 70)


def counted(p, n):
    if not p.at_end():
        p.move(1)
        counted(p, n + 1)


def counts(p, q):
    counted(p, 0)


def inner(p, q):
    def helper(a):
        while not a.at_end():
            a.move(1)

    helper(p)


@pytest.mark.parametrize(
    ("program", "says"),
    [
        (positions, r"positions \(test_npi_strangers.py:\d+\) uses \.position at line \d+"),
        (halves, r"use `//`"),
        (as_text, r"uses an f-string at line \d+"),
        (huge, r"more than 64 bits"),
        (counts, r"more than 64 different constants"),
        (inner, r"defined inside of another function at line \d+"),
    ],
)
def test_what_a_program_may_not_do_is_said(program, says):
    with pytest.raises(NpiError, match=says):
        learn(program, [tapes([3] * 600, [0], domain=None)])
