"""Programs that Python runs and the language does not have, each with what must be said of it."""

import contextlib
import math
import random
import time
from enum import IntEnum

import numpy as np

from outsize.errors import NpiError
from outsize.programs import npi

DIGITS = range(10)
CALLS, FLAG, SEEN = [0], [False], {}
HEAD = npi.Tape([1, 2, 3], domain=DIGITS).at()
BASE = 3
OPTIONS = {}
_global_list = [1, 2]


class Color(IntEnum):
    RED = 1


class Evil(int):
    def __add__(self, other):
        return 7

    __radd__ = __add__


EVIL, HALF, NUMPY = Evil(2), 0.5, np.int64(3)


def a_global_counter(p, q):
    global BASE
    BASE = 4
    q.write(BASE)


def an_outer_list(p, q):
    CALLS[0] = CALLS[0] + 1
    q.write(1)


def an_outer_list_is_read(p, q):
    if FLAG[0]:
        q.write(1)


def an_outer_table_grows(p, q):
    SEEN.update(a=1)
    q.write(1)


def an_attribute(p, q):
    p.seen = True
    q.write(1)


def an_attribute_is_read(p, q):
    q.write(p.position)


def the_tape_itself(p, q):
    q.write(len(p.tape))


def a_bound_method(p, q):
    go = q.move
    go(1)


def an_outer_pointer(p, q):
    q.write(HEAD.read())


def an_outer_object(p, q):
    q.write(EVIL)


def an_enum(p, q):
    q.write(Color.RED)


def a_numpy_integer(p, q):
    q.write(NUMPY)


def a_class(p, q):
    class Count:
        n = 0

    q.write(Count.n)


def identity(p, q):
    x = p.read()
    if x is True:
        q.write(1)


def identity_of_values(p, q):
    x, y = p.read(), q.read()
    if x is y:
        q.write(1)


def identity_after_a_loop(p, q):
    found = None
    while not p.at_end():
        found = p.copy()
        p.move(1)
    if found is not None:
        q.write(1)


def as_text(p, q):
    if str(p.read()) == "1":
        q.write(1)


def formatted(p, q):
    if f"{p.read()}" == "1":
        q.write(1)


def percent(p, q):
    q.write(len("%d" % p.read()))  # noqa: UP031


def a_type(p, q):
    q.write(1 if type(p.read()) == int else 0)  # noqa: E721


def an_instance(p, q):
    q.write(p.read() if isinstance(p.read(), int) else 0)


def hashed(p, q):
    q.write(hash(p.read()))


def in_a_dictionary(p, q):
    q.write({1: 3, 5: 4}[p.read()])


def in_a_set(p, q):
    if p.read() in {1, 2}:
        q.write(1)


def raises(p, q):
    if p.read() > 8:
        raise ValueError("too big")
    q.write(1)


def asserts(p, q):
    assert p.read() < 9
    q.write(1)


def tries(p, q):
    try:
        p.move(1)
    except NpiError:
        q.write(1)


def with_a_context(p, q):
    with contextlib.nullcontext():
        q.write(1)


def deletes(p, q):
    x = p.read()
    q.write(x)
    del x


def walrus(p, q):
    while (x := p.read()) != 5:
        p.move(1)
    q.write(x)


def walrus_in_a_test(p, q):
    if (y := p.read()) > 3:
        q.write(y)


def walrus_in_a_comprehension(p, q):
    if any((last := h.read()) > 3 for h in (p, q)):
        q.write(last)


def a_lambda(p, q):
    add = lambda x: x + 1  # noqa: E731
    q.write(add(p.read()) % 10)


def inner_function(p, q):
    def add(x):
        return x + 1

    q.write(add(p.read()) % 10)


def a_generator_function(p, q):
    yield p.read()


def a_kept_generator(p, q):
    rest = (h.read() for h in (p, q))
    p.move(1)
    q.write(max(rest))


def imports(p, q):
    import math as m

    q.write(m.factorial(3))


def through_a_module(p, q):
    q.write(math.gcd(p.read(), 6))


def by_chance(p, q):
    q.write(random.randrange(2))


def by_time(p, q):
    q.write(int(time.time()) % 2)


def prints(p, q):
    print(p.read())
    q.write(1)


def a_star(p, q):
    pair = (p, q)
    copy_first(*pair)


def two_stars(p, q):
    copy_first(**OPTIONS)


def copy_first(a, b):
    b.write(a.read())


def keyword_only(p, q):
    only(p, k=q)


def only(a, *, k):
    k.write(a.read())


def positional_only(a, b, /):
    b.write(a.read())


def many(*pointers):
    pointers[1].write(pointers[0].read())


def keeps_a_list(p, q, kept=[]):  # noqa: B006
    kept += [1]
    if len(kept) > 3:
        q.write(1)


def a_class_pattern(p, q):
    match p.read():
        case int(n) if n > 2:
            q.write(1)
        case _:
            q.write(0)


def a_capture_pattern(p, q):
    match p.read():
        case n:
            q.write(n)


def a_true_pattern(p, q):
    match p.read():
        case True:
            q.write(1)
        case _:
            q.write(0)


def divides(p, q):
    q.write(p.read() / 2)


def to_the_power(p, q):
    q.write(p.read() ** 2 % 10)


def a_name_of_later(p, q):
    q.write(_not_defined)  # noqa: F821


def a_private_name(p, q):
    q.write(len(__name__))


def mapped(p, q):
    for x in map(abs, (p.read(),)):
        q.write(x)


async def asynchronous(p, q):
    q.write(1)


def a_float(p, q):
    q.write(HALF)


def star_target(p, q):
    first, *rest = (p, q)
    rest[0].write(first.read())


def a_subscript_target(p, q):
    pair = [p, q]
    pair[0] = q
    pair[0].write(1)


def before_it_is_set(p, q):
    for _k in (1, 2):
        while not p.at_end():
            q.write(_later.read())  # noqa: F823
            p.move(1)
        _later = p.copy()


_later = 3

REFUSED = {
    a_global_counter: "assigns|global", an_outer_list: "assignment into an object", an_outer_list_is_read: "FLAG",
    an_outer_table_grows: "SEEN.update", an_attribute: "assignment into an object", an_attribute_is_read: r"\.position",
    the_tape_itself: r"\.tape", a_bound_method: r"\.move", an_outer_pointer: "HEAD", an_outer_object: "EVIL.*Evil",
    an_enum: r"\.RED", a_numpy_integer: "NUMPY", a_class: "a class", identity: "`is`", identity_of_values: "`is`",
    identity_after_a_loop: "`is not`", as_text: "`str`", formatted: "f-string",
    percent: "unbounded value", a_type: "`type`", an_instance: "`isinstance`", hashed: "`hash`",
    in_a_dictionary: "dictionary", in_a_set: "a set", raises: "`raise`", asserts: "`assert`", tries: "`try`",
    with_a_context: "`with`", deletes: "`del`", walrus: "`:=`", walrus_in_a_test: "`:=`",
    walrus_in_a_comprehension: "`:=`", a_lambda: "lambda", inner_function: "inside of another function",
    a_generator_function: "`yield`", a_kept_generator: "generator that is kept", imports: "an import",
    through_a_module: "math.gcd.*function of the values", by_chance: "random.randrange", by_time: r"time\.time",
    prints: "`print`", a_star: r"`\*`", two_stars: r"`\*\*`", keyword_only: "among its parameters",
    positional_only: "among its parameters", many: "among its parameters", keeps_a_list: "a default of type list",
    a_class_pattern: "class pattern", a_capture_pattern: "pattern other", a_true_pattern: "asks for identity",
    divides: "`/`.*use `//`", to_the_power: r"`\*\*`.*multiply", a_name_of_later: "not defined",
    a_private_name: "__name__", mapped: "`map`", asynchronous: "coroutine|no function|holds more", a_float: "0.5",
    star_target: r"`\*`", a_subscript_target: "assignment into an object", before_it_is_set: "_later before it",
}  # fmt: skip
