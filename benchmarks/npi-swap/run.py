"""Twenty held-out primitives for each higher-order function, the controller frozen. Writes result.json beside it.

    python benchmarks/npi-swap/run.py

Each primitive is trained from input/output pairs, as `outsize npi swap` does from a CSV, and runs 100 random lists of
1,000 elements (numbers of 1,000 digits). `partial` trains on part of the pairs only: there the networks err, and exact
results are set beside the bound (1 - e)^m with e the certificate's upper bound and m the calls made.
"""

import argparse
import functools
import itertools
import json
import random
from pathlib import Path

import torch
from scipy.stats import binom

from outsize.programs import npi
from outsize.programs.npi.brains import PrimitiveCaller, TableBrain
from outsize.programs.npi.library import LIBRARY
from outsize.programs.npi.machine import Machine

LISTS, LENGTH = 100, 1_000
BITS, D, H, S = range(2), range(10), range(100), range(32)

UNARY = {
    **{
        f"{k}x+{c} mod 100": (lambda x, k=k, c=c: (k * x + c) % 100)
        for k, c in [(1, 1), (7, 0), (9, 5), (11, 3), (99, 99)]
    },
    **{f"x^{p} mod 100": (lambda x, p=p: x**p % 100) for p in (2, 3, 4, 5, 7)},
    "half": lambda x: x // 2,
    "digits swapped": lambda x: x % 10 * 10 + x // 10,
    "digit sum": lambda x: x // 10 + x % 10,
    "xor 21": lambda x: (x ^ 21) % 100,
    "complement": lambda x: 99 - x,
    "bits": lambda x: bin(x).count("1"),
    "root": lambda x: int(x**0.5),
    "least with 40": lambda x: min(x, 40),
    "largest with 60": lambda x: max(x, 60),
    "distance to 50": lambda x: abs(x - 50),
}
TESTS = {
    **{f"divisible by {k}": (lambda x, k=k: x % k == 0) for k in (3, 4, 5, 6, 7, 9)},
    **{f"below {k}": (lambda x, k=k: x < k) for k in (10, 33, 80, 99)},
    **{f"differs from {k}": (lambda x, k=k: x != k) for k in (0, 13, 77)},
    "prime": lambda x: x > 1 and all(x % k for k in range(2, x)),
    "square": lambda x: int(x**0.5) ** 2 == x,
    "odd digit sum": lambda x: (x // 10 + x % 10) % 2 == 1,
    "few bits": lambda x: bin(x).count("1") < 3,
    "palindrome": lambda x: str(x) == str(x)[::-1],
    "between": lambda x: 20 <= x < 70,
    "bit 3": lambda x: x >> 3 & 1 == 1,
}
BINARY = {
    **{
        f"{a}x+{b}y mod 10": (lambda x, y, a=a, b=b: (a * x + b * y) % 10)
        for a, b in [(1, 1), (1, 9), (3, 7), (2, 5), (9, 9), (4, 1)]
    },
    "max": max,
    "min": min,
    "distance": lambda x, y: abs(x - y),
    "first": lambda x, y: x,
    "second": lambda x, y: y,
    "xor": lambda x, y: (x ^ y) % 10,
    "and": lambda x, y: x & y,
    "or": lambda x, y: (x | y) % 10,
    "power": lambda x, y: x**y % 10,
    "product+1": lambda x, y: (x * y + 1) % 10,
    "squares": lambda x, y: (x * x + y * y) % 10,
    "mean": lambda x, y: (x + y) // 2,
    "if greater": lambda x, y: x if x > y else 0,
    "equal": lambda x, y: int(x == y),
}
KEYS = {
    "descending": lambda x: -x,
    **{f"{k}x mod 32": (lambda x, k=k: k * x % 32) for k in (3, 5, 7, 11, 13)},
    **{f"x mod {k}": (lambda x, k=k: x % k) for k in (2, 3, 4, 5, 7, 10)},
    "bits": lambda x: bin(x).count("1"),
    "decimal text": str,
    "last digit first": lambda x: str(x)[::-1],
    "distance to 16": lambda x: abs(x - 16),
    "distance to 5": lambda x: abs(x - 5),
    "odd first": lambda x: (x % 2 == 0, x),
    "even first": lambda x: (x % 2, x),
    "square mod 29": lambda x: x * x % 29,
}


COLUMNS = {
    **{
        ("add", b): (lambda x, y, c, b=b: (x + y + c) % b, lambda x, y, c, b=b: (x + y + c) // b)
        for b in range(2, 10)
    },
    **{
        ("subtract", b): (lambda x, y, c, b=b: (x - y - c) % b, lambda x, y, c: int(x < y + c))
        for b in range(2, 11)
    },
    ("max", 10): (lambda x, y, c: max(x, y), lambda x, y, c: 0),
    ("min", 10): (lambda x, y, c: min(x, y), lambda x, y, c: 0),
    ("and", 10): (lambda x, y, c: x & y, lambda x, y, c: 0),
}


def fill(name, fills, seed=0):
    model = npi.shipped(name)
    for slot, pairs in fills.items():
        model = npi.swap(model, slot, pairs, seed=seed)
    return model


def pairs(function, *domains):
    return {inputs: int(function(*inputs)) for inputs in itertools.product(*domains)}


def tally(name, model, cases, want, read=None):
    entry = LIBRARY[name]
    heads = [entry.encode(*case) for case in cases]
    npi.run(model, heads, engine=model.fastest)
    return sum((read or entry.decode)(h) == want(*c) for h, c in zip(heads, cases))


def lists(source, domain, count=1):
    return [tuple(source.choices(domain, k=LENGTH) for _ in range(count)) for _ in range(LISTS)]


def report(rows, name, primitive, model, right):
    errors = sum(c.errors for c in model.checks.values())
    rows.append(
        {"template": name, "primitive": primitive, "primitive_errors": errors, "right": right, "of": LISTS}
    )


def exact_rows(source):
    rows = []
    for label, f in UNARY.items():
        model = fill("map", {"f": pairs(f, H)})
        report(
            rows,
            "map",
            label,
            model,
            tally("map", model, lists(source, H), lambda xs, f=f: [f(x) for x in xs]),
        )
    for label, f in TESTS.items():
        model = fill("filter", {"keep": pairs(f, H)})
        report(
            rows,
            "filter",
            label,
            model,
            tally("filter", model, lists(source, H), lambda xs, f=f: [x for x in xs if f(x)]),
        )
        model = fill("take_while", {"going": pairs(f, H)})
        yes = [x for x in H if f(x)]
        cases = [(source.choices(yes, k=LENGTH - 1) + source.choices(H, k=1),) for _ in range(LISTS)]
        want = lambda xs, f=f: list(itertools.takewhile(f, xs))  # noqa: E731
        report(rows, "take_while", label, model, tally("take_while", model, cases, want))
    for label, f in BINARY.items():
        table = pairs(f, D, D)
        model = fill("zip_with", {"g": table})
        want = lambda xs, ys, f=f: [int(f(x, y)) for x, y in zip(xs, ys)]  # noqa: E731
        report(rows, "zip_with", label, model, tally("zip_with", model, lists(source, D, 2), want))
        model = fill("fold", {"step": table})
        report(
            rows,
            "fold",
            label,
            model,
            tally("fold", model, lists(source, D), lambda xs, f=f: int(functools.reduce(f, xs, 0))),
        )
        model = fill("scan", {"step": table})
        want = lambda xs, f=f: [int(v) for v in itertools.accumulate(xs, f, initial=0)][1:]  # noqa: E731
        report(rows, "scan", label, model, tally("scan", model, lists(source, D), want))
    for label, key in KEYS.items():
        less = pairs(lambda x, y, key=key: key(x) < key(y), S, S)
        for name in ("merge_sort", "insertion_sort", "bubble_sort", "quick_sort"):
            stable = name != "quick_sort"
            model = fill(name, {"less": less})
            read = (
                (lambda h: h[0].tape.cells)
                if stable
                else (lambda h, key=key: [key(x) for x in h[0].tape.cells])
            )
            want = (
                (lambda xs, key=key: sorted(xs, key=key))
                if stable
                else (lambda xs, key=key: sorted(map(key, xs)))
            )
            report(rows, name, label, model, tally(name, model, lists(source, S), want, read))
    return rows + column_rows(source)


def column_rows(source):
    """Column-wise arithmetic in other bases, by addition's controller."""
    rows = []
    for (rule, base), (digit, carry) in COLUMNS.items():
        width = range(base)
        fills = {"digit": pairs(digit, width, width, BITS), "carry": pairs(carry, width, width, BITS)}
        model = fill("addition", fills, seed=len(rows))
        alphabet = "0123456789"[:base]
        cases = [tuple("".join(source.choices(alphabet, k=LENGTH)) for _ in range(2)) for _ in range(LISTS)]
        cases = [tuple(sorted(case, reverse=True)) for case in cases]

        def want(a, b, base=base, rule=rule, digit=digit):
            x = sum(int(d) * base**i for i, d in enumerate(reversed(a)))
            y = sum(int(d) * base**i for i, d in enumerate(reversed(b)))
            if rule in ("add", "subtract"):
                return x + y if rule == "add" else x - y
            return int("".join(str(digit(int(p), int(q), 0)) for p, q in zip(a, b)))

        def read(heads, base=base):
            return sum(d * base**i for i, d in enumerate(reversed(heads[3].tape.cells)))

        report(rows, "addition", f"{rule}, base {base}", model, tally("addition", model, cases, want, read))
    return rows


def partial_rows(source):
    """Primitives that err, because they saw part of their pairs only."""
    rows = []
    spread = range(64)
    jobs = [("zip_with", "g", f"{k} of 100 pairs of min", min, D, k) for k in (50, 80)]
    jobs += [
        ("merge_sort", "less", f"{k} of 4096 pairs", lambda x, y: x < y, spread, k)
        for k in (400, 1_000, 3_000)
    ]
    for name, slot, label, function, domain, count in jobs:
        everything = pairs(function, domain, domain)
        known = dict(source.sample(sorted(everything.items()), count))
        model = npi.swap(npi.shipped(name), slot, known)
        e = model.checks[slot].error_bound
        for length in (10, 30, 100):
            calls, right = run_counted(name, model, slot, source, domain, length, function)
            bound = sum((1 - e) ** m for m in calls) / len(calls)
            # 0 of 100 right does not speak against a bound of 0.1 %: below is what chance would rarely do.
            chance = float(binom.cdf(right, LISTS, bound))
            rows.append(
                {
                    "template": name,
                    "primitive": label,
                    "length": length,
                    "e": e,
                    "mean_calls": sum(calls) / len(calls),
                    "bound": bound,
                    "right": right,
                    "of": LISTS,
                    "chance_of_so_few_at_the_bound": chance,
                    "holds": chance > 0.05,
                }
            )
    return rows


def run_counted(name, model, slot, source, domain, length, function):
    entry = LIBRARY[name]
    count = 2 if name == "zip_with" else 1
    cases = [tuple(source.choices(domain, k=length) for _ in range(count)) for _ in range(LISTS)]
    heads, calls = [entry.encode(*case) for case in cases], [0] * LISTS

    def hear(action, execution, seen):
        calls[execution] += action.slot == slot

    callers = {s: PrimitiveCaller(m) for s, m in model.primitives.items()}
    Machine(TableBrain(model.tables), callers, None, hear).run(heads)
    want = (lambda xs, ys: [function(x, y) for x, y in zip(xs, ys)]) if count == 2 else sorted
    return calls, sum(entry.decode(h) == want(*c) for h, c in zip(heads, cases))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--only-partial", action="store_true", help="keep the exact rows that are there")
    options = parser.parse_args()
    torch.set_num_threads(1)
    path = Path(__file__).with_name("result.json")
    partial = partial_rows(random.Random(11))
    exact = json.loads(path.read_text())["exact"] if options.only_partial else exact_rows(random.Random(12))
    summary = {
        name: {
            "primitives": sum(r["template"] == name for r in exact),
            "exact_primitives": sum(r["template"] == name and not r["primitive_errors"] for r in exact),
            "all_right": sum(r["template"] == name and r["right"] == r["of"] for r in exact),
        }
        for name in sorted({row["template"] for row in exact})
    }
    report_ = {"lists": LISTS, "length": LENGTH, "summary": summary, "partial": partial, "exact": exact}
    path.write_text(json.dumps(report_, indent=1) + "\n")
    print(json.dumps({"summary": summary, "partial": partial}, indent=1))


if __name__ == "__main__":
    main()
