"""A frame lives as long as autograd needs it, and not a moment longer."""

import gc
import time
import weakref

import pytest
import torch
from torch import nn

import outsize
from outsize import api
from outsize.errors import MutationError
from outsize.runtime.frame import Frame
from outsize.runtime.ops import decode, encode
from outsize.runtime.watch import Watched
from tests.api.training import rebudget, smallest_budget
from tests.rewrite.stepping import CopyTier

WIDTH, ROWS = 64, 8192


def test_a_capsule_owns_its_frame() -> None:
    frame = Frame(None, {})
    capsule, number = frame.capsule(), frame.number
    gone = weakref.ref(frame)
    del frame
    assert Frame.of(capsule).number == number
    view = capsule.detach()  # autograd saves another tensor over the same bytes
    del capsule
    assert Frame.of(view).number == number
    del view
    assert gone() is None


def test_blocks_go_with_the_frame() -> None:
    frame, tier = Frame(None, {}), CopyTier()
    block = tier.write(torch.ones(8))
    frame.blocks[0] = (tier, block)
    gone = weakref.ref(block)
    capsule = frame.capsule()
    del frame, block
    assert gone() is not None
    del capsule
    assert gone() is None


def test_saved_values_are_handed_over_once() -> None:
    frame, value = Frame(None, {}), torch.ones(3)
    gone = weakref.ref(value)
    frame.save([value], [Watched("value", value)])
    del value
    assert frame.take(keep=True)[0].sum() == 3
    (taken,) = frame.take(keep=False)
    assert frame.take(keep=False) == []
    del taken
    assert gone() is None


def test_a_watched_value_that_changed_is_named() -> None:
    frame, value = Frame(None, {}), torch.ones(3, 2)
    frame.save([value], [Watched("relu_7", value)])
    value.mul_(2)
    with pytest.raises(MutationError, match=r"relu_7 \(shape \(3, 2\)\).*version 1, expected 0"):
        frame.take(keep=False)


# The same through autograd.


@pytest.fixture(scope="module")
def compiled() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh()) for _ in range(4)]
    module = outsize.compile(nn.Sequential(*layers), 2**40)
    module(torch.ones(ROWS, WIDTH)).sum().backward()
    module.zero_grad()
    return module


@pytest.fixture
def module(compiled: nn.Module) -> nn.Module:
    x = torch.ones(ROWS, WIDTH)
    smallest = smallest_budget(compiled, (x,), planner="slack", actions=("swap",))
    rebudget(compiled, smallest + 2**20, planner="slack", actions=("swap",))
    compiled.zero_grad()
    return compiled


def held(module: nn.Module, *, expect_none: bool = False) -> int:
    """Bytes of blocks in the tier; writes under way may still be ending, and a thread may let go of an error, whose
    traceback has the step's frames in a cycle, after the first collection."""
    tier = api._SESSIONS[module].tiers["disk"]
    for _ in range(500):
        gc.collect()
        tier.write(torch.ones(1)).settle()
        if not expect_none or tier.counters().held_bytes <= 4:
            break
        time.sleep(0.01)
    return tier.counters().held_bytes // 8 * 8


def gradients(module: nn.Module) -> list[torch.Tensor]:
    return [p.grad.clone() for p in module.parameters()]


def test_a_forward_whose_backward_never_comes_frees_its_blocks(module: nn.Module) -> None:
    result = module(torch.ones(ROWS, WIDTH))
    assert held(module) > 0
    del result
    assert held(module, expect_none=True) == 0


def test_a_backward_frees_its_blocks(module: nn.Module) -> None:
    module(torch.ones(ROWS, WIDTH)).sum().backward()
    assert held(module, expect_none=True) == 0


def test_the_graph_may_be_kept_for_a_second_backward(module: nn.Module) -> None:
    # By swaps alone a kept graph needs more than the fixture's budget; with no more than that, it is an error.
    smallest = smallest_budget(module, (torch.ones(ROWS, WIDTH),), planner="slack", actions=("swap",))
    for room in range(1, 12):
        rebudget(module, smallest + room * 2**19, planner="slack", actions=("swap",))
        loss = module(torch.ones(ROWS, WIDTH)).sum()
        try:
            loss.backward(retain_graph=True)
            break
        except outsize.BudgetError:
            del loss
    once = gradients(module)
    assert held(module) > 0
    module.zero_grad()
    loss.backward()
    assert all(torch.equal(a, b) for a, b in zip(once, gradients(module)))
    del loss
    assert held(module, expect_none=True) == 0


def test_a_second_backward_without_keeping_is_autograds_error(module: nn.Module) -> None:
    loss = module(torch.ones(ROWS, WIDTH)).sum()
    loss.backward()
    with pytest.raises(RuntimeError, match="second time"):
        loss.backward()


def test_two_forwards_before_two_backwards(module: nn.Module) -> None:
    first, second = torch.full((ROWS, WIDTH), 0.5), torch.full((ROWS, WIDTH), -0.25)
    alone = []
    for x in (first, second):
        module(x).sum().backward()
        alone.append(gradients(module))
        module.zero_grad()
    budget = outsize.report(module).budget_bytes
    rebudget(module, 4 * budget, planner="slack", actions=("swap",))
    one, two = module(first).sum(), module(second).sum()
    for loss, expected in ((one, alone[0]), (two, alone[1])):
        loss.backward()
        assert all(torch.equal(a, b) for a, b in zip(gradients(module), expected))
        module.zero_grad()


def test_changing_a_parameter_before_the_backward_is_an_error(module: nn.Module) -> None:
    loss = module(torch.ones(ROWS, WIDTH)).sum()
    with torch.no_grad():
        module[2][0].weight.mul_(1.0)
    with pytest.raises((MutationError, RuntimeError), match=r"in place|inplace"):
        loss.backward()
    del loss
    assert held(module, expect_none=True) == 0
    module(torch.ones(ROWS, WIDTH)).sum().backward()  # the next step is whole


def test_changing_a_saved_result_is_an_error(module: nn.Module) -> None:
    result = module(torch.ones(ROWS, WIDTH))
    with torch.no_grad():
        result.add_(1)
    with pytest.raises((MutationError, RuntimeError), match=r"in place|inplace"):
        result.sum().backward()


def test_an_encoded_form_lasts_until_the_last_backward() -> None:
    values = torch.relu(torch.randn(64, 64))
    frame = Frame(None, {})
    encode(frame, values, 3, "relu", 2 * values.nbytes)
    for keep in (True, False):
        frame.take(keep=keep)
        assert torch.equal(decode(frame, 3, torch.float32, True).view(64, 64), values)
    assert not frame.forms
