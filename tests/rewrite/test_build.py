"""Hand-made schedules: whatever is moved, dropped and repeated, the results keep every bit."""

import itertools
import operator

import pytest
import torch
from torch import Tensor, nn
from torch.fx import Graph, GraphModule
from torch.fx.graph import _BoxedCodeGen

from outsize.api import capture
from outsize.errors import RewriteError
from outsize.fx import CapturedStep
from outsize.rewrite import rewrite_step
from outsize.rewrite.build import _placeholder
from outsize.runtime.ops import OPS
from outsize.values import Entry

from .stepping import CopyTier, away, back, find, rewritten, run, same, schedule


class Net(nn.Module):
    """Views of one storage read far apart, a branch, a dropout, a part of a result that crosses."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 12), nn.Linear(6, 6)
        self.norm = nn.LayerNorm(6)
        self.dropout = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        both = self.first(x)
        left, right = both.view(4, 2, 6).transpose(0, 1).unbind(0)
        mixed = self.dropout(torch.tanh(left)) * torch.sigmoid(right)
        deep = torch.sin(self.second(self.norm(mixed)))
        return torch.exp(deep) * torch.cos(both[:, 3:9])


@pytest.fixture(scope="module")
def step() -> CapturedStep:
    return capture(Net(), (torch.randn(4, 6),))


@pytest.fixture(scope="module")
def expected(step: CapturedStep) -> list:
    return run(step, rewritten(step, schedule(step)))


def test_the_plain_schedule_is_the_captured_graph(step: CapturedStep) -> None:
    new = rewritten(step, schedule(step))
    kept = {n.name for n in step.order}
    operators = [n for g in (new.forward.graph, new.backward.graph) for n in g.nodes if n in new.origin]
    assert [new.origin[n] for n in operators] == [n for n in step.nodes if n is not None]
    assert {new.origin[n].name for n in operators} <= kept
    assert not [
        n for g in (new.forward.graph, new.backward.graph) for n in g.nodes if n.target in vars(OPS).values()
    ]


def test_every_span_of_every_storage_can_be_swapped(step: CapturedStep, expected: list) -> None:
    after: dict[int, list[Entry]] = {}
    before: dict[int, list[Entry]] = {}
    moved = 0
    for storage in step.graph.candidates():
        touches = sorted({storage.producer, *storage.uses})
        if len(touches) < 2:
            continue
        first = True
        for start, end in itertools.pairwise(touches):
            after.setdefault(start, []).extend(away(storage.index) if first else away(storage.index)[2:])
            before.setdefault(end, []).extend(back(storage.index))
            moved += storage.nbytes
            first = False
    tier = CopyTier()
    assert same(run(step, rewritten(step, schedule(step, after, before)), tier), expected)
    assert tier.into == moved > tier.out > 0


def test_a_storage_with_many_views_moves_once(step: CapturedStep, expected: list) -> None:
    both = find(step, "addmm")
    storage = step.graph.storages[both.writes[0]]
    last = max(u for u in storage.uses if u < step.boundary)
    first_back = min(u for u in storage.uses if u > step.boundary)
    tier = CopyTier()
    new = rewritten(step, schedule(step, {last: away(storage.index)}, {first_back: back(storage.index)}))
    assert same(run(step, new, tier), expected)
    assert (tier.out, tier.into) == (storage.nbytes, storage.nbytes)
    assert all(n is None or step.storage.get(n) != storage.index for n in new.crossing)


def test_swapped_twice_written_once(step: CapturedStep, expected: list) -> None:
    storage = step.graph.storages[find(step, "addmm").writes[0]]
    touches = [storage.producer, *storage.uses]
    assert len(touches) >= 4
    a, b = touches[:2]
    made = schedule(
        step,
        {a: away(storage.index), b: [Entry(kind="drop", storage=storage.index)]},
        {b: back(storage.index), touches[2]: back(storage.index)},
    )
    tier = CopyTier()
    assert same(run(step, rewritten(step, made), tier), expected)
    assert (tier.out, tier.into) == (storage.nbytes, 2 * storage.nbytes)


def test_a_region_runs_again(step: CapturedStep, expected: list) -> None:
    sine = find(step, "sin.")
    linear = find(step, "addmm", number=1)
    made = linear.writes[0]
    use = min(u for u in step.graph.storages[made].uses if u > step.boundary)
    after = {sine.index: [Entry(kind="drop", storage=made)]}
    before = {use: [Entry(kind="clone", op=linear.index)]}
    new = rewritten(step, schedule(step, after, before))
    assert same(run(step, new), expected)
    clones = [n for n in new.backward.graph.nodes if new.origin.get(n) is step.nodes[linear.index]]
    assert len(clones) == 1


def test_recomputed_from_what_was_swapped(step: CapturedStep, expected: list) -> None:
    norm = find(step, "native_layer_norm")
    linear = find(step, "addmm", number=1)
    normal, made = norm.writes[0], linear.writes[0]
    use = min(u for u in step.graph.storages[made].uses if u > step.boundary)
    after = {
        linear.index: away(normal),
        find(step, "sin.").index: [Entry(kind="drop", storage=made)],
    }
    before = {use: [*back(normal), Entry(kind="clone", op=linear.index)]}
    assert same(run(step, rewritten(step, schedule(step, after, before))), expected)


def test_reading_what_is_away_is_refused(step: CapturedStep) -> None:
    storage = find(step, "addmm").writes[0]
    made = schedule(step, {find(step, "addmm").index: [Entry(kind="drop", storage=storage)]})
    with pytest.raises(RewriteError, match="away"):
        rewrite_step(step, made, OPS)


class Halves(nn.Module):
    """Made as complex numbers, read as real ones."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 4, dtype=torch.complex64))

    def forward(self, x: Tensor) -> Tensor:
        mixed = torch.view_as_real(torch.matmul(x.to(torch.complex64), self.weight))
        return torch.sin(mixed.transpose(0, 1)).sum()


def test_views_of_another_dtype_come_back() -> None:
    step = capture(Halves(), (torch.randn(3, 4),))
    mm = find(step, "mm")
    storage = step.graph.storages[mm.writes[0]]
    later = [u for u in storage.uses if u > mm.index + 1] or list(storage.uses[-1:])
    start = max([t for t in (storage.producer, *storage.uses) if t < later[0]])
    made = schedule(step, {start: away(storage.index)}, {later[0]: back(storage.index)})
    assert same(run(step, rewritten(step, made)), run(step, rewritten(step, schedule(step))))


def test_inputs_keep_apart_from_each_other_and_from_operators_of_their_names() -> None:
    """A repeated operator stands in the backward before the input that was named like it crosses over."""
    graph = Graph()
    repeated = graph.create_node("call_function", operator.neg, (1,), name="getitem")
    with graph.inserting_before(repeated):
        inputs = [_placeholder(graph, name) for name in ("getitem", "getitem_1", "getitem_2")]
    graph.output((*inputs, repeated))
    graph.set_codegen(_BoxedCodeGen())
    assert GraphModule({}, graph).forward([1, 2, 3]) == (1, 2, 3, -1)
