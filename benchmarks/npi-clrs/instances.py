"""Random instances of the 30 algorithms, drawn as the benchmark draws them, with integers in place of its floats: keys
and weights from 256 or 15 values, coordinates from 16. The same seed gives the same instance everywhere.
"""

import random

KEYS, WEIGHTS, SIDE, STEP = 256, 15, 16, 15


def keys(s, n):
    return {"A": s.choices(range(KEYS), k=n)}


def search(s, n):
    return {"x": s.randrange(KEYS), "A": sorted(s.choices(range(KEYS), k=n))}


def signed(s, n):
    return {"A": s.choices(range(-STEP, STEP + 1), k=n)}


def spans(s, n):
    pairs = [sorted(s.choices(range(KEYS), k=2)) for _ in range(n)]
    return {"s": [a for a, _ in pairs], "f": [b for _, b in pairs]}


def jobs(s, n):
    return {"d": [s.randint(1, n) for _ in range(n)], "w": s.choices(range(KEYS), k=n)}


def strings(s, n):
    return {"x": s.choices(range(4), k=n), "y": s.choices(range(4), k=n)}


def needle(s, n):
    short = s.randint(1, 3) if n < 5 else s.randint(1, n // 5)
    pattern, text = s.choices(range(4), k=short), s.choices(range(4), k=max(n - short, short))
    at = s.randint(0, len(text) - short)
    text[at : at + short] = pattern
    return {"T": text, "P": pattern}


def points(s, n):
    return {"xs": s.choices(range(SIDE), k=n), "ys": s.choices(range(SIDE), k=n)}


def four_points(s, n):
    return points(s, 4)


def chain(s, n):
    return {"p": [s.randint(1, 10) for _ in range(n)]}


def tree(s, n):
    return {"p": s.choices(range(KEYS), k=n), "q": s.choices(range(KEYS), k=n + 1)}


def graph(s, n, *, directed=True, acyclic=False, weights=0, probability=None, start=True):
    """An Erdős-Rényi graph as a matrix; its vertices are shuffled where it has no cycle."""
    p = s.choice([i / 10 for i in range(1, 10)]) if probability is None else probability
    name = list(range(n))
    s.shuffle(name)
    matrix = [[0] * n for _ in range(n)]
    for i in range(n):
        for j in range(n if directed and not acyclic else i):
            if i != j and s.random() < p:
                weight = s.randint(1, weights) if weights else 1
                matrix[name[i]][name[j]] = weight
                if not directed:
                    matrix[name[j]][name[i]] = weight
    return {"A": matrix, "s": s.randrange(n)} if start else {"A": matrix}


def plain(s, n):
    return graph(s, n, start=False)


def sparse(s, n):
    """Few edges, so that there is something to find."""
    return graph(s, n, directed=False, probability=min(0.5, 1.6 / n), start=False)


def few(s, n):
    return graph(s, n, probability=min(0.5, 1.6 / n), start=False)


def cycle_free(s, n):
    return graph(s, n, acyclic=True, start=False)


def from_a_start(s, n):
    return graph(s, n, directed=False)


def weighted(s, n):
    return graph(s, n, directed=False, weights=WEIGHTS)


def weighted_dag(s, n):
    return graph(s, n, acyclic=True, weights=WEIGHTS)


def spanning(s, n):
    return graph(s, n, directed=False, weights=KEYS - 1)


def all_pairs(s, n):
    """At 1,000 the longest way that is tried is 773 with weights up to 15, and 112 with these; tapes hold 255."""
    return graph(s, n, weights=WEIGHTS if n < 1_000 else 3, probability=min(0.5, 3 / n), start=False)


def edges_by_weight(s, n):
    return graph(s, n, directed=False, weights=KEYS - 1, probability=min(0.5, 8 / n), start=False)


#: What each algorithm is given.
INSTANCES = {
    "articulation_points": sparse,
    "activity_selector": spans,
    "bellman_ford": weighted,
    "bfs": from_a_start,
    "binary_search": search,
    "bridges": sparse,
    "bubble_sort": keys,
    "dag_shortest_paths": weighted_dag,
    "dfs": plain,
    "dijkstra": weighted,
    "find_maximum_subarray_kadane": signed,
    "floyd_warshall": all_pairs,
    "graham_scan": points,
    "heapsort": keys,
    "insertion_sort": keys,
    "jarvis_march": points,
    "kmp_matcher": needle,
    "lcs_length": strings,
    "matrix_chain_order": chain,
    "minimum": keys,
    "mst_kruskal": edges_by_weight,
    "mst_prim": spanning,
    "naive_string_matcher": needle,
    "optimal_bst": tree,
    "quickselect": keys,
    "quicksort": keys,
    "segments_intersect": four_points,
    "strongly_connected_components": few,
    "task_scheduling": jobs,
    "topological_sort": cycle_free,
}


def instance(name, size, seed):
    return INSTANCES[name](random.Random(f"{name} {size} {seed}"), size)
