"""The 30 algorithms: a program, how an instance becomes tapes, and how its answer is read off them.

`UNSAID` are those that are attempted and not written down as programs here, each with the reason.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import depth
import graph_programs
import greedy
import sequences
from instances import KEYS, SIDE, STEP, WEIGHTS

from outsize.programs.npi import Head, Tape

BITS, BYTES, GRID = range(2), range(KEYS), range(SIDE)
LENGTHS = range(256)

UNSAID = {
    "matrix_chain_order": "costs are sums of n products: no finite domain that can be enumerated holds them, and a "
    "number of any size is a stretch of digits, which no cell of a table is",
    "optimal_bst": "costs are sums of n weights: as matrix_chain_order",
    "graham_scan": "n points in general position need coordinates in the order of n, and comparing two products of these "
    "a primitive of n**4 inputs; on a grid of 16 most points share an angle with another, and the benchmark's own code "
    "does not end there",
}


@dataclass(frozen=True)
class Task:
    name: str
    program: Callable[..., Any]
    heads: Callable[..., list[Head]]
    output: Callable[[list[Head]], dict[str, Any]]


def one_hot(n, *places):
    return [[int(i == p) for i in range(n)] for p in places]


def origins(head):
    return head.tape.cells


def pred(head):
    """The order as the benchmark writes it: each element's predecessor; the first one's is itself."""
    order = head.tape.cells
    found = [0] * len(order)
    for i, element in enumerate(order):
        found[element] = order[max(i - 1, 0)]
    return {"pred": found}


def sorting(name, program, starts):
    def heads(A):
        tape, origin = Tape(A, domain=BYTES), Tape(range(len(A)))
        return [*(tape.at(len(A) + s if s < 0 else s if s < 9 else len(A)) for s in starts), origin.at()]

    return Task(name, program, heads, lambda h: pred(h[-1]))


def median(h):
    n = len(h[3].tape)
    return {"median": one_hot(n, h[3].tape.cells[h[2].position])[0]}


def on_one(values, domain, *places):
    tape = Tape(values, domain=domain)
    return [tape.at(p) for p in places]


def ranks(n, *places, extra=0):
    return on_one(range(n + extra), None, *places)


def found_at(h):
    n = len(h[0].tape) + len(h[2].tape)
    return {"match": one_hot(n, h[0].position)[0]}


def kmp_heads(T, P):
    m = len(P)
    return [Tape(T, domain=range(4)).at(), *on_one(P, range(4), 0, -1), Tape([-1] * m).at(), Tape(range(m)).at(),
            Tape([0], domain=BITS).at()]  # fmt: skip


def kmp_output(h):
    n, m = len(h[0].tape), len(h[1].tape)
    return {"match": one_hot(n + m, h[0].position - m + 1 if h[5].tape.cells[0] else n)[0]}


def kadane_heads(A):
    reach = STEP * (len(A) + 1)
    ruler = Tape([0] * (2 * reach + 1))
    return [*on_one(A, range(-STEP, STEP + 1), 1, 0, 0, 0), ruler.at(reach), ruler.at(reach), ruler.at(reach)]


def kadane_output(h):
    start, end = one_hot(len(h[0].tape), h[2].position, h[3].position)
    return {"start": start, "end": end}


def lcs_heads(x, y):
    wide = len(y) + 1
    length = Tape([0] * (wide * (len(x) + 1)))
    return [Tape(x, domain=range(4)).at(), Tape(y, domain=range(4)).at(), length.at(), length.at(wide),
            Tape([0] * (len(x) * len(y)), domain=range(3)).at(), *ranks(len(x), 0, 0, extra=2)]  # fmt: skip


def lcs_output(h):
    n, cells = len(h[1].tape), h[4].tape.cells
    return {"b": [cells[i : i + n] for i in range(0, len(cells), n)]}


def activity_heads(s, f):
    n = len(s)
    return [
        *ranks(n, 0, n),
        Tape([0] * n).at(),
        Tape(s, domain=BYTES).at(),
        Tape(f, domain=BYTES).at(),
        marks(n),
    ]


def task_heads(d, w):
    n = len(d)
    return [*ranks(n, 0, n), Tape([0] * n).at(), Tape(d).at(), Tape(w, domain=BYTES).at(), marks(n),
            *on_one([0] * (n + 2), None, 1, 0)]  # fmt: skip


def marks(n, domain=BITS):
    return Tape([0] * n, domain=domain).at()


def segment_heads(xs, ys):
    x = Tape(xs, domain=GRID)
    return [x.at(), Tape(ys, domain=GRID).at(), *(x.at(i) for i in range(4)), marks(4, range(4)), marks(1)]


def hull_heads(xs, ys):
    hull = Tape([0] * len(xs), domain=BITS)
    return [Tape(xs, domain=GRID).at(), Tape(ys, domain=GRID).at(), *(hull.at() for _ in range(6))]


def matrix(A, domain):
    """The tapes of a graph: where its rows begin, and its edges."""
    n = len(A)
    return [
        Tape(range(0, n * n, n) if n else []).at(),
        Tape([x for row in A for x in row], domain=domain).at(),
    ]


def names(n, extra=0):
    return Tape(range(n + extra)).at()


def cells(key, index):
    return lambda h: {key: h[index].tape.cells}


def search_heads(A, domain=BITS, extra=()):
    n = len(A)
    return [*on_one([0] * n, BITS, 0, 0), *matrix(A, domain)]


def dfs_heads(A):
    n = len(A)
    return [*search_heads(A), names(n), names(n)]


def topological_heads(A):
    n = len(A)
    return [*search_heads(A), Tape([0] * n).at_last(), names(n), names(n), Tape([0]).at()]


def topological_output(h):
    return {"topo": h[6].tape.cells, "topo_head": one_hot(len(h[6].tape), h[7].tape.cells[0])[0]}


def dag_heads(A, s):
    n, weights = len(A), range(WEIGHTS + 1)
    return [*on_one([0] * n, BITS, s, 0), *matrix(A, weights), Tape([0] * n).at_last(), names(n), marks(n, LENGTHS),
            marks(n), names(n)]  # fmt: skip


def bfs_heads(A, s):
    n = len(A)
    return [
        *on_one([0] * n, BITS, s, 0),
        marks(n),
        *matrix(A, BITS),
        names(n),
        names(n),
        Tape([0] * (n + 1)).at(),
    ]


def bellman_heads(A, s):
    n, weights = len(A), range(WEIGHTS + 1)
    return [*on_one([0] * n, LENGTHS, s, 0), marks(n, LENGTHS), marks(n), marks(n), *matrix(A, weights), names(n),
            names(n), Tape([0] * (n + 1)).at()]  # fmt: skip


def greedy_heads(A, s, domain=range(WEIGHTS + 1)):
    n = len(A)
    return [*on_one([0] * n, LENGTHS, s, 0), marks(n), marks(n), *matrix(A, domain), names(n), names(n),
            Tape([0] * n).at()]  # fmt: skip


def prim_heads(A, s):
    return greedy_heads(A, s, BYTES)


def kruskal_heads(A):
    n = len(A)
    edges = [(i, j) for i in range(n) for j in range(i + 1, n) if A[i][j]]
    m = len(edges)
    left, right = Tape([i for i, _ in edges]).at(), Tape([j for _, j in edges]).at()
    weight = Tape([A[i][j] for i, j in edges], domain=BYTES).at()
    return [*ranks(m, 0, m), Tape([0] * m).at(), weight, left, right, names(n), names(n), marks(m)]


def kruskal_output(h):
    n = len(h[6].tape)
    found = [[0] * n for _ in range(n)]
    for i, j, chosen in zip(h[4].tape.cells, h[5].tape.cells, h[8].tape.cells):
        if chosen:
            found[i][j] = found[j][i] = 1
    return {"in_mst": found}


def floyd_heads(A):
    n = len(A)
    known = [int(i == j or A[i][j] != 0) for i in range(n) for j in range(n)]
    row, distance = matrix(A, LENGTHS)
    return [*on_one([0] * n, None, 0, 0), row, distance, Tape(known, domain=BITS).at(),
            Tape([i for i in range(n) for _ in range(n)]).at()]  # fmt: skip


def square(key, index):
    def output(h):
        flat = h[index].tape.cells
        n = int(len(flat) ** 0.5)
        return {key: [flat[i : i + n] for i in range(0, n * n, n)]}

    return output


def depth_heads(A):
    n = len(A)
    ticks = Tape(range(n + 1))
    return [
        *search_heads(A),
        names(n),
        names(n),
        ticks.at(),
        Tape([0] * n).at(),
        Tape([0] * n).at(),
        marks(n, range(3)),
    ]


def cut_heads(A):
    return [*depth_heads(A), marks(len(A))]


def bridge_heads(A):
    return [*depth_heads(A), marks(len(A) ** 2)]


def bridge_output(h):
    """-1 where there is no edge and no vertex itself, as the benchmark has it."""
    n, edge = len(h[5].tape), h[3].tape.cells
    found = square("is_bridge", 10)(h)["is_bridge"]
    return {
        "is_bridge": [[found[i][j] if i == j or edge[i * n + j] else -1 for j in range(n)] for i in range(n)]
    }


def component_heads(A):
    n = len(A)
    place = Tape(range(0, n * n, n) if n else [])
    return [*on_one([0] * n, BITS, 0, 0), marks(n), *matrix(A, BITS), Tape([0] * n).at_last(), names(n), place.at(),
            marks(n * n), names(n * n, 1), names(n)]  # fmt: skip


TASKS = [
    Task("articulation_points", depth.articulation_points, cut_heads, cells("is_cut", 10)),
    Task("activity_selector", greedy.activity_selector, activity_heads, cells("selected", 5)),
    Task("bellman_ford", graph_programs.bellman_ford, bellman_heads, cells("pi", 7)),
    Task("bfs", graph_programs.bfs, bfs_heads, cells("pi", 5)),
    Task("binary_search", sequences.binary_search,
         lambda x, A: [*on_one(A, BYTES, 0, len(A) - 1), Tape([x], domain=BYTES).at()],
         lambda h: {"return": one_hot(len(h[0].tape), h[1].position)[0]}),
    Task("bridges", depth.bridges, bridge_heads, bridge_output),
    sorting("bubble_sort", sequences.bubble_sort, (0, -1)),
    Task("dag_shortest_paths", graph_programs.dag_shortest_paths, dag_heads, cells("pi", 8)),
    Task("dfs", graph_programs.dfs, dfs_heads, cells("pi", 4)),
    Task("dijkstra", graph_programs.dijkstra, greedy_heads, cells("pi", 6)),
    Task("find_maximum_subarray_kadane", sequences.find_maximum_subarray_kadane, kadane_heads, kadane_output),
    Task("floyd_warshall", graph_programs.floyd_warshall, floyd_heads, square("Pi", 5)),
    sorting("heapsort", sequences.heapsort, (0, -1, 9)),
    sorting("insertion_sort", sequences.insertion_sort, (0,)),
    Task("jarvis_march", greedy.jarvis_march, hull_heads, cells("in_hull", 2)),
    Task("kmp_matcher", sequences.kmp_matcher, kmp_heads, kmp_output),
    Task("lcs_length", sequences.lcs_length, lcs_heads, lcs_output),
    Task("minimum", sequences.minimum, lambda A: on_one(A, BYTES, 0, 0),
         lambda h: {"min": one_hot(len(h[0].tape), h[0].position)[0]}),
    Task("mst_kruskal", graph_programs.mst_kruskal, kruskal_heads, kruskal_output),
    Task("mst_prim", graph_programs.mst_prim, prim_heads, cells("pi", 6)),
    Task("naive_string_matcher", sequences.naive_string_matcher,
         lambda T, P: [*on_one(T, range(4), 0, len(T) - len(P)), Tape(P, domain=range(4)).at()], found_at),
    Task("quickselect", sequences.quickselect,
         lambda A: [*on_one(A, BYTES, 0, len(A) - 1, len(A) // 2), Tape(range(len(A))).at()], median),
    sorting("quicksort", sequences.quicksort, (0, -1)),
    Task("segments_intersect", greedy.segments_intersect, segment_heads, lambda h: {"intersect": h[7].tape.cells[0]}),
    Task("strongly_connected_components", depth.strongly_connected_components, component_heads, cells("scc_id", 10)),
    Task("task_scheduling", greedy.task_scheduling, task_heads, cells("selected", 5)),
    Task("topological_sort", graph_programs.topological_sort, topological_heads, topological_output),
]  # fmt: skip
