"""Training under a byte budget: same numbers, fewer bytes, one plan for a bucket of shapes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import outsize
from outsize.programs.trees import Forest, LocalizedTreeConv, Topology, layer_native
from outsize.programs.trees.budget import BudgetedTree, padded

WIDTH = 16


def forest(sizes: tuple[int, ...], seed: int) -> Forest:
    rng = np.random.default_rng(seed)
    return Forest.from_parents([[-1] + [int(rng.integers(0, i)) for i in range(1, n)] for n in sizes])


def test_padding_adds_one_tree_that_nobody_reads() -> None:
    topology = Topology.of(forest((5, 1, 9), 0))
    for nodes in (16, 17, 40):
        whole = padded(topology, nodes)
        assert whole.nodes == len(whole.parent) == len(whole.children) == nodes
        assert len(whole.inner) == len(whole.above) == nodes - 4
        assert int(whole.children.sum()) == nodes - 4
        values = torch.randn(nodes, 3)
        torch.testing.assert_close(whole.child_sum(values)[:15], topology.child_sum(values[:15]))


def test_a_budgeted_step_equals_the_plain_one_and_keeps_under_its_budget(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # A captured step consists of torch's operations, so the plain one does here as well; that the pass in C equals
    # them is `test_layer_native`.
    monkeypatch.setattr(layer_native, "usable", lambda x, weight: False)
    torch.manual_seed(0)
    tree = LocalizedTreeConv(WIDTH, layers=3, residual=True, norm=True)
    budget = 1 << 20
    budgeted = BudgetedTree(tree, budget, bucket=512)
    for seed, sizes in enumerate(((100, 120, 60), (130, 150, 60))):  # both in one bucket
        drawn = forest(sizes, seed)
        topology = Topology.of(drawn)
        x = torch.randn(drawn.nodes, WIDTH, requires_grad=True)
        results = []
        for encoder in (tree, budgeted):
            x.grad = None
            tree.zero_grad()
            states = encoder.edge_states(x, topology, x)
            (states.up.sum() + (states.down**2).sum() + (states.pivot**3).sum()).backward()
            assert x.grad is not None
            results.append(
                [states.pivot.detach(), x.grad.clone(), *(p.grad.clone() for p in tree.parameters())]
            )
        for plain, planned in zip(*results, strict=True):
            torch.testing.assert_close(planned, plain, rtol=1e-4, atol=1e-4)
    record = outsize.report(budgeted.step)
    assert record.plain_peak_bytes > budget >= record.measured_peak_bytes
