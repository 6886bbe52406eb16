"""Every network of the zoo keeps every bit under every planner, down to the smallest budget."""

import copy

import pytest

import outsize
from outsize import zoo
from outsize.plan.make import PLANNERS

from .training import rebudget, smallest_budget, train

PLACES = {"slack": (0.0, 0.5)}


#: At the tiny size both ResNets are one network.
NAMES = [name for name in zoo.names() if name != "resnet152"]


@pytest.mark.parametrize("name", NAMES)
def test_losses_gradients_buffers_and_random_stream_are_bitwise_equal(name: str) -> None:
    work = zoo.load(name, seed=0, tiny=True)
    state = copy.deepcopy(work.module.state_dict())
    expected = train(work, outsize.meter(copy.deepcopy(work.module)))
    module = outsize.compile(work.module, 2**40)
    assert expected.differing(train(work, module)) == []
    report = outsize.report(module)
    assert not report.decisions  # it fits, so nothing is done
    plain = report.plain_peak_bytes
    for planner in sorted(PLANNERS.keys() - {"exact"}):  # which takes small graphs only
        module.load_state_dict(state)
        smallest = smallest_budget(module, work.example().args, planner=planner)
        for place in PLACES.get(planner, (0.0,)):
            module.load_state_dict(state)
            budget = int(smallest + place * (plain - smallest))
            rebudget(module, budget, planner=planner)
            assert expected.differing(train(work, module)) == []
            report = outsize.report(module)
            assert report.decisions or report.plain_peak_bytes <= budget
            assert report.predicted_peak_bytes <= budget
