"""What the benchmark's own code answers: digests of its outputs, which run.py compares the models' with.

    python -m venv clrs && clrs/bin/pip install --no-deps dm-clrs==2.0.3
    clrs/bin/pip install absl-py attrs numpy jax chex
    clrs/bin/python benchmarks/npi-clrs/expected.py

Its algorithms run on this folder's instances. Only the outputs are recorded (the states in between of 1,000 elements fit
no memory: these calls are taken out of the source), `np.argsort` is made stable (its order of equal keys is not defined),
and at 1,000 elements what would run for days is left to an oracle that equals them at 16 and 64: see `BY_OTHER_MEANS`.
"""

import ast
import hashlib
import importlib.util
import json
import sys
import types
from pathlib import Path

import numpy as np
from instances import INSTANCES, instance

HERE = Path(__file__).parent
#: Instances of each size: seeds 0 to this.
COUNTS = {16: 20, 64: 10, 1_000: 1}
#: At 1,000: cubic (or worse) in Python.
BY_OTHER_MEANS = {"floyd_warshall", "lcs_length"}
UNSAID = {"matrix_chain_order", "optimal_bst", "graham_scan"}


MODULES = (
    "divide_and_conquer",
    "dynamic_programming",
    "geometry",
    "graphs",
    "greedy",
    "searching",
    "sorting",
    "strings",
)


class Outputs(ast.NodeTransformer):
    """Drops the calls that record inputs and the states in between."""

    def visit_Expr(self, node):
        text = ast.unparse(node)
        dropped = text.startswith("probing.push") and "Stage.OUTPUT" not in text
        return ast.Pass() if dropped or text.startswith("probing.finalize") else node


def library():
    """The package's algorithms by name, and where their outputs are put. TensorFlow is needed for other records alone."""
    sys.modules["tensorflow"] = types.ModuleType("tensorflow")
    root = Path(importlib.util.find_spec("clrs").origin).parent
    for name in ("clrs", "clrs._src"):
        module = sys.modules[name] = types.ModuleType(name)
        module.__path__ = [str(root.joinpath(*name.split(".")[1:]))]
    kept, found = {}, {}
    for name in MODULES:
        tree = Outputs().visit(ast.parse((root / "_src" / "algorithms" / f"{name}.py").read_text()))
        space = {"__name__": name}
        exec(compile(ast.fix_missing_locations(tree), f"<clrs {name}>", "exec"), space)
        space["probing"].push = lambda probes, stage, next_probe: kept.update(next_probe)
        found |= {k: v for k, v in space.items() if k in INSTANCES}
    sort = np.argsort
    np.argsort = lambda a, *rest, **named: sort(a, *rest, **{**named, "kind": "stable"})
    return found, kept


def canonical(name, output):
    """Plain lists of integers, as `algorithms.py` gives them."""
    parts = {k: np.asarray(v).astype(np.int64) for k, v in output.items()}
    if name == "lcs_length":  # rows are x, columns y; of the four categories the last fills the rest
        n = len(parts["b"]) // 2
        parts["b"] = parts["b"][:n, n:, :3].argmax(-1)
    return {k: v.tolist() for k, v in parts.items()}


def digest(parts):
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def answer(algorithms, kept, name, problem):
    kept.clear()
    given = {k: np.array(v, dtype=float) if isinstance(v, list) else v for k, v in problem.items()}
    if name in ("naive_string_matcher", "kmp_matcher", "lcs_length"):
        given = {k: v.astype(int) for k, v in given.items()}
    algorithms[name](*given.values())
    return canonical(name, kept)


def main():
    algorithms, kept = library()
    found = {}
    for name in sorted(INSTANCES):
        for size, count in COUNTS.items():
            if name in UNSAID or (size == 1_000 and name in BY_OTHER_MEANS):
                continue
            for seed in range(count):
                parts = answer(algorithms, kept, name, instance(name, size, seed))
                found[f"{name} {size} {seed}"] = digest(parts)
        print(name, flush=True)
    (HERE / "expected.json").write_text(json.dumps(found, indent=0) + "\n")


if __name__ == "__main__":
    sys.setrecursionlimit(100_000)
    main()
