"""Every kind of module is captured whole, or the error says where it cannot be."""

import logging

import pytest
import torch
from torch import Tensor, nn

import outsize
from outsize.api import capture
from outsize.capture import aot, check_version
from outsize.errors import CaptureError, VersionError


@pytest.mark.parametrize(
    ("module", "args"),
    [
        (nn.Sequential(nn.Linear(4, 4), nn.ReLU()), (torch.randn(2, 4),)),
        (nn.Linear(4, 4), (torch.randn(2, 4),)),
        (nn.LSTM(4, 5, batch_first=True), (torch.randn(2, 3, 4),)),
        (nn.GRU(4, 5), (torch.randn(3, 2, 4),)),
        (nn.TransformerEncoderLayer(8, 2, 16, dropout=0.1, batch_first=True), (torch.randn(2, 3, 8),)),
    ],
    ids=["Sequential", "Linear", "LSTM", "GRU", "TransformerEncoderLayer"],
)
def test_torch_containers_are_captured_at_the_root(module: nn.Module, args: tuple[Tensor, ...]) -> None:
    graph = capture(module, args).graph
    assert sum(s.kind == "gradient" for s in graph.storages) == len(list(module.parameters()))
    assert {o.phase for o in graph.ops} == {"forward", "outside", "backward", "update"}


class Breaking(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(x)
        torch._dynamo.graph_break()
        return y * 2


class Deciding(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(x)
        return y * 2 if y.sum() > 0 else y


@pytest.mark.parametrize("module", [Breaking(), Deciding()], ids=["graph break", "branch on data"])
def test_a_graph_break_names_its_place(module: nn.Module) -> None:
    with pytest.raises(CaptureError) as caught:
        capture(module, (torch.randn(2, 4),))
    assert "test_roots.py" in str(caught.value)
    assert "forward" in str(caught.value)
    compiled = outsize.compile(module, "1 GiB", door="captured")
    with pytest.raises(CaptureError, match=r"test_roots\.py"):
        compiled(torch.randn(2, 4))


class Opaque(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    @torch.compiler.disable
    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x)


def test_what_dynamo_leaves_out_never_passes_silently() -> None:
    with pytest.raises(CaptureError):
        capture(Opaque(), (torch.randn(2, 4),))
    with pytest.raises(CaptureError):
        outsize.compile(Opaque(), "1 GiB", door="captured")(torch.randn(2, 4))


def test_nothing_to_train_is_said() -> None:
    frozen = nn.Linear(4, 4).requires_grad_(False)
    with pytest.raises(CaptureError, match="needs no gradient"):
        capture(frozen, (torch.randn(2, 4),))


def test_capture_runs_nothing() -> None:
    module = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
    before = torch.random.get_rng_state()
    capture(module, (torch.randn(3, 4, generator=torch.Generator().manual_seed(0)),))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert int(module[1].num_batches_tracked) == 0
    assert all(p.grad is None for p in module.parameters())


def test_an_untested_torch_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aot.torch, "__version__", "2.9.1")
    with pytest.raises(VersionError, match=r"2\.9\.1.*2\.13"):
        check_version()
    monkeypatch.setattr(aot.torch, "__version__", "2.130.0")  # not 2.13
    with pytest.raises(VersionError):
        outsize.compile(nn.Linear(2, 2), "1 GiB")
    log = logging.getLogger("torch._dynamo.metrics_context")
    monkeypatch.setattr(log, "disabled", False)
    monkeypatch.setenv(aot.TRY_TORCH, "1")
    check_version()
    assert log.disabled  # its records would keep activations alive
