"""Graphs on tapes: every vertex's edges lie in one stretch of `edge`, closed by a cell whose `stop` is 1.

Vertex numbers are unbounded data. They are moved and sought, never looked at; the controller sees marks only.
"""

from __future__ import annotations

import random
from collections import deque

from ....errors import NpiError
from ..tape import Head, Pointer, Tape
from .entry import BITS, Entry, from_json, integer

__all__ = ["ENTRIES"]

Graph = list[list[int]]


def more(stop: int) -> bool:
    return stop == 0


def unseen(mark: int) -> bool:
    return mark == 0


def pending(mark: int) -> bool:
    return mark == 1


def visit(
    mark: Pointer,
    vertex: Pointer,
    first: Pointer,
    edge: Pointer,
    stop: Pointer,
    order: Pointer,
    cycle: Pointer,
) -> None:
    """Depth first: what follows a vertex is written before it, from the end of `order`."""
    mark.write(1)
    first.goto(mark)
    e, s = edge.copy(), stop.copy()
    e.seek(first.read())
    s.goto(e)
    while more(s.read()):
        m = mark.copy()
        m.seek(e.read())
        x = m.read()
        if unseen(x):
            visit(m, vertex, first, edge, stop, order, cycle)
        elif pending(x):
            cycle.write(1)
        e.move(1)
        s.move(1)
    mark.write(2)
    vertex.goto(mark)
    order.write(vertex.read())
    order.move(-1)


def topological_sort(
    mark: Pointer,
    vertex: Pointer,
    first: Pointer,
    edge: Pointer,
    stop: Pointer,
    order: Pointer,
    cycle: Pointer,
) -> None:
    while not mark.at_end():
        if unseen(mark.read()):
            visit(mark, vertex, first, edge, stop, order, cycle)
        mark.move(1)


def breadth_first_search(
    head: Pointer, tail: Pointer, mark: Pointer, first: Pointer, edge: Pointer, stop: Pointer
) -> None:
    """The queue is the answer; it begins with the start vertex, and `tail` is behind it."""
    mark.seek(head.read())
    mark.write(1)
    while head.before(tail):
        first.seek(head.read())
        e, s = edge.copy(), stop.copy()
        e.seek(first.read())
        s.goto(e)
        while more(s.read()):
            mark.seek(e.read())
            if unseen(mark.read()):
                mark.write(1)
                tail.write(e.read())
                tail.move(1)
            e.move(1)
            s.move(1)
        head.move(1)


def _tapes(graph: Graph) -> tuple[Head, Head, Head]:
    """Pointers on `first`, `edge` and `stop`."""
    first: list[int] = []
    edge: list[int] = []
    stop: list[int] = []
    for successors in graph:
        first.append(len(edge))
        edge += [*successors, 0]
        stop += [0] * len(successors) + [1]
    return Tape(first).at(), Tape(edge).at(), Tape(stop, domain=BITS).at()


def _encode_sort(graph: Graph) -> tuple[Head, ...]:
    n = len(graph)
    mark, vertex, order = Tape([0] * n, domain=range(3)), Tape(range(n)), Tape([0] * n)
    return mark.at(), vertex.at(), *_tapes(graph), order.at_last(), Tape([0], domain=BITS).at()


def _decode_sort(heads: tuple[Head, ...]) -> list[int]:
    if heads[6].tape.cells[0]:
        raise NpiError("the graph has a cycle, so there is no topological order; remove an edge of the cycle")
    return heads[5].tape.cells


def _encode_search(graph: Graph, start: int) -> tuple[Head, ...]:
    if not 0 <= start < len(graph):
        known = f"whose vertices are 0 to {len(graph) - 1}" if graph else "which has no vertex"
        raise NpiError(f"start vertex {start} is not in the graph, {known}")
    queue = Tape([start] + [0] * (len(graph) - 1))
    return queue.at(), queue.at(1), Tape([0] * len(graph), domain=BITS).at(), *_tapes(graph)


def _graph(word: str) -> Graph:
    graph = from_json(word)
    shaped = isinstance(graph, list) and all(isinstance(s, list) for s in graph)
    if not shaped or any(type(v) is not int or not 0 <= v < len(graph) for s in graph for v in s):
        raise NpiError(
            "a graph is a JSON list with, for each vertex, the list of its successors' numbers, such as "
            "[[1, 2], [2], []]"
        )
    return graph  # type: ignore[no-any-return]


def _dag(source: random.Random, n: int) -> Graph:
    """A random acyclic graph with about two edges per vertex, its vertices shuffled."""
    name = list(range(n))
    source.shuffle(name)
    graph: Graph = [[] for _ in range(n)]
    for i in range(n - 1):
        later = {source.randrange(i + 1, n) for _ in range(source.randint(0, 4))}
        graph[name[i]] = [name[j] for j in later]
    return graph


def _search_problem(source: random.Random, n: int) -> tuple[Graph, int]:
    return [[source.randrange(n) for _ in range(source.randint(0, 3))] for _ in range(n)], source.randrange(n)


def depth_first_order(graph: Graph) -> list[int]:
    """The order that depth-first search from 0, 1, … gives, by an explicit stack (an oracle for tests)."""
    done: list[int] = []
    seen = [False] * len(graph)
    for root in range(len(graph)):
        stack = [] if seen[root] else [(root, iter(graph[root]))]
        seen[root] = True
        while stack:
            new = next((v for v in stack[-1][1] if not seen[v]), None)
            if new is None:
                done.append(stack.pop()[0])
            else:
                seen[new] = True
                stack.append((new, iter(graph[new])))
    return done[::-1]


def _breadth_first(graph: Graph, start: int) -> list[int]:
    seen, queue, out = {start}, deque([start]), []
    while queue:
        out.append(queue.popleft())
        for v in graph[out[-1]]:
            if v not in seen:
                seen.add(v)
                queue.append(v)
    return out


ENTRIES = (
    Entry(
        name="topological_sort",
        program=topological_sort,
        summary="the vertices of an acyclic graph, each before its successors: GRAPH",
        encode=_encode_sort,
        decode=_decode_sort,
        parse=(_graph,),
        arguments=("GRAPH",),
        lessons=(([[1, 2], [2], []],), ([[1], [0]],), ([],)),
        sample=lambda source, n: (_dag(source, n),),
        oracle=depth_first_order,
    ),
    Entry(
        name="breadth_first_search",
        program=breadth_first_search,
        summary="the vertices reachable from a start, nearest first: GRAPH START",
        encode=_encode_search,
        decode=lambda heads: heads[0].tape.cells[: heads[1].position],
        parse=(_graph, integer),
        arguments=("GRAPH", "START"),
        lessons=(([[1, 2], [0], []], 0),),
        sample=_search_problem,
        oracle=_breadth_first,
    ),
)
