"""Programs over lists and strings, as the benchmark's reference code does it. Positions are pointers; keys have a finite
domain; what a cell holds beside its key (where it came from) is moved along and never looked at.
"""


def less(x, y):
    return x < y


def at_most(x, y):
    return x <= y


def exchange(a, b, from_a, from_b):
    """Exchange two cells, and where they came from."""
    x, y = a.read(), b.read()
    a.write(y)
    b.write(x)
    from_a.goto(a)
    from_b.goto(b)
    x, y = from_a.read(), from_b.read()
    from_a.write(y)
    from_b.write(x)


def swap(a, b, origin):
    p, q = origin.copy(), origin.copy()
    exchange(a, b, p, q)


def insertion_sort(scan, origin):
    while not scan.at_end():
        hole, left = scan.copy(), scan.copy()
        o, l = origin.copy(), origin.copy()
        key = scan.read()
        o.goto(scan)
        mine = o.read()
        left.move(-1)
        while not left.at_start() and less(key, left.read()):
            hole.write(left.read())
            o.goto(hole)
            l.goto(left)
            o.write(l.read())
            hole.move(-1)
            left.move(-1)
        hole.write(key)
        o.goto(hole)
        o.write(mine)
        scan.move(1)


def bubble_sort(first, last, origin):
    """`first` is on the first cell, `last` on the last one."""
    while first.before(last):
        right, left = last.copy(), last.copy()
        left.move(-1)
        while first.before(right):
            if less(right.read(), left.read()):
                swap(right, left, origin)
            right.move(-1)
            left.move(-1)
        first.move(1)


def partition(p, r, i, origin):
    """Leaves `i` where the pivot ends."""
    x = r.read()
    j = p.copy()
    i.goto(p)
    while j.before(r):
        if at_most(j.read(), x):
            swap(i, j, origin)
            i.move(1)
        j.move(1)
    swap(i, r, origin)


def quicksort(p, r, origin):
    if p.before(r):
        i = p.copy()
        partition(p, r, i, origin)
        left, right = i.copy(), i.copy()
        left.move(-1)
        right.move(1)
        quicksort(p, left, origin)
        quicksort(right, r, origin)


def quickselect(p, r, target, origin):
    """Leaves `target`, the middle of the tape, on the median."""
    while p.before(r):
        i = p.copy()
        partition(p, r, i, origin)
        if i.meets(target):
            return
        if target.before(i):
            r.goto(i)
            r.move(-1)
        else:
            p.goto(i)
            p.move(1)


def sift(i, zero, stop, origin):
    """`stop` is behind the heap."""
    left, count = i.copy(), zero.copy()
    while count.before(i) and left.before(stop):
        left.move(1)
        count.move(1)
    if not left.before(stop):
        return
    left.move(1)
    if not left.before(stop):
        return
    largest = i.copy()
    if less(i.read(), left.read()):
        largest.goto(left)
    right = left.copy()
    right.move(1)
    if right.before(stop) and less(largest.read(), right.read()):
        largest.goto(right)
    if i.before(largest):
        swap(i, largest, origin)
        sift(largest, zero, stop, origin)


def heapsort(zero, last, stop, origin):
    i = last.copy()
    while not i.at_start():
        sift(i, zero, stop, origin)
        i.move(-1)
    while zero.before(last):
        swap(zero, last, origin)
        stop.goto(last)
        sift(zero, zero.copy(), stop, origin)
        last.move(-1)


def minimum(best, scan):
    while not scan.at_end():
        if less(scan.read(), best.read()):
            best.goto(scan)
        scan.move(1)


def binary_search(low, high, key):
    x = key.read()
    while low.before(high):
        middle = low.middle(high)
        if at_most(x, middle.read()):
            high.goto(middle)
        else:
            low.goto(middle)
            low.move(1)


def naive_string_matcher(text, last, pattern):
    """Leaves `text` on the first match, or behind the tape; `last` is where the last match could begin."""
    while not last.before(text):
        t, p = text.copy(), pattern.copy()
        while not p.at_end() and t.read() == p.read():
            t.move(1)
            p.move(1)
        if p.at_end():
            return
        text.move(1)
    while not text.at_end():
        text.move(1)


def kmp_matcher(text, pattern, k, border, number, found):
    """`border` holds where the longest border of each prefix ends, -1 for none; `number` the numbers of its cells."""
    none = border.read()
    q = pattern.copy()
    q.move(1)
    while not q.at_end():
        grow(k, q.read(), border)
        b, n = border.copy(), number.copy()
        b.goto(q)
        if k.at_start():
            b.write(none)
        else:
            n.goto(k)
            b.write(n.read())
        q.move(1)
    k.goto(pattern)
    k.move(-1)
    while not text.at_end():
        grow(k, text.read(), border)
        last = k.copy()
        last.move(1)
        if last.at_end():
            found.write(1)
            return
        text.move(1)


def grow(k, c, border):
    """Take the longest border that goes on with c, one longer; or none."""
    while True:
        following = k.copy()
        following.move(1)
        if following.read() == c:
            k.move(1)
            return
        if k.at_start():
            return
        b, shorter = border.copy(), k.copy()
        b.goto(k)
        shorter.seek(b.read())
        if not shorter.before(k):  # never: a border is shorter
            return
        k.goto(shorter)


def add(total, x):
    """Numbers as positions: go x cells on."""
    while x > 0:
        total.move(1)
        x = x - 1
    while x < 0:
        total.move(-1)
        x = x + 1


def find_maximum_subarray_kadane(scan, start, low, high, zero, total, best):
    """`total` and `best` stand on a ruler; `scan` on the second cell, `start`, `low` and `high` on the first."""
    add(total, start.read())
    best.goto(total)
    while not scan.at_end():
        if total.before(zero):
            start.goto(scan)
            total.goto(zero)
        add(total, scan.read())
        if best.before(total):
            low.goto(start)
            high.goto(scan)
            best.goto(total)
        scan.move(1)


def lcs_length(row, column, before, length, choice, ruler, zero):
    """`length` has one more row and one more column than `choice`, of zeros; `before` begins its previous row."""
    while not row.at_end():
        y = column.copy()
        corner = before.copy()
        length.move(1)
        while not y.at_end():
            x = row.read()
            corner_next = corner.copy()
            corner_next.move(1)
            left = length.copy()
            left.move(-1)
            if x == y.read():
                step = ruler.copy()
                step.seek(corner.read())
                step.move(1)
                length.write(step.read())
                choice.write(0)
            elif shorter(corner_next, left, ruler):
                length.write(left.read())
                choice.write(2)
            else:
                length.write(corner_next.read())
                choice.write(1)
            corner.move(1)
            length.move(1)
            choice.move(1)
            y.move(1)
        before.goto(corner)
        before.move(1)
        row.move(1)


def shorter(a, b, ruler):
    p, q = ruler.copy(), ruler.copy()
    p.seek(a.read())
    q.seek(b.read())
    return p.before(q)
