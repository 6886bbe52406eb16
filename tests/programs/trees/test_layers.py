"""The layers against references written node by node from the text of the claims."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from outsize.errors import TreesError
from outsize.programs.trees import Forest, LocalizedTreeConv, TreeConv, parse

WIDTH = 3


def random_forest(rng: np.random.Generator, sizes: list[int]) -> Forest:
    parents = [[-1] + [int(rng.integers(max(0, i - 6), i)) for i in range(1, n)] for n in sizes]
    return Forest.from_parents(parents)


SHAPES = {
    "star": [[-1] + [0] * 9],
    "path": [[-1, *range(11)]],
    "pair": [[-1, 0]],
    "two": [[-1, 0, 0, 1, 1, 1, 2], [-1, 0, 1, 0]],
}


def neighbours(forest: Forest) -> tuple[list[int], list[list[int]]]:
    parent = forest.absolute_parent.tolist()
    children: list[list[int]] = [[] for _ in parent]
    for node, above in enumerate(parent):
        if above >= 0:
            children[above].append(node)
    return parent, children


def rho(forest: Forest, node: int, children: list[list[int]], parent: list[int]) -> float:
    siblings = len(children[parent[node]])
    return float(forest.pos[node]) / (siblings - 1) if siblings > 1 else 0.5


def reference(model: LocalizedTreeConv, x: Tensor, forest: Forest, pivot: int) -> Tensor:
    """Method 6 spelled out for one pivot, one node at a time, in the order of the claims."""
    parent, children = neighbours(forest)
    ancestors, node = set(), parent[pivot]
    while node >= 0:
        ancestors.add(node)
        node = parent[node]
    towards = {}
    for node in range(forest.nodes):
        path = [c for c in children[node] if c in ancestors or c == pivot]
        towards[node] = path[0] if node in ancestors else parent[node]
    state = [x[node] for node in range(forest.nodes)]
    w = model.width
    for below, above in zip(model.below, model.above):
        new = []
        for node in range(forest.nodes):
            if model.mode == "rerooted":
                counted = [c for c in children[node] if node == pivot or c != towards[node]]
                reads_parent = parent[node] >= 0 and (node == pivot or towards[node] != parent[node])
            else:
                counted = [c for c in children[node] if c not in ancestors]
                if not model.pivot_is_child:
                    counted = [c for c in counted if c != pivot]
                reads_parent = parent[node] >= 0
            z = below.weight[:w] @ state[node] + below.bias[:w]
            for child in counted:
                r = rho(forest, child, children, parent)
                left = below.weight[w : 2 * w] @ state[child] + below.bias[w : 2 * w]
                right = below.weight[2 * w :] @ state[child] + below.bias[2 * w :]
                z = z + ((1 - r) * left + r * right) / math.sqrt(len(counted))
            if reads_parent:
                r = rho(forest, node, children, parent)
                z = (
                    z
                    + (1 - r) * (above.weight[:w] @ state[parent[node]])
                    + r * (above.weight[w:] @ state[parent[node]])
                )
            new.append(torch.tanh(z))
        state = new
    return state[pivot]


def model_of(mode: str, layers: int, **more: bool) -> LocalizedTreeConv:
    torch.manual_seed(layers)
    return LocalizedTreeConv(WIDTH, layers=layers, mode=mode, **more).double()  # type: ignore[arg-type]


def features(forest: Forest) -> Tensor:
    return torch.randn(forest.nodes, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("layers", [2, 4])
@pytest.mark.parametrize(
    ("mode", "more", "ways"),
    [("rerooted", {}, ("all", "windows", "full")), ("claim", {}, ("windows", "full")),
     ("claim", {"pivot_is_child": False}, ("windows", "full"))],
)  # fmt: skip
def test_every_way_equals_the_reference(shape: str, layers: int, mode: str, more: dict, ways: tuple) -> None:
    forest = Forest.from_parents(SHAPES[shape])
    model, x = model_of(mode, layers, **more), features(forest)
    pivots = np.flatnonzero(forest.parent >= 0)
    expected = torch.stack([reference(model, x, forest, p) for p in pivots.tolist()])
    for way in ways:
        assert (model(x, forest, pivots, way=way) - expected).abs().max() < 1e-12, way


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 10**6), st.lists(st.integers(2, 25), min_size=1, max_size=3), st.integers(2, 5))
def test_the_three_ways_agree_on_random_trees(seed: int, sizes: list[int], layers: int) -> None:
    rng = np.random.default_rng(seed)
    forest = random_forest(rng, sizes)
    model, x = model_of("rerooted", layers, residual=True, norm=True), features(forest)
    pivots = rng.permutation(np.flatnonzero(forest.parent >= 0))
    own = torch.randn(len(pivots), WIDTH, dtype=torch.float64)
    whole = model(x, forest, pivots, way="full", pivot_x=own)
    for way in ("all", "windows"):
        assert (model(x, forest, pivots, way=way, pivot_x=own) - whole).abs().max() < 1e-12
    plain = model_of("rerooted", layers).float()
    ways = [plain(x.float(), forest, pivots, way=way) for way in ("all", "windows", "full")]  # type: ignore[arg-type]
    assert max((ways[0] - ways[1]).abs().max(), (ways[0] - ways[2]).abs().max()) < 1e-5


@pytest.mark.parametrize("mode", ["rerooted", "claim"])
def test_a_pivot_sees_as_many_hops_as_there_are_layers(mode: str) -> None:
    forest = Forest.from_parents(SHAPES["path"])
    for layers in (2, 3):
        x = features(forest).requires_grad_()
        model_of(mode, layers)(x, forest, [5], way="full").sum().backward()
        assert x.grad is not None
        moved = x.grad.abs().sum(1) > 0
        assert moved.tolist() == [abs(node - 5) <= layers for node in range(forest.nodes)]


def test_two_pivots_of_one_tree_have_different_vectors() -> None:
    forest = Forest.from_parents([[-1, 0, 0, 1, 1]])
    x = torch.ones(5, WIDTH, dtype=torch.float64)
    a, b = model_of("claim", 2)(x, forest, [1, 3], way="full")
    assert (a - b).abs().max() > 1e-3


def test_a_masked_pivot_does_not_see_itself() -> None:
    """In the rerooted mode nothing flows away from the pivot, so its own vector enters only through
    `pivot_x`.
    """
    forest = random_forest(np.random.default_rng(0), [30])
    model, x = model_of("rerooted", 4), features(forest)
    other = x.clone()
    other[7] += 5
    own = torch.zeros(1, WIDTH, dtype=torch.float64)
    a, b = (model(v, forest, [7], pivot_x=own) for v in (x, other))
    assert (a - b).abs().max() < 1e-14  # a sum without one term, by subtraction


@pytest.mark.parametrize("mode", ["rerooted", "claim"])
@pytest.mark.parametrize("way", ["all", "windows", "full"])
def test_gradients(mode: str, way: str) -> None:
    if mode == "claim" and way == "all":
        with pytest.raises(TreesError, match="no one-pass form"):
            model_of(mode, 2)(features(forest := Forest.from_parents(SHAPES["two"])), forest, [1], way="all")
        return
    forest = Forest.from_parents(SHAPES["two"])
    model = model_of(mode, 2)
    x = features(forest).requires_grad_()

    def run(x: Tensor, *weights: Tensor) -> Tensor:
        names = [name for name, _ in model.named_parameters()]
        return torch.func.functional_call(
            model, dict(zip(names, weights)), (x, forest, [1, 4, 9]), {"way": way}
        )

    weights = [p.detach().clone().requires_grad_() for p in model.parameters()]
    assert torch.autograd.gradcheck(run, (x, *weights))


def test_a_far_change_leaves_the_windows_alone() -> None:
    """The cost of a window, too, depends on its surroundings only: same rows in a tree ten times as large."""
    from outsize.programs.trees.windows import window_rows

    small = Forest.from_parents([[-1, *range(20)]])
    large = Forest.from_parents([[-1, *range(200)]])
    assert (
        len(window_rows(small, np.array([10]), 4).node)
        == len(window_rows(large, np.array([10]), 4).node)
        == 9
    )


@pytest.mark.parametrize(
    ("ask", "match"),
    [
        (lambda m, x, f: m(x, f, [0]), "pivot 0 is the root"),
        (lambda m, x, f: m(x, f, [1, 7]), "pivot 7 is the root"),
        (lambda m, x, f: m(x, f, [99]), "pivots must lie in"),
        (lambda m, x, f: m(x[:3], f, [1]), "the forest needs"),
        (lambda m, x, f: LocalizedTreeConv(3, layers=1), "two layers or more"),
        (lambda m, x, f: LocalizedTreeConv(3, mode="other"), "neither"),  # type: ignore[arg-type]
        (lambda m, x, f: TreeConv(2, 2)(x, f), "the forest needs"),
    ],
)
def test_what_cannot_be_asked(ask: object, match: str) -> None:
    forest = Forest.from_parents(SHAPES["two"])
    with pytest.raises(TreesError, match=match):
        ask(model_of("rerooted", 2), features(forest), forest)  # type: ignore[operator]


def test_no_pivots_is_no_rows() -> None:
    forest = Forest.from_parents(SHAPES["star"])
    for way in ("all", "windows", "full"):
        assert model_of("rerooted", 2)(features(forest), forest, [], way=way).shape == (0, WIDTH)  # type: ignore[arg-type]


def test_continuous_binary_tree_by_hand() -> None:
    """Mou's coefficients for depth 2: eta_t = 1 for the node; child i of n has eta_r = (i - 1)/(n - 1)."""
    forest = Forest.from_parents([[-1, 0, 0, 0, 1]])
    layer = TreeConv(1, 1).double()
    top, left, right = layer.mix.weight.detach()[:, 0].tolist()
    x = torch.tensor([[2.0], [3.0], [5.0], [7.0], [11.0]], dtype=torch.float64)
    root = 2 * top + (3 * left) + 5 * (0.5 * left + 0.5 * right) + 7 * right
    only_child = 3 * top + 11 * (0.5 * left + 0.5 * right)
    got = layer(x, forest).detach()[:, 0]
    torch.testing.assert_close(got[:2], torch.tensor([root, only_child], dtype=torch.float64).tanh())
    torch.testing.assert_close(got[2:], (x[2:, 0] * top).tanh())


def test_tree_conv_gradients() -> None:
    forest = Forest.from_parents(SHAPES["two"])
    layer = TreeConv(WIDTH, 2).double()
    assert torch.autograd.gradcheck(lambda x: layer(x, forest), (features(forest).requires_grad_(),))


def test_layers_take_parsed_code() -> None:
    forest = parse("def f(x):\n    return x + 1\n")
    pivots = np.flatnonzero(forest.parent >= 0)
    out = LocalizedTreeConv(8, layers=3)(torch.randn(forest.nodes, 8), forest, pivots)
    assert out.shape == (len(pivots), 8)
    assert bool(out.isfinite().all())


def test_the_c_sum_equals_torch_with_its_gradient() -> None:
    from outsize.native import available
    from outsize.programs.trees import Topology

    assert available()
    forest = random_forest(np.random.default_rng(4), [40, 1, 17, 2])
    topology = Topology.of(forest)
    for width in (1, 7, 64):
        mixed = torch.randn(forest.nodes, 3 * width)
        weight = torch.randn(forest.nodes, width)
        results = []
        for precision in (torch.float32, torch.float64):  # C and torch
            x = mixed.detach().clone().to(precision).requires_grad_()
            out = topology.to(precision).mixed_sum(x, width)
            (out * weight.to(precision)).sum().backward()
            assert x.grad is not None
            results.append((out.detach().double(), x.grad.double()))
        for ours, theirs in zip(*results, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
