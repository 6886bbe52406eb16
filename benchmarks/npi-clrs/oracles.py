"""Answers at sizes at which the benchmark's own code runs for days; equal to it at 16 and 64 (run.py compares both)."""

import numpy as np


def floyd_warshall(A):
    """The benchmark's loops over rows and columns, a row at a time."""
    n = len(A)
    distance = np.array(A, dtype=np.int64)
    known = (distance != 0) | np.eye(n, dtype=bool)
    parent = np.tile(np.arange(n)[:, None], (1, n))
    for k in range(n):
        through = distance[:, k : k + 1] + distance[k]
        both = known[:, k : k + 1] & known[k]
        better = both & (~known | (through < distance))
        distance = np.where(better, through, distance)
        parent = np.where(better, parent[k], parent)
        known |= both
    return {"Pi": parent.tolist()}


def lcs_length(x, y):
    length = np.zeros((len(x) + 1, len(y) + 1), dtype=np.int64)
    choice = np.zeros((len(x), len(y)), dtype=np.int64)
    for i, a in enumerate(x):
        for j, b in enumerate(y):
            up, left = length[i, j + 1], length[i + 1, j]
            choice[i, j] = 0 if a == b else 1 if up >= left else 2
            length[i + 1, j + 1] = length[i, j] + 1 if a == b else max(up, left)
    return {"b": choice.tolist()}


ORACLES = {"floyd_warshall": floyd_warshall, "lcs_length": lcs_length}
