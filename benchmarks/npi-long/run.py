"""Back-propagation through one execution of 10⁵ system calls, plain and under a budget. Writes result.json beside it.

    python benchmarks/npi-long/run.py [--budget "24 MiB"]

The non-recursive controller learns one whole bubble sort of 160 digits. One step of training each, the same executor and
meter for both; losses and gradients must be equal to the bit.
"""

import argparse
import json
import random
from pathlib import Path

import torch

import outsize
from outsize.programs import npi
from outsize.programs.npi.controller import Controller
from outsize.programs.npi.long import LongTrace, as_long_trace, flat_traces, flat_vocabulary


def bubble(first, last, p, q):
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


def example(xs):
    def make():
        tape = npi.Tape(xs, domain=range(10))
        return tape.at(), tape.at_last(), tape.at(), tape.at()

    return make


def steps(module, seen, wanted, count):
    """Losses, final gradients and the record of `count` steps."""
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    losses = []
    for _ in range(count):
        optimizer.zero_grad()
        loss = module(seen, wanted)
        loss.backward()
        losses.append(float(loss.detach()))
        gradients = [p.grad.clone() for p in module.parameters()]
        optimizer.step()
    return losses, gradients, outsize.report(module, timelines=False)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--budget", default="24 MiB")
    parser.add_argument("--length", type=int, default=160)
    parser.add_argument("--segment", type=int, default=1_000)
    options = parser.parse_args()
    torch.set_num_threads(1)
    source = random.Random(0)
    row = flat_traces(bubble, [example(source.choices(range(10), k=options.length))])[0]
    vocabulary = flat_vocabulary([row])
    seen, wanted = as_long_trace(vocabulary, row)

    def fresh():
        torch.manual_seed(0)
        return LongTrace(Controller(vocabulary), segment=options.segment)

    plain = steps(outsize.meter(fresh()), seen, wanted, 1)
    planned = steps(outsize.compile(fresh(), budget=options.budget), seen, wanted, 1)
    equal = plain[0] == planned[0] and all(torch.equal(a, b) for a, b in zip(plain[1], planned[1]))
    assert equal, "the planned step differs"
    keys = ("measured_peak_bytes", "predicted_peak_bytes", "resident_bytes", "swapped_out_bytes", "capture_seconds",
            "measured_step_seconds", "stall_seconds")  # fmt: skip
    report = {
        "system_calls": len(seen), "segment": options.segment, "budget": options.budget,
        "budget_bytes": planned[2].budget_bytes, "losses": plain[0], "bitwise_equal": equal,
        "plain": {k: getattr(plain[2], k) for k in keys}, "planned": {k: getattr(planned[2], k) for k in keys},
        "held": planned[2].measured_peak_bytes <= planned[2].budget_bytes,
    }  # fmt: skip
    Path(__file__).with_name("result.json").write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
