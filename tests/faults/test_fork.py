"""A fork in the middle of a step: the parent's step is the parent's, and the child trains modules of its own."""

import os
import subprocess
import sys

SCRIPT = """
import os, signal, sys, torch
from torch import nn
import outsize

def net():
    torch.manual_seed(0)
    return nn.Sequential(*[nn.Sequential(nn.Linear(64, 64), nn.Tanh()) for _ in range(3)])

def step(module, optimizer):
    module(x).sum().backward()
    optimizer.step(), optimizer.zero_grad()
    return [p.detach().clone() for p in module.parameters()]

x, module = torch.ones(512, 64), net()
optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
outsize.compile(module, 2**40, optimizer=optimizer)
outsize.record(module)
loss = module(x).sum()
outsize.record(module)
child = os.fork()
if child == 0:
    signal.alarm(100)
    code = 1
    try:
        for work in (loss.backward, lambda: module(x), optimizer.step):
            try:
                work()
                assert work == optimizer.step  # the parent's meters are at rest here
            except outsize.OutsizeError as error:
                assert f"in process {os.getppid()}, and this is process {os.getpid()}" in str(error), error
                assert "outsize.compile" in str(error)
        with torch.no_grad():
            module(x)
        own = net()
        plain, theirs = net(), torch.optim.SGD(own.parameters(), lr=0.1)
        outsize.compile(own, 2**40, optimizer=theirs)
        mine = [step(own, theirs) for _ in range(2)]
        theirs = torch.optim.SGD(plain.parameters(), lr=0.1)
        for found in mine:
            assert all(torch.equal(a, b) for a, b in zip(found, step(plain, theirs), strict=True))
        assert outsize.report(own).measured_peak_bytes > 2**18
        outsize.compile(module, 2**40, optimizer=optimizer)
        step(module, optimizer)
        code = 0
    finally:
        sys.stderr.flush()
        os._exit(code)
assert os.waitpid(child, 0)[1] == 0
loss.backward()
optimizer.step()
assert outsize.report(module).measured_timeline.seconds > 0
print("whole")
"""


def test_a_fork_in_the_middle_of_a_step() -> None:
    # Plain torch hangs in a forked child that computes on several threads: OpenMP does not survive a fork.
    found = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SCRIPT],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert found.stdout.strip() == "whole", found.stderr
