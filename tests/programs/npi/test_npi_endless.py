"""A program that need not end: what is proved of it, and how a run of it ends all the same."""

import itertools
import math
import re
import signal

import pytest
import torch

from outsize.errors import NpiError
from outsize.native import available
from outsize.programs import npi
from outsize.programs.npi.library import LIBRARY
from outsize.programs.npi.machine import UNPROVED_STEPS

ENGINES = ("network", "tables", "native") if available() else ("network", "tables")


def gcd(a, b, zero):
    while not a.meets(b):
        if b.before(a):
            x, y = b.copy(), zero.copy()
            while y.before(x):
                y.move(1)
                a.move(-1)
        else:
            x, y = a.copy(), zero.copy()
            while y.before(x):
                y.move(1)
                b.move(-1)


def gcd_tapes(a, b):
    def make():
        tape = npi.Tape([0] * (max(a, b) + 1))
        return tape.at(a), tape.at(b), tape.at(0)

    return make


@pytest.fixture(scope="module")
def euclid():
    template = npi.parameterize(npi.trace(gcd, [gcd_tapes(4, 6), gcd_tapes(6, 4), gcd_tapes(3, 3)]))
    model = npi.train(template)
    return model, npi.verify(template, model)


def test_a_program_that_need_not_end_is_not_proved_to(euclid):
    """gcd(4, 0) by subtraction never ends, and the certificate names the loop."""
    model, certificate = euclid
    assert not certificate.holds
    assert certificate.termination.open == ("gcd_while1",)
    assert certificate.check.errors == 0
    heads = [gcd_tapes(a, b)() for a, b in itertools.product(range(1, 25), repeat=2)]
    npi.run(model, heads)
    assert [h[0].position for h in heads] == [
        math.gcd(a, b) for a, b in itertools.product(range(1, 25), repeat=2)
    ]
    with pytest.raises(NpiError, match="system calls and not ended"):
        npi.run(model, [gcd_tapes(4, 0)()], limits=npi.Limits(steps=100_000))


@pytest.mark.parametrize("engine", ENGINES)
def test_what_is_not_proved_to_end_is_stopped(euclid, engine, monkeypatch):
    """Without a word about limits: the model knows what was proved of it, and of these weights only."""
    monkeypatch.setitem(UNPROVED_STEPS, engine, 1000)
    model, certificate = euclid
    assert not model.certified(certificate).ends
    with pytest.raises(NpiError, match="made 1000 system calls and not ended"):
        npi.run(model.certified(certificate), [gcd_tapes(4, 0)()], engine=engine)
    addition, heads = npi.shipped("addition"), LIBRARY["addition"].encode("9" * 400, "1" * 400)
    npi.run(addition, [heads], engine=engine)
    with pytest.raises(NpiError, match="not about this model: controller, primitive"):
        npi.shipped("reverse").certified(npi.verify(npi.template_of("addition"), addition))
    with torch.no_grad():
        next(addition.controller.parameters()).mul_(1 + 1e-6)
    heads = LIBRARY["addition"].encode("9" * 400, "1" * 400)
    with pytest.raises(NpiError, match="not ended"):
        npi.run(addition, [heads], engine=engine)


@pytest.mark.parametrize("engine", ENGINES)
def test_an_endless_execution_can_be_interrupted(euclid, engine):
    def stop(*_):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, stop)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        with pytest.raises(KeyboardInterrupt):
            npi.run(euclid[0], [gcd_tapes(4, 0)()], engine=engine)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("name", ["bubble_sort", "topological_sort", "multiplication", "filter"])
def test_damaged_controllers_end_or_are_refused_and_never_crash(name):
    """Weights with noise decide anything at all: registers that are not there, values never read, no return."""
    entry, example = LIBRARY[name], {"bubble_sort": ([3, 1, 2],), "topological_sort": ([[1, 2], [2], []],),
                                     "multiplication": ("12", "34"), "filter": ([3, 1, 2],)}[name]  # fmt: skip
    ways = set()
    for seed in range(12):
        model = npi.shipped(name)
        torch.manual_seed(seed)
        with torch.no_grad():
            for weight in model.controller.parameters():
                weight.add_(torch.randn_like(weight) * weight.std() * (0.1, 0.3, 0.5)[seed % 3])
        for engine in ENGINES:
            try:
                npi.run(
                    model, [entry.encode(*example)], engine=engine, limits=npi.Limits(steps=3000, depth=300)
                )
                ways.add("ends")
            except NpiError as error:
                ways.add(
                    re.sub(
                        r".*(cannot be carried out|does not leave|off the tape|not ended|frames deep).*",
                        r"\1",
                        str(error),
                    )
                )
    assert {"ends", "cannot be carried out"} <= ways
