"""Eager training with saved tensors encoded: the same gradients, fewer bytes, no surprises."""

from __future__ import annotations

import gc

import pytest
import torch
from torch import nn

import outsize.codecs as codecs
from outsize.codecs.hooks import Policy
from outsize.errors import MutationError

from .helpers import activation, same_bits

SMALL = Policy(min_bytes=256)


def network(inplace: bool = False) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(inplace),
        nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(inplace), nn.MaxPool2d(3, 2, 1),
        nn.Conv2d(16, 8, 3), nn.ReLU(inplace), nn.Dropout(0.2), nn.Flatten(), nn.LazyLinear(5),
    )  # fmt: skip


def gradients(model: nn.Module, x: torch.Tensor, **options: object) -> list[torch.Tensor]:
    x = x.clone().requires_grad_()
    torch.manual_seed(3)
    for p in model.parameters():
        p.grad = None
    if options:
        with codecs.saved_tensors_hooks(model, **options) as saved:
            loss = model(x).square().sum()
        assert saved.encoded >= 4
        assert saved.ratio < 0.95
    else:
        loss = model(x).square().sum()
    loss.backward()
    return [loss.detach(), x.grad, *(p.grad for p in model.parameters())]


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_gradients_are_bitwise_the_plain_ones(inplace: bool, memory_format: torch.memory_format) -> None:
    x = torch.randn(4, 3, 14, 14).contiguous(memory_format=memory_format)
    model = network(inplace)
    model(x)
    plain, encoded = gradients(model, x), gradients(model, x, policy=SMALL)
    assert len(plain) == len(encoded) > 2
    for one, other in zip(plain, encoded, strict=True):
        same_bits(one, other)


def test_one_storage_is_encoded_once_and_decoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """ReLU and the convolution after it save the same storage."""
    decodes = []
    plain = codecs.ReluCompressed.decompress
    monkeypatch.setattr(
        codecs.ReluCompressed, "decompress", lambda self, **k: decodes.append(1) or plain(self, **k)
    )
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3))
    with codecs.saved_tensors_hooks(model, policy=SMALL) as saved:
        y = model(torch.randn(2, 3, 12, 12))
    assert saved.encoded == 1
    y.sum().backward()
    assert len(decodes) == 1


def test_views_are_rebuilt_as_views() -> None:
    base = activation((64, 64), torch.float32).requires_grad_()
    with codecs.saved_tensors_hooks(policy=SMALL) as saved:
        x = base.relu()
        loss = (x[::2, 1:].t() * x.flatten()[7 : 7 + 63 * 32].view(63, 32)).sum() + (x.exp() * x).sum()
    (grad,) = torch.autograd.grad(loss, base)
    x = base.relu()
    loss = (x[::2, 1:].t() * x.flatten()[7 : 7 + 63 * 32].view(63, 32)).sum() + (x.exp() * x).sum()
    same_bits(grad, torch.autograd.grad(loss, base)[0])
    assert saved.encoded == 1


@pytest.mark.parametrize("first", ["conjugate", "plain"])
def test_a_conjugate_is_not_its_bytes(first: str) -> None:
    """Two saved views of one sparse storage, one of which only says that it is the conjugate."""
    real, imaginary = (activation((64, 64), torch.float32) for _ in range(2))
    base = torch.complex(real.relu(), imaginary.relu()).requires_grad_()

    def loss() -> torch.Tensor:
        x = base * 1
        parts = [(x * x).sum(), (x.conj() * x.conj().mT).sum()]
        one, two = parts if first == "plain" else parts[::-1]
        return (one + 2 * two).abs()

    with codecs.saved_tensors_hooks(policy=SMALL) as saved:
        encoded = loss()
    same_bits(torch.autograd.grad(encoded, base)[0], torch.autograd.grad(loss(), base)[0])
    assert saved.encoded == 1


def test_dense_small_and_own_tensors_pass_through() -> None:
    model = nn.Linear(200, 200)
    with torch.no_grad():
        model.weight.copy_(activation((200, 200), torch.float32))
    with codecs.saved_tensors_hooks(model) as saved:
        model(torch.randn(300, 200, requires_grad=True))
        (torch.zeros(10, requires_grad=True) ** 2).sum()
    assert saved.encoded == 0
    assert saved.dense_bytes == 300 * 200 * 4 + 10 * 4
    assert saved.ratio == 1


@pytest.mark.parametrize("sparse", [False, True])
def test_a_change_after_saving_is_never_silent(sparse: bool) -> None:
    """A kept tensor: refused, as plain autograd does. An encoded one: the saved bytes are what counts."""
    x = activation((40, 40), torch.float32, 0.3 if sparse else 1.0).requires_grad_()
    y = x * 1
    with codecs.saved_tensors_hooks(policy=SMALL) as saved:
        loss = (y * y).sum()
    y.detach().add_(1)
    assert saved.encoded == sparse
    if sparse:
        same_bits(torch.autograd.grad(loss, x)[0], 2 * x.detach())
    else:
        with pytest.raises(MutationError, match=r"changed in place.*version 0 then, 1 now"):
            torch.autograd.grad(loss, x)


def test_two_versions_of_one_storage() -> None:
    x = activation((40, 40), torch.float32, 0.3).requires_grad_()
    y = x * 1
    with codecs.saved_tensors_hooks(policy=SMALL) as saved:
        a = (y.detach() * x).sum()
        y.detach().mul_(2)
        b = (y.detach() * x).sum()
    assert saved.encoded == 2
    same_bits(torch.autograd.grad(a + b, x)[0], (x * 1 + x * 2).detach())


def test_encodings_die_with_the_graph() -> None:
    x = activation((100, 100), torch.float32, 0.3).requires_grad_()
    live = []
    with codecs.saved_tensors_hooks(policy=SMALL) as saved:
        for _ in range(3):
            (x * 1).square().sum().backward()
            gc.collect()
            live.append(len(saved._seen))
    assert live == [0, 0, 0]
    assert saved.encoded == 3


def test_an_address_used_again_is_another_storage() -> None:
    with codecs.saved_tensors_hooks(policy=SMALL):
        losses, inputs = [], []
        for i in range(20):
            x = activation((32, 32), torch.float32, 0.3).requires_grad_()
            inputs.append(x)
            losses.append((x * (i + 1)).square().sum())
    for i, (x, loss) in enumerate(zip(inputs, losses, strict=True)):
        expected = (x.detach() * (i + 1)) * 2 * (i + 1)
        same_bits(torch.autograd.grad(loss, x)[0], expected)


def test_pool_indices_take_their_bits() -> None:
    x = torch.randn(4, 8, 32, 32, requires_grad=True)
    with codecs.saved_tensors_hooks(policy=SMALL) as saved:
        y = nn.functional.max_pool2d(x.relu(), 2)
    indices, values = y.numel() * 8, x.numel() * 4
    assert saved.dense_bytes == indices + values
    assert saved.encoded == 2
    assert saved.saved_bytes < indices * 10 / 64 + values * 0.54 + 200
    y.sum().backward()
