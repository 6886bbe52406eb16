"""Every name of the zoo: sizes, reproducibility, disjoint parts, and a loss that falls."""

import itertools

import pytest
import torch

from outsize import zoo
from outsize.errors import WorkloadError

NAMES = zoo.names()


@pytest.fixture(params=NAMES)
def tiny(request: pytest.FixtureRequest) -> zoo.Workload:
    return zoo.load(request.param, seed=3, tiny=True)


def train(workload: zoo.Workload, steps: int) -> list[float]:
    torch.manual_seed(0)
    optimizer = torch.optim.AdamW(workload.module.parameters(), lr=workload.learning_rate)
    losses = []
    for batch in itertools.islice(workload.batches(), steps):
        optimizer.zero_grad()
        loss = workload.loss_fn(workload.module(*batch.args), batch.target)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def test_one_batch_is_learned(tiny: zoo.Workload) -> None:
    batch = tiny.example()
    torch.manual_seed(0)
    optimizer = torch.optim.AdamW(tiny.module.parameters(), lr=3e-3)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = tiny.loss_fn(tiny.module(*batch.args), batch.target)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert min(losses[-5:]) < 0.95 * losses[0]
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in tiny.module.parameters())


def test_seed_gives_the_same_run(tiny: zoo.Workload) -> None:
    again = zoo.load(tiny.name, seed=3, tiny=True)
    assert train(tiny, 3) == train(again, 3)
    other = zoo.load(tiny.name, seed=4, tiny=True)
    assert not torch.equal(tiny.example().args[0], other.example().args[0])


def test_loading_leaves_the_global_stream_alone(tiny: zoo.Workload) -> None:
    before = torch.random.get_rng_state()
    zoo.load(tiny.name, seed=9, tiny=True)
    assert torch.equal(before, torch.random.get_rng_state())


def test_streams_start_again(tiny: zoo.Workload) -> None:
    first, second = (list(itertools.islice(tiny.batches(), 2)) for _ in range(2))
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a.args[0], b.args[0])
        assert torch.equal(a.target, b.target)
    assert not torch.equal(first[0].args[0], first[1].args[0])
    validation = list(tiny.validation())
    assert 1 <= len(validation) <= 4
    assert not any(torch.equal(v.args[0], b.args[0]) for v in validation for b in first)


def test_mean_loss_restores_the_mode(tiny: zoo.Workload) -> None:
    loss = zoo.mean_loss(tiny)
    assert loss is not None
    assert loss == zoo.mean_loss(tiny)
    assert tiny.module.training


@pytest.mark.parametrize(
    ("name", "millions"),
    [("gpt", 11.2), ("gpt-tied", 11.1), ("resnet50", 23.5), ("vit", 21.7), ("bert", 11.1), ("lstm", 4.5)],
)
def test_full_sizes(name: str, millions: float) -> None:
    """Parameter counts of the full models: those of the published ones with our heads."""
    workload = zoo.load(name, seed=0, size=16 if name == "lstm" else None)
    assert workload.parameters / 1e6 == pytest.approx(millions, abs=0.06)


def test_gpt_has_the_context_that_was_promised() -> None:
    assert zoo.load("gpt", seed=0).example().args[0].shape[1] >= 1024


def test_tied_weights_are_one_tensor() -> None:
    tied = zoo.load("gpt-tied", seed=0, tiny=True).module
    assert tied.head.weight is tied.symbol.weight
    assert "head.weight" in tied.state_dict()


def test_batch_and_size_are_obeyed() -> None:
    assert zoo.load("gpt", seed=0, tiny=True, batch=5, size=48).example().args[0].shape == (5, 48)
    assert zoo.load("unet3d", seed=0, tiny=True, batch=1, size=8).example().args[0].shape == (1, 1, 8, 8, 8)


@pytest.mark.parametrize(
    ("name", "wanted", "said"),
    [
        ("gtp", {}, "choose from gpt"),
        ("gpt", {"batch": 0}, "at least 1"),
        ("unet2d", {"size": 30, "tiny": True}, "try 32"),
        ("vgg16", {"size": 100}, "multiples of 32"),
    ],
)
def test_what_does_not_fit_is_told(name: str, wanted: dict, said: str) -> None:
    with pytest.raises(WorkloadError, match=said):
        zoo.load(name, **wanted)
