"""What a depth-first search finds out: cut vertices, bridges, strong components. A time is the number of a cell of
`clock`, which is one longer than any search takes.
"""

from graph_programs import go_to_row, number, put, value


def earlier(tape, u, v, other, clock):
    """Whether the time of v in `other` is before that of u in `tape`."""
    a, b = clock.copy(), clock.copy()
    a.seek(number(tape, u))
    b.seek(number(other, v))
    return b.before(a)


def explore(u, start, row, edge, parent, name, clock, found, low, children):
    """Times of discovery and the least that a vertex reaches; `children`: 0, 1, or 2 for more."""
    u.write(1)
    clock.move(1)
    put(found, u, clock.read())
    put(low, u, clock.read())
    e, v = edge.copy(), start.copy()
    go_to_row(e, row, u)
    while not v.at_end():
        if e.read() == 1:
            w = v.copy()
            if w.read() == 0:
                put(parent, w, number(name, u))
                count(children, u)
                explore(w, start, row, edge, parent, name, clock, found, low, children)
                lower_to(low, u, v, low.copy(), clock)
            elif not is_parent(parent, u, v):
                lower_to(low, u, v, found, clock)
        e.move(1)
        v.move(1)


def count(children, u):
    c = children.copy()
    c.goto(u)
    if c.read() == 0:
        c.write(1)
    else:
        c.write(2)


def lower_to(low, u, v, other, clock):
    if earlier(low, u, v, other, clock):
        put(low, u, number(other, v))


def is_parent(parent, u, v):
    p, q = parent.copy(), parent.copy()
    p.goto(u)
    p.seek(p.read())
    q.goto(v)
    return p.meets(q)


def is_root(parent, v):
    p, q = parent.copy(), parent.copy()
    p.goto(v)
    p.seek(p.read())
    q.goto(v)
    return p.meets(q)


def explore_all(s, start, row, edge, parent, name, clock, found, low, children):
    while not s.at_end():
        if s.read() == 0:
            explore(s, start, row, edge, parent, name, clock, found, low, children)
        s.move(1)


def articulation_points(s, start, row, edge, parent, name, clock, found, low, children, cut):
    explore_all(s, start, row, edge, parent, name, clock, found, low, children)
    v = start.copy()
    while not v.at_end():
        u = parent.copy()
        u.goto(v)
        u.seek(u.read())
        if is_root(parent, v):
            if value(children, v) == 2:
                put(cut, v, 1)
        elif not is_root(parent, u) and not earlier(found, u, v, low, clock):
            put(cut, u, 1)
        v.move(1)


def bridges(s, start, row, edge, parent, name, clock, found, low, children, bridge):
    """`bridge`: a matrix of zeros."""
    explore_all(s, start, row, edge, parent, name, clock, found, low, children)
    v = start.copy()
    while not v.at_end():
        u = parent.copy()
        u.goto(v)
        u.seek(u.read())
        if not is_root(parent, v) and earlier(low, v, u, found, clock):
            mark(bridge, start, row, u, v)
            mark(bridge, start, row, v, u)
        v.move(1)


def mark(bridge, start, row, u, v):
    b, s = bridge.copy(), start.copy()
    go_to_row(b, row, u)
    while s.before(v):
        b.move(1)
        s.move(1)
    b.write(1)


def finish(u, start, row, edge, order, name):
    u.write(1)
    e, v = edge.copy(), start.copy()
    go_to_row(e, row, u)
    while not v.at_end():
        if e.read() == 1:
            w = v.copy()
            if w.read() == 0:
                finish(w, start, row, edge, order, name)
        e.move(1)
        v.move(1)
    order.write(number(name, u))
    order.move(-1)


def transpose(start, row, edge, place, other, cell):
    """`place` holds where each column's next cell goes in `other`, `cell` the numbers of all cells."""
    u, e = start.copy(), edge.copy()
    while not u.at_end():
        v, p = start.copy(), place.copy()
        while not v.at_end():
            o, c = other.copy(), cell.copy()
            o.seek(p.read())
            o.write(e.read())
            o.move(1)
            c.goto(o)
            p.write(c.read())
            e.move(1)
            p.move(1)
            v.move(1)
        u.move(1)


def collect(u, start, row, edge, component, first):
    u.write(1)
    put(component, u, first.read())
    e, v = edge.copy(), start.copy()
    go_to_row(e, row, u)
    while not v.at_end():
        if e.read() == 1:
            w = v.copy()
            if w.read() == 0:
                collect(w, start, row, edge, component, first)
        e.move(1)
        v.move(1)


def strongly_connected_components(s, start, again, row, edge, order, name, place, other, cell, component):
    """`s` and `start` are on the marks of the first search, `again` on those of the second."""
    while not s.at_end():
        if s.read() == 0:
            finish(s, start, row, edge, order, name)
        s.move(1)
    transpose(start, row, edge, place, other, cell)
    order.move(1)
    while not order.at_end():
        u = again.copy()
        u.seek(order.read())
        if u.read() == 0:
            collect(u, again, row, other, component, order)
        order.move(1)
