"""The controls of the ladder, on the same problems. Writes result.json beside it.

    python benchmarks/npi-controls/run.py

Addition of up to 3 digits (200 problems) and sorting of length 2 (100 lists), then longer; three seeds, the worst one
reported. `random sets`: our own controller on as many random executions as the chosen ones, drawn twenty times.
"""

import argparse
import json
import random
import time
from pathlib import Path

import models
import torch

from outsize.errors import NpiError
from outsize.programs import npi
from outsize.programs.npi.brains import NetworkBrain
from outsize.programs.npi.calls import COPY
from outsize.programs.npi.controller import check_controller, train_controller
from outsize.programs.npi.library import LIBRARY
from outsize.programs.npi.long import flat_traces, train_flat
from outsize.programs.npi.machine import Limits, Machine

SEEDS = 3
#: Problems per length for the flat controllers, which are run one at a time since each fails in its own way.
FLAT_PROBLEMS = 30
SUMS, SORTS = (3, 5, 10, 20), (2, 3, 4, 8, 20)


def flat_addition(a, b, c, out):
    while not a.at_start():
        x, y, z = a.read(), b.read(), c.read()
        out.write((x + y + z) % 10)
        c.write((x + y + z) // 10)
        a.move(-1)
        b.move(-1)
        out.move(-1)
    out.write(c.read())


def flat_bubble(first, last, p, q):
    while first.before(last):
        p.goto(first)
        while p.before(last):
            q.goto(p)
            q.move(1)
            x, y = p.read(), q.read()
            if y < x:
                p.write(y)
                q.write(x)
            p.move(1)
        last.move(-1)


def bubble_heads(xs):
    tape = npi.Tape(xs, domain=range(10))
    return tape.at(), tape.at_last(), tape.at(), tape.at()


def addition_heads(pair):
    return LIBRARY["addition"].encode(*pair)


#: Exact primitives: what is compared here are controllers.
EXACT = {
    "out": lambda v, _: v.sum(1) % 10,
    "c": lambda v, _: v.sum(1) // 10,
    "less": lambda v, _: (v[:, 0] < v[:, 1]).astype("int64"),
}


def flat_exact(controller, heads, want, read, limit):
    """Exact results of a flat controller; an execution that goes wrong (off a tape, too long) counts as wrong."""
    right = 0
    for one, answer in zip(heads, want):
        try:
            Machine(NetworkBrain(controller), EXACT, Limits(steps=limit), flat=True).run([one])
            right += read(one) == answer
        except (NpiError, IndexError, KeyError):
            pass
    return right / len(want)


def non_recursive(seed):
    source = random.Random(seed)
    draws = [LIBRARY["addition"].sample(source, source.randint(1, 3)) for _ in range(40)]
    model = train_flat(
        flat_traces(flat_addition, [lambda d=d: addition_heads(d) for d in draws]), epochs=12, seed=seed
    )
    rows = {"addition": {}, "sort": {}}
    for n in SUMS:
        cases = [LIBRARY["addition"].sample(source, n) for _ in range(FLAT_PROBLEMS)]
        want, heads = [str(int(a) + int(b)) for a, b in cases], [addition_heads(c) for c in cases]
        rows["addition"][n] = flat_exact(model, heads, want, LIBRARY["addition"].decode, 20 * n + 50)
    lists = [source.choices(range(10), k=2) for _ in range(100)]
    model = train_flat(
        flat_traces(flat_bubble, [lambda x=x: bubble_heads(x) for x in lists]), epochs=4, seed=seed
    )
    for n in SORTS:
        lists = [source.choices(range(10), k=n) for _ in range(FLAT_PROBLEMS)]
        want, heads = list(map(sorted, lists)), [bubble_heads(x) for x in lists]
        rows["sort"][n] = flat_exact(model, heads, want, lambda h: h[0].tape.cells, 12 * n * n + 100)
    return rows


def ours(seed):
    source, rows = random.Random(seed), {"addition": {}, "sort": {}}
    for task, name, lengths in (("addition", "addition", SUMS), ("sort", "bubble_sort", SORTS)):
        model, entry = npi.learn(name, seed=seed), LIBRARY[name]
        for n in lengths:
            cases = [entry.sample(source, n) for _ in range(100)]
            heads = [entry.encode(*c) for c in cases]
            npi.run(model, heads, engine="network")
            rows[task][n] = sum(entry.decode(h) == entry.oracle(*c) for h, c in zip(heads, cases)) / 100
    return rows


def sequence(kind):
    def run(seed):
        source = random.Random(99 + seed)
        model = models.train_sequence(kind, "sum", (1, 2, 3), 200, seed, 600)
        rows = {"addition": {n: models.exact(model, kind, "sum", source, n) for n in SUMS}}
        model = models.train_sequence(kind, "sort", (2,), 100, seed, 400)
        rows["sort"] = {n: models.exact(model, kind, "sort", source, n) for n in SORTS}
        return rows

    return run


def plain(problems):
    def run(seed):
        columns, table = models.plain_npi(seed, problems, 3, 800)
        source = random.Random(99 + seed)
        rows = {"addition": {n: models.plain_exact(table, source, n) for n in SUMS}, "columns_seen": columns}
        pairs, table = models.plain_sorter(seed, problems, 800)
        rows["sort"] = {n: models.plain_sorted(table, source, n) for n in SORTS}
        return rows | {"pairs_seen": pairs}

    return run


def random_sets(table):
    """As many random executions as the chosen ones: does the controller learn the whole verification set?"""
    out = {}
    for name, length in (("bubble_sort", 2), ("merge_sort", 3), ("match", 3), ("topological_sort", 3)):
        template, entry, source = npi.template_of(name), LIBRARY[name], random.Random(1)
        count, holds, exact = len(entry.lessons), 0, []
        for draw in range(20):
            low = 1 if name == "match" else 0
            lessons = [entry.sample(source, source.randint(low, length)) for _ in range(count)]
            examples = [lambda a=a, entry=entry: entry.encode(*a) for a in lessons]
            traces = npi.trace(entry.program, examples)
            renamed = rename(traces, template)
            controller = train_controller(template.vocabulary, renamed, seed=draw)
            good = check_controller(controller, template.closure.rows).errors == 0
            holds += good
            exact.append(len(set(renamed) & set(template.closure.rows)) / len(template.closure.rows))
        out[name] = {
            "executions": count,
            "sets": 20,
            "whole_set_right": holds,
            "mean_share_of_rows_seen": sum(exact) / 20,
        }
        print(name, json.dumps(out[name]), flush=True)
        write(table, out)


def rename(traces, template):
    """Rows with the template's slot names: sites are numbered in order of appearance, which a random set changes."""
    sites = {(s.where, s.text, s.kind): s.name for s in template.sites.values()}
    names = {s.name: sites[s.where, s.text, s.kind] for s in traces.slots} | {"": "", COPY: COPY}
    return [
        row._replace(
            steps=tuple(s._replace(action=s.action._replace(slot=names[s.action.slot])) for s in row.steps)
        )
        for row in traces.rows
    ]


def write(table, sets):
    """After each job: what has been run is in the file, and nothing else."""
    report = {"seeds": SEEDS, "table": table, "random_sets": sets}
    Path(__file__).with_name("result.json").write_text(json.dumps(report, indent=1) + "\n")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--only-sets", action="store_true", help="keep the table that is there")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.only_sets:
        random_sets(json.loads(Path(__file__).with_name("result.json").read_text())["table"])
        return
    jobs = {
        "ours": ours,
        "non-recursive NPI": non_recursive,
        "plain NPI, 20 traces": plain(20),
        "plain NPI, 200 traces": plain(200),
        "sequence-to-sequence GRU": sequence("seq2seq"),
        "looped transformer": sequence("looped"),
    }
    table = {}
    for name, job in jobs.items():
        started, cpu = time.perf_counter(), time.process_time()
        runs = [job(seed) for seed in range(SEEDS)]
        worst = {
            t: {n: min(r[t][n] for r in runs) for n in runs[0][t]}
            for t in ("addition", "sort")
            if t in runs[0]
        }
        table[name] = {
            "worst": worst,
            "runs": runs,
            "seconds": time.perf_counter() - started,
            "cpu_s": time.process_time() - cpu,
        }
        print(name, json.dumps(worst), f"{table[name]['cpu_s']:.0f} cpu s", flush=True)
        write(table, {})
    random_sets(table)


if __name__ == "__main__":
    main()
