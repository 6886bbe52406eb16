"""A wrong graph for every rule of `rewrite/verify.py`, and right ones that no rule may refuse.

Most are the damages of `tests/rewrite/test_verify.py`; those here were missing there.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
from torch.fx import Node

from outsize.api import capture
from outsize.fx import CapturedStep, RewrittenStep
from outsize.plan.state import fused_positions
from outsize.rewrite import rewrite_step
from outsize.runtime.ops import OPS
from outsize.values import Entry, Schedule
from tests.rewrite import test_verify as damages
from tests.rewrite.stepping import away, back, find, schedule
from tests.rewrite.test_build import Net

Damage = Callable[[RewrittenStep, CapturedStep], None]


@functools.cache
def step(kind: type[torch.nn.Module] = Net) -> CapturedStep:
    dtype = torch.complex64 if kind is damages.Complex else torch.float32
    return capture(kind(), (torch.randn(4, 6, dtype=dtype),))


def _swaps(step: CapturedStep, *, encoded: bool = False) -> Schedule:
    """Three storages are away between forward and backward."""
    after: dict[int, list[Entry]] = {}
    before: dict[int, list[Entry]] = {}
    for op in (find(step, "tanh"), find(step, "sigmoid"), find(step, "addmm")):
        storage = step.graph.storages[op.writes[0]]
        last = max((u for u in storage.uses if u < step.boundary), default=op.index)
        first = min(u for u in storage.uses if u > step.boundary)
        after.setdefault(last, []).extend(_leave(storage.index, storage.nbytes, encoded))
        before.setdefault(first, []).extend(_return(storage.index, storage.nbytes, encoded))
    return schedule(step, after, before)


def _leave(storage: int, nbytes: int, encoded: bool) -> list[Entry]:
    if not encoded:
        return away(storage)
    sent = [Entry(kind=kind, storage=storage, tier="disk", nbytes=nbytes) for kind in ("swap_out", "settle")]
    return [
        Entry(kind="encode", storage=storage, codec="relu", nbytes=nbytes),
        Entry(kind="drop", storage=storage),
        *sent,
    ]


def _return(storage: int, nbytes: int, encoded: bool) -> list[Entry]:
    if not encoded:
        return back(storage)
    read = [Entry(kind=kind, storage=storage, tier="disk", nbytes=nbytes) for kind in ("fetch", "wait")]
    return [*read, Entry(kind="decode", storage=storage, codec="relu")]


def _twice(step: CapturedStep) -> Schedule:
    """One storage is swapped in the forward and again behind it, from one write."""
    storage = step.graph.storages[find(step, "addmm").writes[0]]
    touches = [storage.producer, *storage.uses]
    after = {touches[0]: away(storage.index), touches[1]: [Entry(kind="drop", storage=storage.index)]}
    return schedule(step, after, {touches[1]: back(storage.index), touches[2]: back(storage.index)})


def _encoded_between(step: CapturedStep, *, swapped: bool = True) -> Schedule:
    """One storage is swapped, encoded behind that, and read again from the one write."""
    storage = step.graph.storages[find(step, "addmm").writes[0]]
    touches, index = [storage.producer, *storage.uses], storage.index
    encoded = [
        Entry(kind="encode", storage=index, codec="relu", nbytes=2 * storage.nbytes),
        Entry(kind="drop", storage=index),
        Entry(kind="decode", storage=index, codec="relu"),
    ]
    first, returned = (away(index), back(index)) if swapped else ([], [])
    after = {touches[0]: first, touches[1]: [Entry(kind="drop", storage=index)]}
    return schedule(step, after, {touches[1]: [*returned, *encoded], touches[2]: back(index)})


def _repeat(step: CapturedStep) -> Schedule:
    linear = find(step, "addmm", number=1)
    made = linear.writes[0]
    use = min(u for u in step.graph.storages[made].uses if u > step.boundary)
    after = {find(step, "sin.").index: [Entry(kind="drop", storage=made)]}
    return schedule(step, after, {use: [Entry(kind="clone", op=linear.index)]})


class Gated(torch.nn.Module):
    """A buffer that is read and then updated."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(6, 6)
        self.register_buffer("gate", torch.randn(4, 6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result = torch.tanh(self.linear(x)) * torch.sigmoid(self.gate)
        self.gate.mul_(0.9)
        return result


class Normed(torch.nn.Module):
    """Running statistics that are read for nothing but their next values."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.norm = torch.nn.Linear(6, 6), torch.nn.BatchNorm1d(6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.sin(self.norm(self.linear(x))) * 2


def _behind_the_update(target: str, step: CapturedStep) -> Schedule:
    """An operator of the forward runs again in the backward, when the step's buffers are updated."""
    op = find(step, target)
    made = op.writes[0]
    uses = step.graph.storages[made].uses
    first, last = min(u for u in uses if u > step.boundary), max(u for u in uses if u < step.boundary)
    return schedule(
        step, {last: [Entry(kind="drop", storage=made)]}, {first: [Entry(kind="clone", op=op.index)]}
    )


def _conjugated(step: CapturedStep) -> Schedule:
    made = step.graph.storages[find(step, "sgn.").writes[0]]
    first = min(u for u in made.uses if u > step.boundary)
    last = max(u for u in made.uses if u < step.boundary)
    return schedule(step, {last: away(made.index)}, {first: back(made.index)})


def example(
    entries: Callable[[CapturedStep], Schedule],
    damage: Damage | None = None,
    kind: type[torch.nn.Module] = Net,
) -> Callable[[ModuleType], Any]:
    """A rewritten step, made anew for each verdict since the damage changes it."""

    def run(module: ModuleType) -> Any:
        captured = step(kind)
        new = rewrite_step(captured, entries(captured), OPS)
        if damage is not None:
            damage(new, captured)
        module.verify_step(captured, new, OPS)

    return run


class Early(torch.nn.Module):
    """The second weight's gradient is whole before the backward has read that weight for the last time."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = torch.nn.Linear(6, 6), torch.nn.Linear(6, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        fixed = torch.nn.functional.linear(self.first(x), self.second.weight.detach())
        return self.second(torch.sin(fixed))


def updating(
    damage: Damage | None = None, kind: type[torch.nn.Module] = Early
) -> Callable[[ModuleType], Any]:
    """A step whose backward updates what it can."""

    def run(module: ModuleType) -> Any:
        captured = step(kind)
        found = {
            place: (captured.storage[gradient], captured.storage[captured.primals[place]])
            for place, gradient in enumerate(captured.backward_outputs)
            if isinstance(gradient, Node)
        }
        updates: dict[int, list[tuple[int, int]]] = {}
        for place, position in fused_positions(captured.graph, found).items():
            slot = len(captured.graph.storages) + place
            updates.setdefault(position, []).append((slot, place))
        assert updates
        new = rewrite_step(captured, schedule(captured), OPS, updates=updates)
        if damage is not None:
            damage(new, captured)
        module.verify_step(captured, new, OPS)

    return run


def _updates(new: RewrittenStep) -> list[Node]:
    return [n for n in new.backward.graph.nodes if n.target is OPS.update_state]


def update_too_early(new: RewrittenStep, step: CapturedStep) -> None:
    """Each right behind the operator that makes its gradient."""
    for node in _updates(new):
        moved, made = [node], node.args[2]
        while made not in new.origin:
            moved.append(made)
            made = made.args[0]
        for one in moved:
            made.append(one)


def leave_an_update_out(new: RewrittenStep, step: CapturedStep) -> None:
    damages.erase(_updates(new)[0])


def update_with_something_else(new: RewrittenStep, step: CapturedStep) -> None:
    node = _updates(new)[-1]
    cosine = next(n for n in new.backward.graph.nodes if "cos" in str(n.target))
    node.args = (*node.args[:2], cosine)


def update_twice(new: RewrittenStep, step: CapturedStep) -> None:
    node = _updates(new)[0]
    with node.graph.inserting_after(node):
        node.graph.node_copy(node, lambda n: n)


def update_with_another_view(new: RewrittenStep, step: CapturedStep) -> None:
    node = next(n for n in _updates(new) if n.args[2].meta["val"].dim() == 2)
    with node.graph.inserting_before(node):
        view = node.graph.call_function(torch.ops.aten.permute.default, (node.args[2], [1, 0]))
    node.args = (*node.args[:2], view)


def _output(new: RewrittenStep) -> Node:
    return next(n for n in new.backward.graph.nodes if n.op == "output")


def lose_the_last_gradients(new: RewrittenStep, step: CapturedStep) -> None:
    output = _output(new)
    output.args = (output.args[0][:1],)


def view_what_cannot_be_viewed(new: RewrittenStep, step: CapturedStep) -> None:
    """A view that nobody reads."""
    view = damages.called(new, damages.AS_STRIDED)[0]
    with view.graph.inserting_after(view):
        view.graph.call_function(torch.ops.aten.view.default, (view, [7, 11]))


def multiply_by_itself(new: RewrittenStep, step: CapturedStep) -> None:
    node = next(
        n
        for n in damages.called(new, torch.ops.aten.mul.Tensor)
        if n in new.origin and len(n.all_input_nodes) == 2
    )
    node.args = (node.args[0], node.args[0])


def leave_out_the_last(new: RewrittenStep, step: CapturedStep) -> None:
    """An operator whose result another of the same shape can stand for."""
    (node,) = damages.copies(new, step, "exp")
    node.replace_all_uses_with(node.all_input_nodes[0])
    damages.erase(node)


def exchange_two(new: RewrittenStep, step: CapturedStep) -> None:
    """Neither reads the other, so the bytes are right and only the order is not."""
    (exp,), (cosine,) = damages.copies(new, step, "exp"), damages.copies(new, step, "cos.")
    cosine.append(exp)


def read_another_of_the_same_shape(new: RewrittenStep, step: CapturedStep) -> None:
    (exp,), (sigmoid,) = damages.copies(new, step, "exp"), damages.copies(new, step, "sigmoid")
    exp.args = (sigmoid,)


def hand_out_an_intermediate(new: RewrittenStep, step: CapturedStep) -> None:
    output = next(n for n in new.forward.graph.nodes if n.op == "output")
    (exp,) = damages.copies(new, step, "exp")
    output.args = ((exp, *output.args[0][1:]),)


def without_a_storage(module: ModuleType) -> Any:
    """A value that the capture knows no storage of, as of a list that is handed on whole."""
    captured = step()
    norm = next(n for n in captured.nodes if n is not None and "layer_norm" in str(n.target))
    part = next(n for n in norm.users if n in captured.storage)
    fewer = {node: storage for node, storage in captured.storage.items() if node is not part}
    new = rewrite_step(captured, schedule(captured), OPS)
    module.verify_step(dataclasses.replace(captured, storage=fewer), new, OPS)


def forget_the_conjugate(new: RewrittenStep, step: CapturedStep) -> None:
    for node in damages.called(new, torch.ops.aten._conj.default):
        if node.args[0].target is damages.AS_STRIDED:
            node.replace_all_uses_with(node.args[0])
            damages.erase(node)


RIGHT: dict[str, Callable[[ModuleType], Any]] = {
    "the captured order": example(schedule),
    "three swaps": example(_swaps),
    "three swaps of encoded forms": example(functools.partial(_swaps, encoded=True)),
    "swapped twice, written once": example(_twice),
    "encoded between two reads of one write": example(_encoded_between),
    "a repeat": example(_repeat),
    "updates in the backward": updating(),
    "updates of another step": updating(kind=Net),
    "a value without a storage of its own": without_a_storage,
    "a conjugate that was swapped": example(_conjugated, kind=damages.Complex),
    "a normalisation behind its statistics' update": example(
        functools.partial(_behind_the_update, "batch_norm"), kind=Normed
    ),
}

WRONG: dict[str, Callable[[ModuleType], Any]] = {
    **{
        damage.__name__.replace("_", " "): example(_swaps, damage)
        for damage in (
            damages.drop_a_settle, damages.drop_a_wait, damages.fetch_twice, damages.wait_before_the_fetch,
            damages.send_another_tensor, damages.change_a_base, damages.shift_a_view, damages.transpose_a_view,
            damages.run_dropout_twice, damages.reorder, damages.change_a_constant, damages.change_an_operator,
            damages.hand_out_another_gradient, damages.read_an_input_as_another, damages.lose_a_gradient,
            damages.cross_another_value, lose_the_last_gradients, view_what_cannot_be_viewed, multiply_by_itself,
            leave_out_the_last,
        )
    },
    **{
        damage.__name__.replace("_", " "): updating(damage)
        for damage in (
            update_too_early, leave_an_update_out, update_with_something_else, update_with_another_view,
            update_twice,
        )
    },
    "a read of what was encoded and never written": example(
        functools.partial(_encoded_between, swapped=False)
    ),
    "two that do not read one another exchanged": example(schedule, exchange_two),
    "another of the same shape read": example(schedule, read_another_of_the_same_shape),
    "an intermediate handed out": example(schedule, hand_out_an_intermediate),
    "a buffer read behind its update": example(functools.partial(_behind_the_update, "sigmoid"), kind=Gated),
    "forget the conjugate": example(_conjugated, forget_the_conjugate, kind=damages.Complex),
}  # fmt: skip
