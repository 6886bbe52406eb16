"""`file.py:build`: what a user may return, and what is said about everything else."""

import itertools
from pathlib import Path

import pytest
import torch

from outsize import zoo
from outsize.errors import WorkloadError

HEAD = "import torch\nfrom torch import nn\nmodel = lambda: nn.Linear(4, 1)\n"
LOSS = "nn.functional.mse_loss"


def load(folder: Path, body: str, *, target: str = "build") -> zoo.Workload:
    file = folder / "mine.py"
    file.write_text(HEAD + body)
    return zoo.load_build(f"{file}:{target}", seed=0)


@pytest.mark.parametrize(
    "batches",
    [
        "[(torch.ones(2, 4), torch.zeros(2, 1))]",
        "lambda: iter([(torch.ones(2, 4), torch.zeros(2, 1))])",
        "[((torch.ones(2, 4),), torch.zeros(2, 1))]",
        "torch.utils.data.DataLoader([(torch.ones(4), torch.zeros(1))] * 4, batch_size=2)",
    ],
)
def test_lists_functions_and_loaders_start_again(tmp_path: Path, batches: str) -> None:
    workload = load(tmp_path, f"def build(): return model(), {batches}, {LOSS}")
    taken = list(itertools.islice(workload.batches(), 5))
    assert len(taken) == 5
    loss = workload.loss_fn(workload.module(*taken[0].args), taken[0].target)
    assert loss.shape == ()
    assert zoo.mean_loss(workload) is None


def test_a_generator_runs_once_and_loses_nothing(tmp_path: Path) -> None:
    stream = "((torch.full((1, 4), i), torch.zeros(1, 1)) for i in range(3))"
    body = f"def build(): return model(), {stream}, {LOSS}"
    workload = load(tmp_path, body)
    assert workload.example().args[0][0, 0] == 0
    assert [int(b.args[0][0, 0]) for b in workload.batches()] == [0, 1, 2]


def test_validation_is_the_fourth(tmp_path: Path) -> None:
    body = (
        f"data = [(torch.ones(2, 4), torch.zeros(2, 1))]\ndef build(): return model(), data, {LOSS}, data * 2"
    )
    workload = load(tmp_path, body)
    assert len(list(workload.validation())) == 2
    assert zoo.mean_loss(workload) is not None


def test_the_seed_initialises(tmp_path: Path) -> None:
    body = f"def build(): return model(), [(torch.ones(2, 4), torch.zeros(2, 1))], {LOSS}"
    first, second = (load(tmp_path, body).module.weight for _ in range(2))
    assert torch.equal(first, second)


def test_neighbours_can_be_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.path", [*__import__("sys").path])
    (tmp_path / "neighbour_of_mine.py").write_text("width = 4\n")
    body = (
        "from neighbour_of_mine import width\n"
        f"def build(): return nn.Linear(width, 1), [(torch.ones(2, 4), torch.zeros(2, 1))], {LOSS}"
    )
    assert load(tmp_path, body).parameters == 5


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("", "no function 'build'"),
        ("build = 3", "no function 'build'"),
        ("def build(): return model()", "returned a Linear: build"),
        ("def build(): return model(), 1", r"returned a tuple of 2 \(Linear, int\)"),
        (f"def build(): return 1, [], {LOSS}", "module is a int"),
        ("def build(): return model(), [], 1", "loss_fn is a int"),
        (f"def build(): return model(), 7, {LOSS}", "batches is a int"),
        (f"def build(): return model(), [], {LOSS}", "yields nothing"),
        (f"def build(): return model(), [torch.ones(3)], {LOSS}", r"yields a tensor of shape \(3,\)"),
        (f"def build(): return model(), [('a', 1)], {LOSS}", r"an input is a tuple of 1 \(str\)"),
        ("def build(): raise KeyError('k')", r"raised KeyError: 'k' \(mine.py, line 4\)"),
        ("import nowhere_to_be_found", "ModuleNotFoundError"),
        ("def build(:", "SyntaxError"),
        ("def build(): return model(), [(torch.ones(2, 4), 0)], lambda o, t: o", "not a scalar tensor"),
    ],
)
def test_mistakes_are_told(tmp_path: Path, body: str, said: str) -> None:
    with pytest.raises(WorkloadError, match=said):
        _use(load(tmp_path, body))


def _use(workload: zoo.Workload) -> torch.Tensor:
    batch = workload.example()
    return workload.loss_fn(workload.module(*batch.args), batch.target)


@pytest.mark.parametrize("target", ["missing.py:build", "folder:build", ":build", "x.txt:build"])
def test_missing_files_are_told(target: str) -> None:
    with pytest.raises(WorkloadError, match=r"path/to/file\.py:build"):
        zoo.load_build(target, seed=0)
