# ruff: noqa: E501
"""Tasks on numbers: values, digits, bits."""

import math

from tasks import D, Task, bits, digits, numbers

from outsize.programs.npi import Tape

SMALL = range(1, 40)


def euclid(a, b, out):
    x = a.read()
    y = b.read()
    while y != 0:
        r = x % y
        x = y
        y = r
    out.write(x)


def gcd_by_subtraction(a, b):
    while a.read() != b.read():
        if a.read() > b.read():
            a.write(a.read() - b.read())
        else:
            b.write(b.read() - a.read())


def sieve(flags, numbers, limit):
    """`flags[i]` becomes 1 where i is composite; `numbers` holds 0, 1, 2, …"""
    n = limit.read()
    p = 2
    while p < n:
        flags.seek(p)
        if flags.read() == 0:
            multiple = p + p
            while multiple < n:
                flags.seek(multiple)
                flags.write(1)
                multiple += p
        p += 1


def popcount(x, out):
    n = x.read()
    ones = 0
    while n > 0:
        ones += n % 2
        n //= 2
    out.write(ones)


def add_digits(a, b, out):
    carry = 0
    while not a.at_start():
        total = a.read() + b.read() + carry
        out.write(total % 10)
        carry = total // 10
        a.move(-1)
        b.move(-1)
        out.move(-1)
    out.write(carry)


def multiply_by_digit(a, d, out):
    carry = 0
    k = d.read()
    while not a.at_start():
        product = a.read() * k + carry
        out.write(product % 10)
        carry = product // 10
        a.move(-1)
        out.move(-1)
    out.write(carry)


def multiply(a, b, out):
    while not b.at_start():
        x, o = a.copy(), out.copy()
        carry = 0
        while not x.at_start():
            total = x.read() * b.read() + o.read() + carry
            o.write(total % 10)
            carry = total // 10
            x.move(-1)
            o.move(-1)
        o.write(carry)
        b.move(-1)
        out.move(-1)


def compare_digits(a, b, out):
    """2 if a is larger, 1 if b is, 0 if they are equal; the most significant digit comes first."""
    while not a.at_end():
        x, y = a.read(), b.read()
        if x > y:
            out.write(2)
            return
        if x < y:
            out.write(1)
            return
        a.move(1)
        b.move(1)
    out.write(0)


def subtract_digits(a, b, out):
    borrow = 0
    while not a.at_start():
        d = a.read() - b.read() - borrow
        if d < 0:
            out.write(d + 10)
            borrow = 1
        else:
            out.write(d)
            borrow = 0
        a.move(-1)
        b.move(-1)
        out.move(-1)


def fizzbuzz(n, out):
    for i in n:
        if i % 15 == 0:
            out.write(3)
        elif i % 3 == 0:
            out.write(1)
        elif i % 5 == 0:
            out.write(2)
        else:
            out.write(0)
        out.move(1)


def caesar(text, key, out):
    k = key.read()
    for c in text:
        out.write((c + k) % 26)
        out.move(1)


def collatz(x, steps):
    """Steps until 1, for numbers up to 9 (whose largest is 52)."""
    n = x.read()
    count = 0
    while n != 1:
        if n % 2 == 0:
            n = n // 2
        else:
            n = 3 * n + 1
        count += 1
    steps.write(count)


def collatz_steps(n):
    count = 0
    while n != 1:
        n, count = (n // 2 if n % 2 == 0 else 3 * n + 1), count + 1
    return count


def binary_increment(x):
    while not x.at_start():
        if x.read() == 0:
            x.write(1)
            return
        x.write(0)
        x.move(-1)


def parity(xs, out):
    odd = False
    for x in xs:
        if x == 1:
            odd = not odd
    if odd:
        out.write(1)
    else:
        out.write(0)


def power_mod(base, exponent, out):
    """base ** exponent mod 11, by squaring."""
    b, e = base.read(), exponent.read()
    result = 1
    while e > 0:
        if e % 2 == 1:
            result = result * b % 11
        b = b * b % 11
        e //= 2
    out.write(result)


def primes(n):
    return [0, 0] + [int(any(i % p == 0 for p in range(2, i))) for i in range(2, n)]


TASKS = [
    Task("Euclid", euclid, lambda a, b: [Tape([a], domain=range(60)), Tape([b], domain=range(60)), Tape([0], domain=range(60))],
         lambda s: [s.randrange(60), s.randrange(60)], lambda t: t[2][0], math.gcd, ((12, 18),)),
    Task("gcd by subtraction", gcd_by_subtraction, lambda a, b: [Tape([a], domain=SMALL), Tape([b], domain=SMALL)],
         lambda s: [s.choice(SMALL), s.choice(SMALL)], lambda t: t[0][0], math.gcd, ((12, 18),)),
    Task("sieve", sieve,
         lambda n: [Tape([0] * n, domain=range(2)), Tape(range(n)), Tape([n], domain=range(60))],
         lambda s: [s.randrange(2, 60)], lambda t: t[0], primes, ((20,),)),
    Task("popcount", popcount, lambda x: [Tape([x], domain=range(256)), Tape([0], domain=D)], lambda s: [s.randrange(256)],
         lambda t: t[1][0], int.bit_count, ((5,),)),
    Task("addition of digits", add_digits,
         lambda a, b: [(Tape(a, domain=D), -1), (Tape(b, domain=D), -1), (Tape([0] * (len(a) + 1), domain=D), -1)],
         lambda s: [(a := digits(s)), s.choices(D, k=len(a))], lambda t: number(t[2]),
         lambda a, b: number(a) + number(b), (([1, 5], [2, 6]),)),
    Task("multiplication by a digit", multiply_by_digit,
         lambda a, d: [(Tape(a, domain=D), -1), Tape([d], domain=D), (Tape([0] * (len(a) + 1), domain=D), -1)],
         lambda s: [digits(s), s.choice(D)], lambda t: number(t[2]), lambda a, d: number(a) * d, (([1, 5], 7),)),
    Task("multiplication of digits", multiply,
         lambda a, b: [(Tape(a, domain=D), -1), (Tape(b, domain=D), -1), (Tape([0] * (len(a) + len(b)), domain=D), -1)],
         lambda s: [digits(s), digits(s)], lambda t: number(t[2]), lambda a, b: number(a) * number(b), (([1, 5], [2, 7]),)),
    Task("comparison of digits", compare_digits, lambda a, b: [Tape(a, domain=D), Tape(b, domain=D), Tape([0], domain=range(3))],
         lambda s: [(a := digits(s)), a if s.random() < 0.2 else s.choices(D, k=len(a))], lambda t: t[2][0],
         lambda a, b: 2 if a > b else int(a < b), (([1, 5], [1, 7]),)),
    Task("subtraction of digits", subtract_digits,
         lambda a, b: [(Tape(a, domain=D), -1), (Tape(b, domain=D), -1), (Tape([0] * len(a), domain=D), -1)],
         lambda s: sorted([(a := digits(s)), s.choices(D, k=len(a))], reverse=True), lambda t: number(t[2]),
         lambda a, b: number(a) - number(b), (([1, 5], [0, 6]),)),
    Task("fizzbuzz", fizzbuzz, lambda xs: [Tape(xs, domain=range(1, 101)), Tape([0] * len(xs), domain=range(4))],
         lambda s: [s.choices(range(1, 101), k=s.randint(0, 20))], lambda t: t[1],
         lambda xs: [3 if x % 15 == 0 else 1 if x % 3 == 0 else 2 if x % 5 == 0 else 0 for x in xs], ([[1, 2]],)),
    Task("caesar", caesar, lambda xs, k: [Tape(xs, domain=range(26)), Tape([k], domain=range(26)), Tape([0] * len(xs), domain=range(26))],
         lambda s: [s.choices(range(26), k=s.randint(0, 9)), s.randrange(26)], lambda t: t[2],
         lambda xs, k: [(x + k) % 26 for x in xs], (([1, 25], 3),)),
    Task("collatz", collatz, lambda x: [Tape([x], domain=range(1, 10)), Tape([0], domain=range(60))], lambda s: [s.randrange(1, 10)],
         lambda t: t[1][0], collatz_steps, ((7,),)),
    Task("binary increment", binary_increment, lambda xs: [(Tape(xs, domain=range(2)), -1)],
         lambda s: [bits(s)], lambda t: t[0],
         lambda xs: [int(c) for c in format((int("".join(map(str, xs)) or "0", 2) + 1) % 2 ** len(xs), f"0{len(xs)}b")] if xs else [],
         ([[1, 0, 1]],)),
    Task("parity", parity, lambda xs: [Tape(xs, domain=range(2)), Tape([0], domain=range(2))], lambda s: [bits(s)],
         lambda t: t[1][0], lambda xs: sum(xs) % 2, ([[1, 0, 1]],)),
    Task("power modulo 11", power_mod, lambda b, e: [Tape([b], domain=range(11)), Tape([e], domain=range(64)), Tape([0], domain=range(11))],
         lambda s: [s.randrange(11), s.randrange(64)], lambda t: t[2][0], lambda b, e: pow(b, e, 11), ((2, 5),)),
]  # fmt: skip


def number(cells):
    return int("".join(map(str, cells)) or "0")


assert numbers
