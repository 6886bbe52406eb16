"""Networks and loops that are none of the zoo's: each against an eager twin, to the bit, or a clear refusal."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import outsize
from outsize import api
from outsize.errors import CaptureError
from outsize.measure.optimizer import update_bytes

from .training import rebudget, smallest_budget

LOG = logging.getLogger("outsize.tests")


class Function(nn.Module):
    """A layer before and after some function of its activations."""

    def __init__(self, function: Callable[[Tensor], Tensor], *, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.before, self.after = (nn.Conv2d(3, 3, 3, padding=1, dtype=dtype) for _ in range(2))
        self.function = function
        self.register_buffer("count", torch.zeros(3))

    def forward(self, x: Tensor) -> Tensor:
        y = self.function(self.before(x))
        kinds = self.before(x).amax((2, 3)).argmax(1)
        self.count += torch.bincount(kinds, minlength=3)
        return self.after(y) * self.count.to(x.dtype).mean()


def scaled(size: float, mode: str) -> Callable[[Tensor], Tensor]:
    return lambda x: F.interpolate(x, scale_factor=size, mode=mode)


@pytest.mark.parametrize(
    "function",
    [
        scaled(2, "bilinear"),
        scaled(1.5, "bicubic"),
        scaled(2, "nearest"),
        scaled(0.5, "nearest-exact"),
        lambda x: F.dropout(x, 0.1),
        lambda x: F.dropout(x, 0.15),  # 1 / 0.85 is not what 1 / float32(0.85) is
        lambda x: F.dropout(x, 1.0),
        lambda x: F.dropout(x, 0.0).mul_(2) + x,  # nothing to drop: the tensor itself
        lambda x: F.alpha_dropout(x, 0.2, training=True),
    ],
    ids=["bilinear", "bicubic", "nearest", "nearest-exact", "0.1", "0.15", "all", "none", "alpha"],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_operators_are_those_of_the_eager_step(
    function: Callable[[Tensor], Tensor], dtype: torch.dtype
) -> None:
    eager = Function(function, dtype=dtype)
    compiled = outsize.compile(copy.deepcopy(eager), "1 GiB")
    x = torch.randn(2, 3, 8, 8, dtype=dtype)
    results = []
    for module in (eager, compiled):
        torch.manual_seed(2)
        result = module(x)
        result.square().sum().backward()
        results.append([result, *(p.grad for p in module.parameters()), *module.buffers()])
    assert all(torch.equal(a, b) for a, b in zip(*results))


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lambda x: x[x > 0], "torch.where"),
        (lambda x: F.embedding((x > 0).long(), torch.ones(2, 3, requires_grad=True), sparse=True), "sparse"),
    ],
    ids=["size from data", "sparse"],
)
def test_a_refusal_names_the_place_and_what_to_do(function: Callable[[Tensor], Tensor], said: str) -> None:
    module = Function(function)
    with pytest.raises(CaptureError, match=said) as caught:
        api.capture(module, (torch.randn(2, 3, 8, 8),))
    assert "test_unseen.py" in str(caught.value)


def test_a_branch_names_the_users_line_alone() -> None:
    class Inner(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) if x.sum() > 0 else x

    with pytest.raises(CaptureError, match=r"torch\.where") as caught:
        outsize.compile(nn.Sequential(Inner(4, 4)), "1 GiB", door="captured")(torch.randn(2, 4))
    assert "x.sum() > 0" in str(caught.value)
    assert "torch/nn" not in str(caught.value)
    assert "Hint" not in str(caught.value)


def test_a_mask_whose_kind_torch_looks_for_is_to_be_named() -> None:
    module = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 1)
    x, mask = torch.randn(2, 5, 8), nn.Transformer.generate_square_subsequent_mask(5)
    with pytest.raises(CaptureError, match="is_causal") as caught:
        outsize.compile(module, "1 GiB", door="captured")(x, mask)
    assert not any(word in str(caught.value) for word in ("TORCH_LOGS", "TORCHDYNAMO", "from user code"))
    assert str(caught.value).count(f'File "{__file__}"') == 1  # all other frames are torch's
    torch._dynamo.reset()
    outsize.compile(copy.deepcopy(module), "1 GiB")(x, mask, is_causal=True).sum().backward()


class Patches(nn.Module):
    """On a CPU torch's col2im hands out a small tensor over a storage as large as its input."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(8, 8, 3, padding=1) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = F.fold(F.unfold(layer(x).tanh(), 3, padding=1), x.shape[-2:], 3, padding=1).sigmoid()
        return x.mean((2, 3))


def test_a_small_result_over_a_large_storage_counts_as_what_it_takes() -> None:
    torch.manual_seed(0)
    eager, x = Patches(), torch.randn(8, 8, 64, 64)
    twin = outsize.meter(copy.deepcopy(eager))
    twin(x).square().sum().backward()
    plain = outsize.report(twin)
    assert plain.plain_peak_bytes == pytest.approx(plain.measured_peak_bytes, rel=0.03)
    compiled = outsize.compile(copy.deepcopy(eager), int(0.8 * plain.measured_peak_bytes))
    for module in (eager, compiled):
        module(x).square().sum().backward()
    report = outsize.report(compiled)
    assert report.decisions
    assert report.measured_peak_bytes <= report.budget_bytes
    assert all(torch.equal(a.grad, b.grad) for a, b in zip(eager.parameters(), compiled.parameters()))


class Fourier(nn.Module):
    """Complex tensors, whose transposes and imaginary parts are views that only say "conjugate" and "negative"."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 8, 8, dtype=torch.complex64))

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(3):
            low = torch.fft.rfft2(x)[:, :, :4].permute(2, 0, 1, 3).reshape(4, -1, 8) + 0.1
            y = torch.bmm(low.sgn(), self.weight) * low.conj().imag.sigmoid()
            x = x + torch.fft.irfft2(y.reshape(4, x.shape[0], -1, 8).permute(1, 2, 0, 3), s=x.shape[-2:])
        return x


class Spectrum(nn.Module):
    """Real views of complex tensors whose last dimension is not dense."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(14, 14) / 4)

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(3):
            turned = torch.fft.rfft((x @ self.weight).tanh(), dim=1)
            parts = torch.view_as_real(turned)
            x = x + torch.fft.irfft(turned * (parts.sin() * parts).sum(-1), n=x.shape[1], dim=1)
        return x


@pytest.mark.parametrize("make", [Fourier, Spectrum])
@pytest.mark.parametrize("actions", [("recompute",), ("swap",), ("swap", "recompute", "encode")])
def test_complex_storages_come_back_under_each_of_their_views(
    make: type[nn.Module], actions: tuple[str, ...]
) -> None:
    torch.manual_seed(0)
    eager, x = make(), torch.randn(4, 6, 16, 14)
    compiled = outsize.compile(copy.deepcopy(eager), 2**40)
    compiled(x).square().mean().backward()
    smallest = smallest_budget(compiled, (x,), planner="search", actions=actions)
    rebudget(compiled, smallest, planner="search", actions=actions)
    compiled.zero_grad()
    for module in (eager, compiled):
        module(x).square().mean().backward()
    assert outsize.report(compiled).decisions
    assert eager.weight.grad.isfinite().all()
    assert torch.equal(eager.weight.grad, compiled.weight.grad)


@pytest.mark.filterwarnings(
    "ignore:The .grad attribute of a Tensor"
)  # Dynamo's own look, unseen unless an error
def test_hooks_on_the_modules_own_backward_run() -> None:
    eager = nn.Sequential(nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 4))
    compiled = outsize.compile(copy.deepcopy(eager), "1 GiB")
    x = torch.randn(4, 8, requires_grad=True)
    for module in (eager, compiled):
        module.register_full_backward_pre_hook(lambda _, given: (given[0] * 0.5,))
        module(x).square().sum().backward()
    assert outsize.report(compiled).steps == 1
    assert "forward" not in vars(compiled)
    assert all(torch.equal(a.grad, b.grad) for a, b in zip(eager.parameters(), compiled.parameters()))


def test_hooks_on_a_parts_backward_are_refused_with_a_way_out() -> None:
    module = nn.Sequential(nn.Linear(8, 8))
    module[0].register_full_backward_hook(lambda *_: None)
    with pytest.raises(CaptureError, match="register_hook"):
        outsize.compile(module, "1 GiB", door="captured")(torch.randn(4, 8))


def test_inputs_of_a_waiting_forward_are_resident() -> None:
    compiled, x = (
        outsize.compile(nn.Sequential(nn.Linear(128, 128), nn.Tanh()), "1 GiB"),
        torch.randn(2048, 128),
    )
    session = api._SESSIONS[compiled]
    first, other = compiled(x), torch.randn_like(x)
    alone = session.resident_bytes((x,))
    assert session.resident_bytes((other,)) == alone + x.nbytes
    (first.sum() + compiled(other).sum()).backward()
    compiled.zero_grad()
    assert session.resident_bytes((x,)) < alone


class Wanting(torch.optim.SGD):
    """Cannot be made from its parameters alone."""

    def __init__(self, parameters: object, factor: float) -> None:
        super().__init__(parameters, lr=0.1, momentum=0.9)  # type: ignore[arg-type]
        self.factor = factor

    def step(self, closure: object = None) -> None:  # type: ignore[override]
        assert self.factor == 3.0
        super().step()


def test_an_optimizer_with_arguments_of_its_own_is_sized() -> None:
    module = nn.Linear(64, 64)
    optimizer = Wanting(module.parameters(), 3.0)
    assert update_bytes(optimizer).state == sum(p.nbytes for p in module.parameters())
    assert not optimizer.state
    assert all(p.grad is None for p in module.parameters())


def test_operators_that_want_particular_values_are_timed_without_a_warning() -> None:
    def function(x: Tensor) -> Tensor:
        kinds = F.one_hot((x > 0).long(), 2).sum(-1)  # asserts on its values
        return x * kinds + torch.bernoulli(torch.full_like(x, 0.3))

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        outsize.plan(Function(function), (torch.randn(2, 3, 11, 13),), budget="1 GiB")


def test_a_log_in_a_forward_is_no_graph_break() -> None:
    """Libraries warn once from their forwards; the step has nothing to do with it."""

    class Chatty(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            LOG.warning("a warning from a forward")
            return self.layer(x).relu()

    torch.manual_seed(0)
    eager = Chatty()
    compiled = outsize.compile(copy.deepcopy(eager), "1 GiB")
    x = torch.randn(4, 8)
    for module in (eager, compiled):
        module(x).sum().backward()
    assert torch.equal(eager.layer.weight.grad, compiled.layer.weight.grad)
