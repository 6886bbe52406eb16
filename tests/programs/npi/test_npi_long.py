"""Whole long traces: flat rows, gradients equal to the step-by-step network's, a budget that changes no bit."""

import pytest
import torch
from torch import nn

import outsize
from outsize.errors import NpiError
from outsize.programs import npi
from outsize.programs.npi.controller import Controller
from outsize.programs.npi.long import LongTrace, as_long_trace, flat_traces, flat_vocabulary, train_flat


def clear(xs, stop):
    while xs.before(stop):
        if xs.read() > 4:
            xs.write(0)
        xs.move(1)


def calls(xs, stop):
    clear(xs, stop)


def example(values):
    def make():
        tape = npi.Tape(values, domain=range(10))
        return tape.at(), tape.at(len(values))

    return make


def test_a_flat_execution_is_one_row():
    (row,) = flat_traces(clear, [example([7, 1])])
    assert str(row) == (
        "clear: before(p0, p1); [yes] read(p0); test more(v0); [yes] write xs(p0); right(p0); before(p0, p1); "
        "[yes] read(p0); test more(v0); [no] right(p0); before(p0, p1); [no] return()"
    )


def test_calls_have_no_flat_trace():
    with pytest.raises(NpiError, match="flat program"):
        flat_traces(calls, [example([1])])


@pytest.fixture(scope="module")
def trace():
    (row,) = flat_traces(clear, [example([7, 1, 9, 4, 5, 0] * 8)])
    vocabulary = flat_vocabulary([row])
    return vocabulary, *as_long_trace(vocabulary, row)


def test_segments_have_the_gradients_of_single_steps(trace):
    vocabulary, seen, wanted = trace
    torch.manual_seed(0)
    controller = Controller(vocabulary, hidden=8, embedding=4)
    state, total = controller.start(1), torch.zeros(())
    for t in range(len(seen)):
        logits, state = controller(torch.zeros(1, dtype=torch.int64), seen[t : t + 1], state)
        for i, head in enumerate(logits.split(controller.widths, 1)):
            total = total + nn.functional.cross_entropy(head, wanted[t : t + 1, i])
    (total / len(seen)).backward()
    slow = {n: p.grad.clone() for n, p in controller.named_parameters()}
    controller.zero_grad()
    loss = LongTrace(controller, segment=30)(seen, wanted)
    loss.backward()
    torch.testing.assert_close(loss, total / len(seen))
    for name, parameter in controller.named_parameters():
        torch.testing.assert_close(parameter.grad, slow[name], atol=1e-5, rtol=1e-4)


def test_a_budget_changes_no_bit(trace):
    vocabulary, seen, wanted = trace

    def step(prepare):
        torch.manual_seed(0)
        module = prepare(LongTrace(Controller(vocabulary, hidden=16, embedding=8), segment=60))
        module(seen, wanted).backward()
        return [p.grad for p in module.parameters()], outsize.report(module, timelines=False)

    plain, record = step(outsize.meter)
    budget = int(record.predicted_peak_bytes * 0.96)
    planned, held = step(lambda module: outsize.compile(module, budget=budget))
    assert all(torch.equal(a, b) for a, b in zip(plain, planned))
    assert held.predicted_peak_bytes <= budget


def test_training_lowers_the_loss(trace):
    rows = flat_traces(clear, [example([7, 1, 9]), example([2, 5])])
    vocabulary = flat_vocabulary(rows)
    few, more = (train_flat(rows, epochs=n) for n in (1, 25))
    losses = [float(LongTrace(c)(*as_long_trace(vocabulary, rows[0])).detach()) for c in (few, more)]
    assert losses[1] < 0.5 * losses[0]
