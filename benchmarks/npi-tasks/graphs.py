# ruff: noqa: E501
"""Tasks on graphs and strings."""

from tasks import Task

from outsize.programs.npi import Tape


def find(parent, x):
    parent.seek(x)
    while parent.read() != x:
        x = parent.read()
        parent.seek(x)
    return x


def union_find(edges, others, parent):
    while not edges.at_end():
        a = find(parent, edges.read())
        b = find(parent, others.read())
        parent.seek(a)
        parent.write(b)
        edges.move(1)
        others.move(1)


def quick_find(edges, others, label):
    """Union-find by relabelling."""
    while not edges.at_end():
        p = label.copy()
        p.seek(edges.read())
        old = p.read()
        p.seek(others.read())
        new = p.read()
        p.goto(label)
        while not p.at_end():
            if p.read() == old:
                p.write(new)
            p.move(1)
        edges.move(1)
        others.move(1)


def bfs(queue, tail, seen, first, edge, stop):
    seen.seek(queue.read())
    seen.write(1)
    while queue.before(tail):
        first.seek(queue.read())
        edge.seek(first.read())
        stop.goto(edge)
        while stop.read() == 0:
            seen.seek(edge.read())
            if seen.read() == 0:
                seen.write(1)
                tail.write(edge.read())
                tail.move(1)
            edge.move(1)
            stop.move(1)
        queue.move(1)


def dfs(v, seen, first, edge, stop, order):
    seen.seek(v)
    seen.write(1)
    order.write(v)
    order.move(1)
    first.seek(v)
    e, s = edge.copy(), stop.copy()
    e.seek(first.read())
    s.goto(e)
    while s.read() == 0:
        seen.seek(e.read())
        if seen.read() == 0:
            dfs(e.read(), seen, first, edge, stop, order)
        e.move(1)
        s.move(1)


def depth_first(start, seen, first, edge, stop, order):
    dfs(start.read(), seen, first, edge, stop, order)


def naive_match(text, pattern, found):
    while not text.at_end():
        t, p = text.copy(), pattern.copy()
        if matches(t, p):
            found.write(1)
        text.move(1)
        found.move(1)


def matches(t, p):
    for c in p:
        if t.at_end() or t.read() != c:
            return False
        t.move(1)
    return True


def kmp(text, pattern, fail, found):
    """`fail[i]`: how long a border the first i + 1 characters have; made before."""
    for c in text:
        while not pattern.at_start() and (pattern.at_end() or pattern.read() != c):
            back = pattern.copy()
            back.move(-1)
            if back.at_start():
                pattern.goto(back)
            else:
                fail.goto(back)
                pattern.seek(fail.read())
        pattern.move(1)
        if pattern.at_end():
            found.write(1)
        found.move(1)


def graph_tapes(graph):
    first, edge, stop = [], [], []
    for successors in graph:
        first.append(len(edge))
        edge += [*successors, 0]
        stop += [0] * len(successors) + [1]
    return Tape(first), Tape(edge), Tape(stop, domain=range(2))


def random_graph(s):
    n = s.randint(1, 8)
    return [s.choices(range(n), k=s.randint(0, 3)) for _ in range(n)]


def reach(graph, depth):
    order, seen = [], {0}
    if depth:
        seen = set()

        def visit(v):
            seen.add(v)
            order.append(v)
            for w in graph[v]:
                if w not in seen:
                    visit(w)

        visit(0)
        return order
    queue = [0]
    while queue:
        v = queue.pop(0)
        order.append(v)
        for w in graph[v]:
            if w not in seen:
                seen.add(w)
                queue.append(w)
    return order


def groups(edges, others):
    labels = list(range(8))
    for a, b in zip(edges, others):
        labels = [labels[b] if label == labels[a] else label for label in labels]
    return [labels.index(label) for label in labels]


def roots(parents):
    def root(x):
        return x if parents[x] == x else root(parents[x])

    found = [root(x) for x in range(8)]
    return [found.index(r) for r in found]


def borders(pattern):
    table = [0] * len(pattern)
    for i in range(1, len(pattern)):
        table[i] = next(k for k in range(i, -1, -1) if pattern[:k] == pattern[i + 1 - k : i + 1])
    return table


def kmp_want(text, pattern):
    n, m = len(text), len(pattern)
    return [int(i + 1 >= m and text[i + 1 - m : i + 1] == pattern) for i in range(n)]


def edges(s):
    n = s.randint(0, 6)
    return [s.choices(range(8), k=n), s.choices(range(8), k=n)]


def words(s):
    return [s.choices(range(2), k=s.randint(0, 12)), s.choices(range(2), k=s.randint(1, 4))]


TASKS = [
    Task("union-find", union_find, lambda a, b: [Tape(a, domain=range(8)), Tape(b, domain=range(8)), Tape(range(8), domain=range(8))],
         edges, lambda t: roots(t[2]), groups, (([1, 2], [2, 3]),)),
    Task("union-find by relabelling", quick_find,
         lambda a, b: [Tape(a, domain=range(8)), Tape(b, domain=range(8)), Tape(range(8), domain=range(8))], edges,
         lambda t: [t[2].index(x) for x in t[2]], groups, (([1, 2], [2, 3]),)),
    Task("BFS", bfs,
         lambda g: [(q := Tape([0] * len(g))), (q, 1), Tape([0] * len(g), domain=range(2)), *graph_tapes(g)],
         lambda s: [random_graph(s)], lambda t: t[0][: sum(t[2])], lambda g: reach(g, False), (([[1, 2], [0], []],),)),
    Task("DFS", depth_first,
         lambda g: [Tape([0]), Tape([0] * len(g), domain=range(2)), *graph_tapes(g), Tape([0] * len(g))],
         lambda s: [random_graph(s)], lambda t: t[5][: sum(t[1])], lambda g: reach(g, True), (([[1, 2], [0], []],),)),
    Task("naive string matching", naive_match,
         lambda t, p: [Tape(t, domain=range(2)), Tape(p, domain=range(2)), Tape([0] * len(t), domain=range(2))], words,
         lambda t: t[2], lambda t, p: [int(t[i : i + len(p)] == p) for i in range(len(t))], (([0, 1, 1], [1]),)),
    Task("KMP", kmp,
         lambda t, p: [Tape(t, domain=range(2)), Tape(p, domain=range(2)), Tape(borders(p), domain=range(8)),
                       Tape([0] * len(t), domain=range(2))],
         words, lambda t: t[3], kmp_want, (([0, 1, 1], [1]),)),
]  # fmt: skip
