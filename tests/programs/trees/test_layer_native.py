"""The pass in C around a layer's products equals the operations of torch, forward and backward."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from outsize.native import available
from outsize.programs.trees import Forest, LocalizedTreeConv, Topology, layer_native, parse, topology

from .samples import module

pytestmark = pytest.mark.skipif(not available(), reason="the C module was not built")

#: A star, a path, a single node, and real modules, together in one forest where the case says so.
TEXTS = {
    "star": "f(1, 2, 3, 4, 5, 6, 7)",
    "path": "x = -(-(-(-(-(-(-y))))))",
    "empty": "",
    "module": "bisect",
}


def forest_of(name: str) -> Forest:
    text = module("bisect").decode() if name == "module" else TEXTS[name]
    return parse(text, "python")


@pytest.mark.parametrize("width", [8, 13, 96])
@pytest.mark.parametrize("name", TEXTS)
def test_forward_and_gradients(name: str, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    forest = forest_of(name)
    torch.manual_seed(width)
    tree = LocalizedTreeConv(width, layers=3, residual=True, norm=True)
    for norm in tree.norms:
        torch.nn.init.normal_(norm.weight, mean=1.0, std=0.2)
        torch.nn.init.normal_(norm.bias, std=0.2)
    x, own = (torch.randn(forest.nodes, width) for _ in range(2))

    def run(dtype: torch.dtype) -> list[torch.Tensor]:
        inputs = [t.to(dtype).requires_grad_() for t in (x.clone(), own.clone())]
        topology = Topology.of(forest, dtype)
        states = tree.edge_states(inputs[0], topology, inputs[1])
        out = [states.up, states.down, states.pivot]
        torch.manual_seed(1)
        loss = sum((o * torch.randn(o.shape).to(dtype)).sum() for o in out)
        parameters = [*inputs, *tree.parameters()]
        return [*(o.detach() for o in out), *torch.autograd.grad(loss, parameters)]

    calls = []
    monkeypatch.setattr(
        layer_native, "_call", lambda *a, _f=layer_native._call, **k: (calls.append(k), _f(*a, **k))
    )
    ours = run(torch.float32)
    assert [call["backward"] for call in calls] == [False] * 3 + [True] * 3
    tree.double()
    theirs = run(torch.float64)
    for mine, right in zip(ours, theirs):
        assert mine.shape == right.shape
        scale = max(float(right.abs().amax()) if right.numel() else 0.0, 1.0)
        torch.testing.assert_close(mine.double(), right, rtol=0, atol=2e-5 * scale)


def test_rows_of_one_tree_do_not_depend_on_the_others() -> None:
    one = forest_of("module")
    both = one.select([0, 0])
    torch.manual_seed(0)
    tree = LocalizedTreeConv(16, layers=2, residual=True, norm=True)
    x = torch.randn(one.nodes, 16)
    alone = tree.edge_states(x, Topology.of(one), x).pivot
    doubled = torch.cat([x, x])
    beside = tree.edge_states(doubled, Topology.of(both), doubled).pivot
    torch.testing.assert_close(beside[: one.nodes], alone, rtol=1e-5, atol=1e-6)


OUTSIDE = {
    "a child before the first node": ("first", -1),
    "a child after the last node": ("first", 10**6),
    "a child where the sum wraps": ("first", 2**63 - 1),
    "more children than nodes": ("children", 10**6),
    "fewer children than none": ("children", -3),
    "a parent after the last node": ("parent", 10**6),
    "a parent before the first": ("parent", -1),
}


@pytest.mark.parametrize("fault", OUTSIDE)
def test_an_index_outside_is_refused_in_c(fault: str) -> None:
    column, value = OUTSIDE[fault]
    shape = Topology.of(forest_of("star"))
    changed = getattr(shape, column).clone()
    changed[int((shape.children > 0).nonzero()[0, 0])] = value
    broken = dataclasses.replace(shape, **{column: changed})
    states = [torch.randn(shape.nodes, 8) for _ in range(3)]
    below, above = (torch.randn(24, 8), torch.randn(24)), torch.randn(16, 8)
    norm = torch.ones(8), torch.zeros(8), 1e-5
    layer_native.layer(states, below, above, norm, shape)
    with pytest.raises(ValueError, match=f"of {shape.nodes} nodes"):
        layer_native.layer(states, below, above, norm, broken)
    if column != "parent":
        with pytest.raises(ValueError, match=f"of {shape.nodes} nodes"):
            broken.mixed_sum(torch.randn(shape.nodes, 24), 8)


def test_columns_outside_are_refused_in_c() -> None:
    shape = Topology.of(forest_of("star"))
    mixed, out = torch.randn(shape.nodes, 24), torch.zeros(shape.nodes, 8)
    topology._call("child_sum", mixed, shape, out, 8, 24, 8)
    with pytest.raises(ValueError, match="columns"):
        topology._call("child_sum", mixed, shape, out, 8, 24, 9)
