"""Odd corners of Python that a program over pointers may use."""

from math import gcd

ONE, PAIR, NEGATIVE = 1, (3, 7), -4


def inc(x):
    return (x + 1) % 10


up, down = (lambda x: (x + 1) % 10), (lambda x: (x - 1) % 10)
is_even, is_big = (lambda x: x % 2 == 0), (lambda x: x > 5)


def adder(n):
    def add(x):
        return (x + n) % 10

    return add


plus1, plus2 = adder(1), adder(2)
FUNCTIONS = (inc, plus2)


def copy(x):
    return (x * 3) % 10


def read(x):
    return (x * 7) % 10


def aliases_while1(x):
    return (x + 5) % 10


def scale(x, k):
    return int(x * k)


def opt(x, y, op="+"):
    return (x + y) % 10 if op == "+" else (x * y) % 10


def minus(x, y, *, times=1):
    return (x - y) * times % 10


def total(*values):
    return sum(values) % 10


def compare(x, y):
    return x.bit_count() > y.bit_count()


def apply(function, x):
    return function(x)


def common(x, y):
    return gcd(x, y) % 10


def text(x):
    return len(str(x * x))


def each(p, q, body):
    while not p.at_end() and not q.at_end():
        q.write(body(p.read(), q.read()))
        p.move(1)
        q.move(1)


def a_pointer_called_copy(copy, out):
    while not copy.at_end():
        if out.at_end():
            return
        out.write(inc(copy.read()))
        copy.move(1)
        out.move(1)


def a_function_called_copy(p, q):
    if not p.at_end() and not q.at_end():
        r = p.copy()
        q.write(copy(r.read()))
        q.write(read(q.read()))


def lambdas_on_one_line(p, q):
    while not p.at_end():
        x = p.read()
        p.write(up(x) if is_big(x) else down(x))
        if is_even(x) and is_big(x):
            p.write(x)
        p.move(1)


def closures_of_one_name(p, q):
    while not p.at_end():
        p.write(plus1(p.read()) if p.read() < 5 else plus2(p.read()))
        p.move(1)


def a_function_called_like_a_loop(p, q):
    while not p.at_end():
        p.write(aliases_while1(p.read()))
        p.move(1)


def constants_are_kept_as_they_are(p, q):
    half = 0.5
    while not p.at_end():
        p.write(scale(p.read(), half))
        p.write(opt(p.read(), 3, "+"))
        p.write(opt(p.read(), 3, op="*"))
        p.move(1)


def keywords_in_any_order(p, q):
    while not p.at_end() and not q.at_end():
        a, b = p.read(), q.read()
        q.write(minus(y=a, x=b))
        p.write(minus(times=3, y=b, x=a))
        p.move(1)
        q.move(1)


def any_number_of_values(p, q):
    if not p.at_end() and not q.at_end():
        q.write(total(p.read(), q.read(), 3))


def functions_as_arguments(p, q):
    each(p.copy(), q.copy(), opt)
    each(q, p, body=common)


def functions_of_functions(p, q):
    while not p.at_end():
        p.write(apply(inc, p.read()))
        p.move(1)


def a_tuple_of_functions(p, q):
    while not p.at_end():
        for function in FUNCTIONS:
            p.write(function(p.read()))
        p.move(1)


def text_inside_of_a_data_function(p, q):
    while not p.at_end():
        p.write(text(p.read()))
        p.move(1)


def chained_comparisons(p, q):
    while not p.at_end() and not q.at_end():
        if 1 < p.read() <= q.read() != 7:
            q.write(0)
        p.move(1)
        q.move(1)


def short_circuits(p, q):
    while not p.at_end():
        if q.at_end() or q.read() == 3 or not is_big(p.read()):
            p.write(0)
        p.move(1)


def values_by_and_and_or(p, q):
    while not p.at_end() and not q.at_end():
        x, y = p.read(), q.read()
        p.write(x and y)
        q.write(x or y)
        p.move(1)
        q.move(1)


def least_and_largest(p, q):
    while not p.at_end() and not q.at_end():
        x, y = p.read(), q.read()
        p.write(min(x, y, 5))
        q.write(sorted((x, y), key=copy)[1])
        p.move(1)
        q.move(1)


def answers_as_numbers(p, q):
    while not p.at_end():
        x = p.read()
        p.write((x > 3) + (x > 6) * 2)
        p.move(1)


def over_many_pointers(p, q):
    while not any(h.at_end() for h in (p, q)):
        if all(is_big(h.read()) for h in (p, q)):
            p.write(sum(h.read() for h in (p, q)) % 10)
        for h in (p, q):
            h.move(1)


def a_loop_that_else_follows(p, q):
    while not p.at_end():
        for k in (1, 2):
            if p.read() == k:
                break
        else:
            p.write(9)
        p.move(1)


def a_jump_in_an_else(p, q):
    while not p.at_end():
        x = p.read()
        p.move(1)
        for k in PAIR:
            if x == k:
                break
        else:
            continue
        if q.at_end():
            break
        q.write(x)
        q.move(1)


def constant_patterns(p, q):
    while not p.at_end():
        match p.read():
            case 0 | 1:
                p.write(5)
            case 2 if not q.at_end():
                p.write(q.read())
            case _:
                p.write(ONE)
        p.move(1)


def a_loop_in_a_pattern(p, q):
    if p.at_end():
        return
    match p.read():
        case 1:
            while not q.at_end():
                q.write(0)
                q.move(1)
        case _:
            q.move(0)


def a_pointer_chosen_by_a_test(p, q):
    if p.at_end() or q.at_end():
        return
    r = p if p.read() > q.read() else q
    while not r.at_end():
        r.write(0)
        r.move(1)


def one_pointer_two_names(p, q):
    r = p
    if not r.at_end():
        r.move(1)
    if not p.at_end():
        p.write(7)


def backwards(p, q):
    while not p.at_end():
        p.move(1)
    p.move(-1)
    while not p.at_start():
        p.write((p.read() + NEGATIVE) % 10)
        p.move(-1)


def flags(p, q):
    if finds(p.copy(), 3):
        mark(q, True)
    else:
        mark(q, 1)


def finds(p, x=0):
    while not p.at_end():
        if p.read() == x:
            return True
        p.move(1)
    return False


def mark(q, how):
    if not q.at_end():
        if how == 1:
            q.write(5)
        if how is None:
            q.write(6)


def a_test_that_moves(p, q):
    while advances(p):
        if not q.at_end():
            q.write(1)
            q.move(1)


def advances(p):
    if p.at_end():
        return False
    p.move(1)
    return True


def a_default_of_the_past(p, q, k=ONE):
    pass


def leaves_in_the_middle(p, q):
    while not p.at_end():
        if p.read() == 0:
            p.move(1)
            continue
        while not q.at_end():
            if q.read() == p.read():
                return
            q.move(1)
        p.move(1)
    if not q.at_start():
        q.move(-1)


def bit_counts(p, q):
    while not p.at_end() and not q.at_end():
        if compare(p.read(), q.read()):
            p.write(0)
        p.move(1)
        q.move(1)


def operators_with_a_constant_before(p, q):
    while not p.at_end():
        x = p.read()
        p.write((7 & x) ^ (2 | x) ^ (1 << x) ^ (900 >> x) ^ (9 - x) ^ (100 // (x + 1)))
        p.write(p.read() % 10)
        p.move(1)


PROGRAMS = [
    a_pointer_called_copy, a_function_called_copy, lambdas_on_one_line, closures_of_one_name,
    a_function_called_like_a_loop, constants_are_kept_as_they_are, keywords_in_any_order, any_number_of_values,
    functions_as_arguments, functions_of_functions, a_tuple_of_functions, text_inside_of_a_data_function,
    chained_comparisons, short_circuits, values_by_and_and_or, least_and_largest, answers_as_numbers,
    over_many_pointers, a_loop_that_else_follows, a_jump_in_an_else, constant_patterns, a_loop_in_a_pattern,
    a_pointer_chosen_by_a_test, one_pointer_two_names, backwards, flags, a_test_that_moves, leaves_in_the_middle,
    bit_counts,
]  # fmt: skip
