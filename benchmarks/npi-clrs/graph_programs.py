"""Graphs as the benchmark gives them: a matrix, row after row on one tape. `row` holds where each row begins. The number
of a vertex is where its cells stand; `name` holds these numbers, so that they can be written. 0 is no edge.
"""

from greedy import sort


def go_to_row(a, row, u):
    r = row.copy()
    r.goto(u)
    a.seek(r.read())


def put(tape, place, value):
    p = tape.copy()
    p.goto(place)
    p.write(value)


def number(name, place):
    """What stands at a place of a tape of numbers, which are moved and sought, never looked at."""
    n = name.copy()
    n.goto(place)
    return n.read()


def value(tape, place):
    """What stands at a place of a tape of marks or lengths."""
    p = tape.copy()
    p.goto(place)
    return p.read()


def visit(u, start, row, edge, parent, name):
    """`u` is on the tape of marks; `start` stays on its first cell."""
    u.write(1)
    e, v = edge.copy(), start.copy()
    go_to_row(e, row, u)
    while not v.at_end():
        if e.read() == 1:
            w = v.copy()
            if w.read() == 0:
                put(parent, w, number(name, u))
                visit(w, start, row, edge, parent, name)
        e.move(1)
        v.move(1)


def dfs(s, start, row, edge, parent, name):
    while not s.at_end():
        if s.read() == 0:
            visit(s, start, row, edge, parent, name)
        s.move(1)


def order_from(u, start, row, edge, order, name):
    """Depth first; vertices are written as they are done, from the end of `order`."""
    u.write(1)
    e, v = edge.copy(), start.copy()
    go_to_row(e, row, u)
    while not v.at_end():
        if e.read() != 0:
            w = v.copy()
            if w.read() == 0:
                order_from(w, start, row, edge, order, name)
        e.move(1)
        v.move(1)
    order.write(number(name, u))
    order.move(-1)


def topological_sort(s, start, row, edge, order, name, following, head):
    """`following` holds each vertex's number at first; `head` is where the first of all is written."""
    while not s.at_end():
        if s.read() == 0:
            order_from(s, start, row, edge, order, name)
        s.move(1)
    order.move(1)
    head.write(order.read())
    while not order.at_end():
        following.seek(order.read())
        order.move(1)
        if not order.at_end():
            following.write(order.read())


def dag_shortest_paths(s, start, row, edge, order, name, distance, known, parent):
    if s.read() == 0:
        order_from(s, start, row, edge, order, name)
    order.move(1)
    d = distance.copy()
    d.seek(order.read())
    d.write(0)
    put(known, d, 1)
    while not order.at_end():
        d.seek(order.read())
        relax(d, distance, row, edge, known, parent, name)
        order.move(1)


def further(x, w):
    """A length that no tape holds is refused, never cut."""
    return x + w


def relax(u, distance, row, edge, known, parent, name):
    """All edges from u, whose distance is known."""
    e, v = edge.copy(), distance.copy()
    go_to_row(e, row, u)
    while not v.at_end():
        if e.read() != 0:
            if value(known, v) == 0:
                shorten(u, v, e, parent, name)
                put(known, v, 1)
            elif comes_nearer(v, further(u.read(), e.read())):
                shorten(u, v, e, parent, name)
        e.move(1)
        v.move(1)


def comes_nearer(v, length):
    return length < v.read()


def shorten(u, v, e, parent, name):
    v.write(further(u.read(), e.read()))
    put(parent, v, number(name, u))


def copy_tape(source, sink):
    a, b = source.copy(), sink.copy()
    while not a.at_end():
        b.write(a.read())
        a.move(1)
        b.move(1)


def bfs(s, reach, before, row, edge, parent, name, rounds):
    """`s` is on the marks of `reach`, on the start; `rounds` has one cell more than there are vertices."""
    s.write(1)
    while not rounds.at_end():
        copy_tape(reach, before)
        if not spread(s, reach, before, row, edge, parent, name):
            return
        rounds.move(1)


def spread(s, reach, before, row, edge, parent, name):
    """One round over all edges; whether it reached anything."""
    grown = False
    i, e = before.copy(), edge.copy()
    while not i.at_end():
        if i.read() == 1:
            go_to_row(e, row, i)
            j = reach.copy()
            while not j.at_end():
                if e.read() == 1 and j.read() == 0:
                    put(parent, j, number(name, i))
                    j.write(1)
                    grown = True
                e.move(1)
                j.move(1)
        i.move(1)
    return grown


def bellman_ford(s, distance, old, known, old_known, row, edge, parent, name, rounds):
    s.write(0)
    put(known, s, 1)
    while not rounds.at_end():
        copy_tape(distance, old)
        copy_tape(known, old_known)
        if not sweep(distance, old, known, old_known, row, edge, parent, name):
            return
        rounds.move(1)


def sweep(distance, old, known, old_known, row, edge, parent, name):
    """One round over all edges; whether a distance changed."""
    changed = False
    u, e = old.copy(), edge.copy()
    while not u.at_end():
        if value(old_known, u) == 1:
            go_to_row(e, row, u)
            v = distance.copy()
            while not v.at_end():
                if e.read() != 0:
                    if value(known, v) == 0:
                        shorten(u, v, e, parent, name)
                        put(known, v, 1)
                        changed = True
                    elif comes_nearer(v, further(u.read(), e.read())):
                        shorten(u, v, e, parent, name)
                        changed = True
                e.move(1)
                v.move(1)
        u.move(1)
    return changed


def nearest(best, queued, distance):
    """Move `best` to the first queued vertex of the least distance; whether there is one."""
    found = False
    q = queued.copy()
    while not q.at_end():
        if q.read() == 1:
            if not found:
                best.goto(q)
                found = True
            elif value(distance, q) < best.read():
                best.goto(q)
        q.move(1)
    return found


def dijkstra(s, distance, queued, done, row, edge, parent, name, rounds):
    s.write(0)
    put(queued, s, 1)
    u = s.copy()
    while not rounds.at_end():
        if not nearest(u, queued, distance):
            return
        put(done, u, 1)
        put(queued, u, 0)
        e, v = edge.copy(), distance.copy()
        go_to_row(e, row, u)
        while not v.at_end():
            if e.read() != 0 and value(done, v) == 0:
                if value(queued, v) == 0:
                    shorten(u, v, e, parent, name)
                    put(queued, v, 1)
                elif comes_nearer(v, further(u.read(), e.read())):
                    shorten(u, v, e, parent, name)
            e.move(1)
            v.move(1)
        rounds.move(1)


def mst_prim(s, key, queued, done, row, edge, parent, name, rounds):
    s.write(0)
    put(queued, s, 1)
    u = s.copy()
    while not rounds.at_end():
        if not nearest(u, queued, key):
            return
        put(done, u, 1)
        put(queued, u, 0)
        e, v = edge.copy(), key.copy()
        go_to_row(e, row, u)
        while not v.at_end():
            if e.read() != 0 and value(done, v) == 0:
                if value(queued, v) == 0:
                    put(queued, v, 1)
                    v.write(e.read())
                    put(parent, v, number(name, u))
                elif e.read() < v.read():
                    v.write(e.read())
                    put(parent, v, number(name, u))
            e.move(1)
            v.move(1)
        rounds.move(1)


def root(p):
    """Follow parents, which stand further on, to the last."""
    while True:
        up = p.copy()
        up.seek(p.read())
        if not p.before(up):
            return
        p.goto(up)


def mst_kruskal(order, behind, spare, weight, left, right, up, name, chosen):
    """Edges in `left`, `right` and `weight`; `up` holds each vertex's number at first."""
    sort(order, behind, spare, weight, lighter)
    while not order.at_end():
        left.seek(order.read())
        right.seek(order.read())
        u, v = up.copy(), up.copy()
        u.seek(left.read())
        v.seek(right.read())
        root(u)
        root(v)
        if not u.meets(v):
            chosen.seek(order.read())
            chosen.write(1)
            if u.before(v):
                u.write(number(name, v))
            else:
                v.write(number(name, u))
        order.move(1)


def lighter(x, y):
    return x < y


def floyd_warshall(k, start, row, distance, known, parent):
    while not k.at_end():
        through(k, start, row, distance, known, parent)
        k.move(1)


def through(k, start, row, distance, known, parent):
    i = start.copy()
    d = distance.copy()
    while not i.at_end():
        by, first = distance.copy(), distance.copy()
        go_to_row(first, row, i)
        go_to_row(by, row, k)
        step(first, start, k)
        if value(known, first) == 1:
            go_to_row(d, row, i)
            j = start.copy()
            while not j.at_end():
                if value(known, by) == 1:
                    if value(known, d) == 0:
                        d.write(further(first.read(), by.read()))
                        put(parent, d, number(parent, by))
                        put(known, d, 1)
                    elif comes_nearer(d, further(first.read(), by.read())):
                        d.write(further(first.read(), by.read()))
                        put(parent, d, number(parent, by))
                by.move(1)
                d.move(1)
                j.move(1)
        i.move(1)


def step(p, start, k):
    """Go on as many cells as k stands from the start."""
    s = start.copy()
    while s.before(k):
        p.move(1)
        s.move(1)
