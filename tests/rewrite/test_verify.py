"""A rewritten graph that was damaged afterwards is caught, whatever the damage."""

import dataclasses
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.fx import Node

from outsize.api import capture
from outsize.errors import RewriteError
from outsize.fx import CapturedStep, RewrittenStep
from outsize.rewrite import rewrite_step, verify_step
from outsize.runtime.ops import OPS
from outsize.values import Entry

from .stepping import away, back, find, schedule
from .test_build import Net

AS_STRIDED = torch.ops.aten.as_strided.default


@pytest.fixture(scope="module")
def step() -> CapturedStep:
    return capture(Net(), (torch.randn(4, 6),))


@pytest.fixture
def new(step: CapturedStep) -> RewrittenStep:
    """Two storages of equal size are away between forward and backward."""
    after, before = {}, {}
    for op in (find(step, "tanh"), find(step, "sigmoid"), find(step, "addmm")):
        storage = step.graph.storages[op.writes[0]]
        last = max((u for u in storage.uses if u < step.boundary), default=op.index)
        first = min(u for u in storage.uses if u > step.boundary)
        after.setdefault(last, []).extend(away(storage.index))
        before.setdefault(first, []).extend(back(storage.index))
    made = rewrite_step(step, schedule(step, after, before), OPS)
    verify_step(step, made, OPS)
    return made


def called(new: RewrittenStep, target: object) -> list[Node]:
    return [n for g in (new.forward.graph, new.backward.graph) for n in g.nodes if n.target is target]


def copies(new: RewrittenStep, step: CapturedStep, part: str) -> list[Node]:
    """Nodes of the new graphs that run the original operator."""
    wanted = step.nodes[find(step, part).index]
    return [n for n, o in new.origin.items() if o is wanted]


def erase(node: Node) -> None:
    node.graph.erase_node(node)


def read_an_input_as_another(new: RewrittenStep, step: CapturedStep) -> None:
    first, second = [n for n in new.backward.graph.nodes if n.op == "placeholder"][1:3]
    first.target = second.target


def drop_a_settle(new: RewrittenStep, step: CapturedStep) -> None:
    erase(called(new, OPS.settle)[0])


def drop_a_wait(new: RewrittenStep, step: CapturedStep) -> None:
    waits = called(new, OPS.wait)
    waits[0].replace_all_uses_with(waits[1])
    erase(waits[0])


def fetch_twice(new: RewrittenStep, step: CapturedStep) -> None:
    fetch = called(new, OPS.fetch)[0]
    with fetch.graph.inserting_after(fetch):
        fetch.graph.node_copy(fetch)


def wait_before_the_fetch(new: RewrittenStep, step: CapturedStep) -> None:
    fetch = called(new, OPS.fetch)[0]
    wait = next(w for w in called(new, OPS.wait) if w.args[1] == fetch.args[1])
    wait.append(fetch)


def send_another_tensor(new: RewrittenStep, step: CapturedStep) -> None:
    first, second, *_ = called(new, OPS.swap_out)
    first.args = (first.args[0], second.args[1], *first.args[2:])


def change_a_base(new: RewrittenStep, step: CapturedStep) -> None:
    """Twice: two restored storages of equal size change places."""
    first, second = [w for w in called(new, OPS.wait) if _size(w, step) == 4 * 6 * 4][:2]
    users = {w: list(w.users) for w in (first, second)}
    for mine, other in ((first, second), (second, first)):
        for user in users[mine]:
            user.replace_input_with(mine, other)


def _size(wait: Node, step: CapturedStep) -> int:
    return step.graph.storages[wait.args[1]].nbytes


def shift_a_view(new: RewrittenStep, step: CapturedStep) -> None:
    view = called(new, torch.ops.aten.as_strided.default)[0]
    view.args = (*view.args[:3], view.args[3] + 1)


def transpose_a_view(new: RewrittenStep, step: CapturedStep) -> None:
    view = next(
        v for v in called(new, torch.ops.aten.as_strided.default) if len(v.args[1]) == 2 and v.args[1][0] > 1
    )
    view.args = (view.args[0], view.args[1], list(reversed(view.args[2])), view.args[3])


def run_dropout_twice(new: RewrittenStep, step: CapturedStep) -> None:
    (dropout,) = copies(new, step, "dropout_mask")
    with dropout.graph.inserting_after(dropout):
        new.origin[dropout.graph.node_copy(dropout)] = new.origin[dropout]


def reorder(new: RewrittenStep, step: CapturedStep) -> None:
    (tanh,), (sigmoid,) = copies(new, step, "tanh"), copies(new, step, "sigmoid")
    views = [tanh.all_input_nodes[0]]
    sigmoid.append(tanh)
    assert views


def change_a_constant(new: RewrittenStep, step: CapturedStep) -> None:
    (norm,) = copies(new, step, "native_layer_norm")
    norm.args = (*norm.args[:-1], 0.5)


def change_an_operator(new: RewrittenStep, step: CapturedStep) -> None:
    (sine,) = copies(new, step, "sin.")
    sine.target = torch.ops.aten.cos.default


def hand_out_another_gradient(new: RewrittenStep, step: CapturedStep) -> None:
    output = next(n for n in new.backward.graph.nodes if n.op == "output")
    results = list(output.args[0])
    one, two = [i for i, r in enumerate(results) if isinstance(r, Node)][:2]
    results[one], results[two] = results[two], results[one]
    output.args = (tuple(results),)


def lose_a_gradient(new: RewrittenStep, step: CapturedStep) -> None:
    output = next(n for n in new.backward.graph.nodes if n.op == "output")
    output.args = ((None, *output.args[0][1:]),)


def cross_another_value(new: RewrittenStep, step: CapturedStep) -> None:
    output = next(n for n in new.forward.graph.nodes if n.op == "output")
    results = list(output.args[0])
    results[-1], results[-2] = results[-2], results[-1]
    output.args = (tuple(results),)


@pytest.mark.parametrize(
    "damage",
    [
        drop_a_settle,
        drop_a_wait,
        fetch_twice,
        wait_before_the_fetch,
        send_another_tensor,
        change_a_base,
        shift_a_view,
        transpose_a_view,
        run_dropout_twice,
        reorder,
        change_a_constant,
        change_an_operator,
        hand_out_another_gradient,
        read_an_input_as_another,
        lose_a_gradient,
        cross_another_value,
    ],
    ids=lambda f: f.__name__,
)
def test_damage_is_found(
    step: CapturedStep, new: RewrittenStep, damage: Callable[[RewrittenStep, CapturedStep], None]
) -> None:
    damage(new, step)
    with pytest.raises(RewriteError):
        verify_step(step, new, OPS)


def test_an_operator_left_out_is_found(step: CapturedStep) -> None:
    made = schedule(step)
    late = find(step, "exp")
    new = rewrite_step(step, made, OPS)
    (node,) = copies(new, step, "exp")
    node.replace_all_uses_with(node.all_input_nodes[0])
    erase(node)
    with pytest.raises(RewriteError):
        verify_step(step, new, OPS)
    assert late.phase == "forward"


def test_the_whole_of_a_real_layer_verifies() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.1, batch_first=True)
    step = capture(layer, (torch.randn(2, 3, 8),))
    new = rewrite_step(step, schedule(step), OPS)
    verify_step(step, new, OPS)
    assert len(new.backward.graph.nodes) > len(step.nodes) // 4


class Complex(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = (nn.Linear(6, 6, dtype=torch.complex64) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.two(self.one(x).sgn()).abs()


def test_a_view_that_is_no_longer_the_conjugate_of_its_bytes_is_found() -> None:
    step = capture(Complex(), (torch.randn(4, 6, dtype=torch.complex64),))
    made = step.graph.storages[find(step, "sgn.").writes[0]]
    first = min(u for u in made.uses if u > step.boundary)
    last = max(u for u in made.uses if u < step.boundary)
    new = rewrite_step(step, schedule(step, {last: away(made.index)}, {first: back(made.index)}), OPS)
    verify_step(step, new, OPS)
    restored = [n for n in called(new, torch.ops.aten._conj.default) if n.args[0].target is AS_STRIDED]
    assert restored
    for node in restored:
        node.replace_all_uses_with(node.args[0])
        erase(node)
    with pytest.raises(RewriteError):
        verify_step(step, new, OPS)


def test_an_empty_input_is_never_read(step: CapturedStep) -> None:
    """A parameter that rests on a tier is fetched by the graphs, for each operator that reads it."""
    read = find(step, "addmm")
    weight = next(s for s in read.reads if step.graph.storages[s].kind == "resident")
    plain = rewrite_step(step, schedule(step), OPS)
    with pytest.raises(RewriteError, match="reads storage None"):
        verify_step(step, dataclasses.replace(plain, parameters={weight: "weight"}), OPS)
    with pytest.raises(RewriteError, match="while its bytes are away"):
        rewrite_step(step, schedule(step), OPS, parameters={weight: "weight"})
    drop = Entry(kind="drop", storage=weight)
    around = [u for u in step.graph.storages[weight].uses if u != step.boundary]
    fetched = schedule(step, {u: [drop] for u in around}, {u: back(weight) for u in around})
    verify_step(step, rewrite_step(step, fetched, OPS, parameters={weight: "weight"}), OPS)
