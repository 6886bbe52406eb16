# ruff: noqa: E501
"""Tasks on lists, as one would write them who has read docs/npi.md once."""

import itertools

from tasks import D, Task, bits, digits, numbers

from outsize.programs.npi import Tape


def maximum(xs, out):
    best = xs.read()
    for x in xs:
        if x > best:
            best = x
    out.write(best)


def minimum(xs, out):
    best = xs.read()
    while not xs.at_end():
        if xs.read() < best:
            best = xs.read()
        xs.move(1)
    out.write(best)


def count_zeros(xs, out):
    count = 0
    for x in xs:
        if x == 0:
            count += 1
    out.write(count)


def reverse_into(xs, out):
    while not xs.at_start():
        out.write(xs.read())
        xs.move(-1)
        out.move(1)


def rotate_left(xs, here):
    first = here.read()
    xs.move(1)
    while not xs.at_end():
        here.write(xs.read())
        here.move(1)
        xs.move(1)
    here.write(first)


def is_palindrome(left, right):
    while left.before(right):
        if left.read() != right.read():
            return False
        left.move(1)
        right.move(-1)
    return True


def palindrome(left, right, out):
    if is_palindrome(left, right):
        out.write(1)
    else:
        out.write(0)


def contains(seen, end, x):
    while seen.before(end):
        if seen.read() == x:
            return True
        seen.move(1)
    return False


def dedup(xs, out):
    start = out.copy()
    for x in xs:
        if not contains(start.copy(), out, x):
            out.write(x)
            out.move(1)


def partition(xs, pivot, low, high):
    p = pivot.read()
    for x in xs:
        if x < p:
            low.write(x)
            low.move(1)
        else:
            high.write(x)
            high.move(1)


def binary_search(lo, hi, key, out):
    k = key.read()
    while lo.before(hi):
        mid = lo.middle(hi)
        x = mid.read()
        if x == k:
            out.write(1)
            return
        if x < k:
            lo.goto(mid)
            lo.move(1)
        else:
            hi.goto(mid)
    out.write(0)


def two_sum(xs, target, out):
    """Whether two different elements of the list add up to the target."""
    t = target.read()
    while not xs.at_end():
        y = xs.copy()
        y.move(1)
        while not y.at_end():
            if xs.read() + y.read() == t:
                out.write(1)
                return
            y.move(1)
        xs.move(1)
    out.write(0)


def prefix_sums(xs, out):
    total = 0
    for x in xs:
        total = (total + x) % 10
        out.write(total)
        out.move(1)


def majority(xs, out):
    """Boyer and Moore's vote."""
    winner, votes = 0, 0
    for x in xs:
        if votes == 0:
            winner = x
            votes = 1
        elif x == winner:
            votes += 1
        else:
            votes -= 1
    out.write(winner)


def vote(xs):
    winner, votes = 0, 0
    for x in xs:
        if votes == 0:
            winner, votes = x, 1
        elif x == winner:
            votes += 1
        else:
            votes -= 1
    return winner


def anagram(xs, ys, counts, out):
    for x in xs:
        counts.seek(x)
        counts.write(counts.read() + 1)
    for y in ys:
        counts.seek(y)
        if counts.read() == 0:
            out.write(0)
            return
        counts.write(counts.read() - 1)
    out.write(1)


def run_length(xs, values, counts):
    while not xs.at_end():
        x = xs.read()
        n = 0
        while not xs.at_end() and xs.read() == x:
            n += 1
            xs.move(1)
        values.write(x)
        counts.write(n)
        values.move(1)
        counts.move(1)


def is_sorted(xs, out):
    last = 0
    for x in xs:
        if x < last:
            out.write(0)
            return
        last = x
    out.write(1)


def second_largest(xs, out):
    first = 0
    second = 0
    for x in xs:
        if x > first:
            second = first
            first = x
        elif x > second:
            second = x
    out.write(second)


def interleave(xs, ys, out):
    while not xs.at_end() and not ys.at_end():
        out.write(xs.read())
        out.move(1)
        out.write(ys.read())
        out.move(1)
        xs.move(1)
        ys.move(1)


def move_zeros(xs, out):
    for x in xs:
        if x != 0:
            out.write(x)
            out.move(1)
    while not out.at_end():
        out.write(0)
        out.move(1)


def second(values):
    ordered = sorted(values, reverse=True)
    return ([*ordered, 0, 0])[1]


def dedup_oracle(xs):
    return list(dict.fromkeys(xs))


TASKS = [
    Task("maximum", maximum, lambda xs: [Tape(xs, domain=D), Tape([0], domain=D)], lambda s: [numbers(s, 1)],
         lambda t: t[1][0], lambda xs: max(xs), ([[3, 5]], [[4]])),
    Task("minimum", minimum, lambda xs: [Tape(xs, domain=D), Tape([0], domain=D)], lambda s: [numbers(s, 1)],
         lambda t: t[1][0], lambda xs: min(xs), ([[3, 5, 1]],)),
    Task("count", count_zeros, lambda xs: [Tape(xs, domain=D), Tape([0], domain=range(100))], lambda s: [numbers(s)],
         lambda t: t[1][0], lambda xs: xs.count(0), ([[0, 5, 0]],)),
    Task("reverse", reverse_into, lambda xs: [(Tape(xs, domain=D), -1), Tape([0] * len(xs), domain=D)],
         lambda s: [numbers(s)], lambda t: t[1], lambda xs: xs[::-1], ([[0, 5, 1]],)),
    Task("rotate", rotate_left, lambda xs: [(tape := Tape(xs, domain=D)), tape], lambda s: [numbers(s, 1)],
         lambda t: t[0], lambda xs: xs[1:] + xs[:1], ([[0, 5, 1]],)),
    Task("palindrome", palindrome, lambda xs: [(tape := Tape(xs, domain=range(3))), (tape, -1), Tape([0], domain=range(2))],
         lambda s: [(h := s.choices(range(3), k=s.randint(0, 6))) + (h[::-1] if s.random() < 0.7 else h)],
         lambda t: t[2][0], lambda xs: int(xs == xs[::-1]), ([[0, 1, 0]], [[1, 2]])),
    Task("dedup", dedup, lambda xs: [Tape(xs, domain=D), Tape([0] * len(xs), domain=D)], lambda s: [numbers(s)],
         lambda t: t[1][: len(dict.fromkeys(t[0]))], dedup_oracle, ([[1, 2, 1]],)),
    Task("partition", partition,
         lambda xs, p: [Tape(xs, domain=D), Tape([p], domain=D), Tape([0] * len(xs), domain=D), Tape([0] * len(xs), domain=D)],
         lambda s: [numbers(s), s.choice(D)], lambda t: (t[2], t[3]),
         lambda xs, p: tuple((k + [0] * len(xs))[: len(xs)] for k in ([x for x in xs if x < p], [x for x in xs if x >= p])),
         (([1, 5, 3], 3),)),
    Task("binary search", binary_search,
         lambda xs, k: [(tape := Tape(xs, domain=D)), (tape, len(xs)), Tape([k], domain=D), Tape([0], domain=range(2))],
         lambda s: [sorted(numbers(s)), s.choice(D)], lambda t: t[3][0], lambda xs, k: int(k in xs),
         (([1, 3, 5], 3), ([1, 3, 5], 9))),
    Task("two-sum", two_sum, lambda xs, k: [Tape(xs, domain=D), Tape([k], domain=range(19)), Tape([0], domain=range(2))],
         lambda s: [numbers(s, 0, 6), s.randrange(19)], lambda t: t[2][0],
         lambda xs, k: int(any(a + b == k for a, b in itertools.combinations(xs, 2))), (([1, 3, 5], 8), ([1, 3], 9))),
    Task("prefix sums mod 10", prefix_sums, lambda xs: [Tape(xs, domain=D), Tape([0] * len(xs), domain=D)],
         lambda s: [numbers(s)], lambda t: t[1], lambda xs: [x % 10 for x in itertools.accumulate(xs)], ([[3, 9]],)),
    Task("majority", majority, lambda xs: [Tape(xs, domain=D), Tape([0], domain=range(100))], lambda s: [numbers(s)],
         lambda t: t[1][0], vote, ([[3, 3, 1]],)),
    Task("anagram", anagram,
         lambda xs, ys: [Tape(xs, domain=D), Tape(ys, domain=D), Tape([0] * 10, domain=range(100)), Tape([0], domain=range(2))],
         lambda s: [(xs := numbers(s)), s.sample(xs, len(xs)) if s.random() < 0.6 else numbers(s, len(xs), len(xs))],
         lambda t: t[3][0], lambda xs, ys: int(sorted(xs) == sorted(ys)), (([1, 2], [2, 1]), ([1], [2]))),
    Task("run-length", run_length,
         lambda xs: [Tape(xs, domain=D), Tape([0] * len(xs), domain=D), Tape([0] * len(xs), domain=range(100))],
         lambda s: [s.choices(range(3), k=s.randint(0, 12))],
         lambda t: [(v, n) for v, n in zip(t[1], t[2]) if n],
         lambda xs: [(k, len(list(g))) for k, g in itertools.groupby(xs)], ([[1, 1, 2]],)),
    Task("is sorted", is_sorted, lambda xs: [Tape(xs, domain=D), Tape([0], domain=range(2))],
         lambda s: [sorted(numbers(s)) if s.random() < 0.5 else numbers(s)], lambda t: t[1][0],
         lambda xs: int(xs == sorted(xs)), ([[1, 1, 2]], [[2, 1]])),
    Task("second largest", second_largest, lambda xs: [Tape(xs, domain=D), Tape([0], domain=D)], lambda s: [numbers(s)],
         lambda t: t[1][0], second, ([[1, 5, 3]],)),
    Task("interleave", interleave,
         lambda xs, ys: [Tape(xs, domain=D), Tape(ys, domain=D), Tape([0] * (2 * min(len(xs), len(ys))), domain=D)],
         lambda s: [numbers(s), numbers(s)], lambda t: t[2],
         lambda xs, ys: [v for pair in zip(xs, ys) for v in pair], (([1, 2], [3, 4]),)),
    Task("move zeros", move_zeros, lambda xs: [Tape(xs, domain=D), Tape([0] * len(xs), domain=D)],
         lambda s: [s.choices((0, 1, 2), k=s.randint(0, 9))], lambda t: t[1],
         lambda xs: sorted(xs, key=lambda x: x == 0), ([[0, 1, 0, 2]],)),
]  # fmt: skip

assert bits
assert digits
