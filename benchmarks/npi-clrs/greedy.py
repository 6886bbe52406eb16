"""Greedy algorithms and geometry. Sorting is by merging, stable, over the numbers of elements; `key` holds what they are
sorted by.
"""

from sequences import at_most, less


def more(x, y):
    return x > y


def sort(lo, hi, spare, key, comes_before):
    """Sort the stretch from `lo` up to, not including, `hi`; `spare` is a second tape as long."""
    if not lo.before(hi):
        return
    second = lo.copy()
    second.move(1)
    if not second.before(hi):
        return
    middle = lo.middle(hi)
    sort(lo, middle, spare, key, comes_before)
    sort(middle, hi, spare, key, comes_before)
    a, b, out = lo.copy(), middle.copy(), spare.copy()
    out.goto(lo)
    merge(a, middle, b, hi, out, key, comes_before)
    source, sink = spare.copy(), lo.copy()
    source.goto(lo)
    while sink.before(hi):
        sink.write(source.read())
        source.move(1)
        sink.move(1)


def merge(a, a_end, b, b_end, out, key, comes_before):
    while a.before(a_end) and b.before(b_end):
        x, y = key.copy(), key.copy()
        x.seek(a.read())
        y.seek(b.read())
        if comes_before(y.read(), x.read()):
            out.write(b.read())
            b.move(1)
        else:
            out.write(a.read())
            a.move(1)
        out.move(1)
    take(a, a_end, out)
    take(b, b_end, out)


def take(source, stop, out):
    while source.before(stop):
        out.write(source.read())
        source.move(1)
        out.move(1)


def activity_selector(order, behind, spare, start, finish, chosen):
    sort(order, behind, spare, finish, less)
    chosen.seek(order.read())
    chosen.write(1)
    finish.seek(order.read())
    until = finish.read()
    order.move(1)
    while not order.at_end():
        start.seek(order.read())
        if at_most(until, start.read()):
            chosen.seek(order.read())
            chosen.write(1)
            finish.seek(order.read())
            until = finish.read()
        order.move(1)


def task_scheduling(order, behind, spare, deadline, weight, chosen, clock, due):
    """`clock` stands at 1, `due` is a second pointer on its tape."""
    sort(order, behind, spare, weight, more)
    chosen.seek(order.read())
    chosen.write(1)
    order.move(1)
    while not order.at_end():
        deadline.seek(order.read())
        due.seek(deadline.read())
        if clock.before(due):
            chosen.seek(order.read())
            chosen.write(1)
            clock.move(1)
        order.move(1)


def between(low, high, x):
    return min(low, high) <= x <= max(low, high)


def side(x, y, i, j, k, out):
    """Write the sign of the cross product of three points, by position."""
    xi, yi = at(x, i), at(y, i)
    xj, yj = at(x, j), at(y, j)
    xk, yk = at(x, k), at(y, k)
    compare(out, product(xk, xi, yj, yi), product(xj, xi, yk, yi))


def compare(out, a, b):
    out.write(compared(a, b))


def compared(a, b):
    return 0 if a == b else 1 if a > b else 2


def at(tape, place):
    p = tape.copy()
    p.goto(place)
    return p.read()


def product(a, b, c, d):
    return (a - b) * (c - d)


def on_segment(x, y, i, j, k):
    return between(at(x, i), at(x, j), at(x, k)) and between(at(y, i), at(y, j), at(y, k))


def segments_intersect(x, y, p, q, r, s, sides, result):
    """Points 0 to 3 stand under p, q, r and s; each has its cell in `sides`."""
    first = sides.copy()
    judge(x, y, r, s, p, first)
    second = first.copy()
    second.move(1)
    judge(x, y, r, s, q, second)
    third = second.copy()
    third.move(1)
    judge(x, y, p, q, r, third)
    fourth = third.copy()
    fourth.move(1)
    judge(x, y, p, q, s, fourth)
    if opposite(first.read(), second.read()) and opposite(third.read(), fourth.read()):  # noqa: SIM114
        result.write(1)
    elif touches(first.read()) or touches(second.read()) or touches(third.read()) or touches(fourth.read()):
        result.write(1)


def opposite(one, two):
    """Signs: 1 above, 2 below, 0 on the line, 3 on the segment."""
    return one + two == 3 and one != 0 and two != 0


def touches(one):
    return one == 3


def judge(x, y, i, j, k, out):
    side(x, y, i, j, k, out)
    if out.read() == 0 and on_segment(x, y, i, j, k):
        out.write(3)


def jarvis_march(x, y, best, scan, last, end, hull, start):
    """All pointers but x and y are on the tape of marks; `start` stays on its first cell."""
    while not scan.at_end():
        if lower(x, y, scan, best):
            best.goto(scan)
        scan.move(1)
    best.write(1)
    last.goto(best)
    while True:
        end.goto(start)
        scan.goto(start)
        while not scan.at_end():
            if end.meets(last) or clockwise(x, y, last, end, scan):
                end.goto(scan)
            scan.move(1)
        if end.read() == 1:
            return
        end.write(1)
        last.goto(end)


def lower(x, y, i, j):
    a, b = at(y, i), at(y, j)
    if a < b:
        return True
    return a == b and at(x, i) < at(x, j)


def clockwise(x, y, i, j, k):
    """Whether the way from i by j to k does not turn left."""
    if k.meets(i) or k.meets(j):
        return False
    xi, yi = at(x, i), at(y, i)
    xj, yj = at(x, j), at(y, j)
    xk, yk = at(x, k), at(y, k)
    return not_more(i, product(xj, xi, yk, yi), product(yj, yi, xk, xi))


def not_more(_, a, b):
    return a <= b
