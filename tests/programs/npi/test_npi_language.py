"""What a program may not say is refused before it runs: each was, or could have been, proved as something else."""

import builtins
import functools
import random
from types import FunctionType

import pytest

from outsize.errors import NpiError
from outsize.programs import npi
from tests.programs.npi.refused import REFUSED, Evil

DIGITS = range(10)
CALLS, FLAG = [0], [False]
BASE = 3
_global_list = [1, 2]


def tapes(*lists, domain=DIGITS):
    return lambda: tuple(npi.Tape(values, domain=domain).at() for values in lists)


def learn(program, examples=None):
    return npi.parameterize(npi.trace(program, examples or [tapes([1, 2], [0, 0]), tapes([5], [5])]))


@pytest.mark.parametrize("program", REFUSED, ids=lambda p: p.__name__)
def test_what_a_program_cannot_mean_is_refused(program):
    with pytest.raises(NpiError, match=REFUSED[program]):
        learn(program)


def wrapped(function):
    @functools.wraps(function)
    def twice(*pointers):
        function(*(p.copy() for p in pointers))
        function(*pointers)

    return twice


@wrapped
def decorated(p, q):
    q.write((q.read() + 1) % 10)


def rebound(p, q):
    q.write(1)


ORIGINAL = rebound


def rebound(p, q):
    q.write(2)


@pytest.mark.parametrize("program", [decorated, functools.partial(rebound), functools.lru_cache(rebound)])
def test_what_is_not_the_function_itself_is_refused(program):
    with pytest.raises(NpiError, match=r"a decorator|plain Python function"):
        learn(program)


def test_text_that_is_not_what_runs_is_refused(tmp_path, monkeypatch):
    """The file is edited after it was imported."""
    path = tmp_path / "edited_program.py"
    path.write_text("def edited(p, q):\n    q.write(1)\n")
    monkeypatch.syspath_prepend(tmp_path)
    import edited_program

    learn(edited_program.edited)
    path.write_text("def edited(p, q):\n    q.write(2)  # longer\n")
    with pytest.raises(NpiError, match="not what runs"):
        learn(edited_program.edited)


def takes_the_least(p, q):
    q.write(min(p.read(), q.read()))


@pytest.mark.parametrize("other", [max, lambda x, y: 3])
def test_a_replaced_builtin_is_refused(other):
    learn(takes_the_least)
    around = {**globals(), "__builtins__": {**vars(builtins), "min": other}}
    with pytest.raises(NpiError, match="min, which was replaced"):
        learn(FunctionType(takes_the_least.__code__, around))


def test_the_code_of_a_function_is_what_counts():
    """Another function's code under its name."""

    def loops(p, q):
        while not p.at_end():
            p.move(1)

    def renamed(p, q):
        q.write(1)

    renamed.__code__ = loops.__code__
    assert [r.program for r in learn(renamed).closure.rows] == ["renamed", "loops_while1", "loops_while1"]


def test_a_program_without_source_is_refused():
    space = {}
    exec("def unseen(p, q):\n    q.write(1)\n", space)
    with pytest.raises(NpiError, match="source cannot be read"):
        learn(space["unseen"])


# -- data functions


def counts(x):
    CALLS[0] += 1
    return x


def remembers(x, seen=[]):  # noqa: B006
    seen.append(x)
    return len(seen) % 10


def flips(x):
    return x if FLAG[0] else 0


def flags(x):
    FLAG[0] = True
    return x


def rolls(x):
    return random.randrange(2)


def hashes(x):
    return hash("a") % 10


def says(x):
    print(x)
    return x


def attributes(x):
    says.last = x
    return x


def assigns_an_outer_name(x):
    global BASE
    BASE += 1
    return x


def half(x):
    return x / 2


def nothing(x):
    return None if x > 5 else x


def text(x):
    return str(x)


def a_subclass(x):
    return Evil(x)


def grows_a_table(x):
    _global_list.append(x)
    return len(_global_list) % 10


def opens(x):
    return len(open(__file__).read()) % 10


def through_a_helper(x):
    return counts(x)


IMPURE = {
    counts: "assignment into CALLS", remembers: "a default of type list", flags: "assignment into FLAG",
    rolls: "the module random", hashes: "`hash`", says: "`print`", attributes: r"assignment to \.last",
    assigns_an_outer_name: "the outer name BASE", half: r"half\(1\) answers 0.5", nothing: r"nothing\(6\) answers None",
    text: "answers '1'", a_subclass: "Evil", grows_a_table: r"\.append of an outer name", opens: "`open`",
    through_a_helper: "assignment into CALLS",
}  # fmt: skip


@pytest.mark.parametrize("function", IMPURE, ids=lambda f: f.__name__)
def test_a_data_function_answers_by_its_arguments_alone(function):
    choose(function)
    with pytest.raises(NpiError, match=IMPURE[function]):
        [site.pairs(1_000) for site in learn(uses).sites.values()]


def uses(p, q):
    while not p.at_end():
        q.write(CHOSEN(p.read()))
        p.move(1)
        q.move(1)


def choose(function):
    global CHOSEN
    CHOSEN = function


CHOSEN = half


def test_a_table_that_changes_after_the_trace_is_noticed():
    choose(flips)
    template = learn(uses, [tapes([1, 2], [0, 0])])
    template.check_unchanged()
    FLAG[0] = True
    try:
        with pytest.raises(NpiError, match="changed since it was traced"):
            template.check_unchanged()
    finally:
        FLAG[0] = False
    choose(half)
    with pytest.raises(NpiError, match="changed since it was traced"):
        template.check_unchanged()
