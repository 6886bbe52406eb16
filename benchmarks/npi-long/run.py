"""Back-propagation through one execution of 10⁵ system calls: plain PyTorch, by segments, and under a budget.

    python benchmarks/npi-long/run.py [--budget "48 MiB"]

The non-recursive controller learns one whole bubble sort as a single sequence. Each step runs in a process of its own.
`torch.nn.LSTM` is the plain step, as PyTorch has it. `segments` is the same loss with one operator per 2,500 steps
(`LongTrace`); `planned` is that under `outsize.compile`: losses and gradients of these two must be equal to the bit.
Writes result.json beside it.
"""

import argparse
import hashlib
import json
import random
import subprocess
import sys
import time
from pathlib import Path

import torch
from torch import nn

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


class Plain(nn.Module):
    """The same controller and loss with PyTorch's own LSTM over the whole sequence."""

    def __init__(self, controller):
        super().__init__()
        self.controller = controller
        self.lstm = nn.LSTM(controller.embedding, controller.hidden)
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            setattr(self.lstm, f"{name}_l0", getattr(controller.cell, name))

    def forward(self, seen, wanted):
        model = self.controller
        hs, _ = self.lstm(model.seen(seen) + model.program.weight[0])
        heads = model.heads(hs).split(model.widths, 1)
        return sum(nn.functional.cross_entropy(head, wanted[:, i]) for i, head in enumerate(heads))


def kib(field):
    """A line of /proc/self/status, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(field))


def child(options):
    """One training step; prints what it took as JSON."""
    torch.set_num_threads(1)
    source = random.Random(0)
    row = flat_traces(bubble, [example(source.choices(range(10), k=options.length))])[0]
    vocabulary = flat_vocabulary([row])
    seen, wanted = as_long_trace(vocabulary, row)
    torch.manual_seed(0)
    controller = Controller(vocabulary, hidden=options.hidden)
    make = {
        "plain": Plain,
        "segments": lambda c: outsize.meter(LongTrace(c, segment=options.segment)),
        "planned": lambda c: outsize.compile(LongTrace(c, segment=options.segment), budget=options.budget),
    }
    module = make[options.child](controller)
    before, started = kib("VmRSS"), time.perf_counter()
    loss = module(seen, wanted)
    loss.backward()
    bits = hashlib.sha256(b"".join(p.grad.numpy().tobytes() for p in controller.parameters()))
    report = {
        "system_calls": len(seen), "loss": float(loss.detach()), "gradients": bits.hexdigest(),
        "seconds": time.perf_counter() - started, "resident_growth_bytes": kib("VmHWM") - before,
    }  # fmt: skip
    if options.child != "plain":
        record = outsize.report(module, timelines=False)
        keys = ("measured_peak_bytes", "predicted_peak_bytes", "resident_bytes", "swapped_out_bytes",
                "capture_seconds", "budget_bytes")  # fmt: skip
        report |= {key: getattr(record, key) for key in keys}
    print(json.dumps(report))


def start(kind, options):
    words = [f"--{k}={getattr(options, k)}" for k in ("budget", "length", "segment", "hidden")]
    return subprocess.Popen(
        [sys.executable, __file__, "--child", kind, *words], stdout=subprocess.PIPE, text=True
    )


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--budget", default="48 MiB")
    parser.add_argument("--length", type=int, default=170)
    parser.add_argument("--segment", type=int, default=2_500)
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--child")
    options = parser.parse_args()
    if options.child:
        child(options)
        return
    children = {kind: start(kind, options) for kind in ("plain", "segments", "planned")}
    runs = {}
    for kind, process in children.items():
        output = process.communicate()[0]
        assert process.returncode == 0, f"{kind} failed"
        runs[kind] = json.loads(output.splitlines()[-1])
        print(kind, json.dumps(runs[kind]), flush=True)
    plain, segments, planned = runs.values()
    assert segments["gradients"] == planned["gradients"], "the planned step differs"
    assert segments["loss"] == planned["loss"]
    assert planned["measured_peak_bytes"] <= planned["budget_bytes"] < segments["measured_peak_bytes"]
    report = {
        "system_calls": planned["system_calls"], "hidden": options.hidden, "segment": options.segment,
        "budget": options.budget, "bitwise_equal": True,
        "loss_difference_from_plain": abs(plain["loss"] - planned["loss"]), "runs": runs,
    }  # fmt: skip
    Path(__file__).with_name("result.json").write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
