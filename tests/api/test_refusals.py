"""What cannot be captured is refused in our words with the user's line; what the module raises comes out as it is."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

import outsize
from outsize.errors import CaptureError

from .eager import differing, of_three_dimensions, run


class Block(nn.Module):
    def __init__(self, *, norm: bool = False) -> None:
        super().__init__()
        middle = nn.BatchNorm1d(16) if norm else nn.Identity()
        self.layers = nn.Sequential(nn.Linear(16, 16), middle, nn.GELU(), nn.Dropout(0.1))

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = x + self.layers(x)
        return result


class Checkpointed(nn.Module):
    """Blocks in checkpoints, behind a frozen layer as in LoRA."""

    def __init__(
        self, *, sequential: bool = False, norm: bool = False, wants: bool = False, **options: object
    ) -> None:
        super().__init__()
        self.first = nn.Linear(16, 16).requires_grad_(requires_grad=False)
        self.blocks = nn.Sequential(*(Block(norm=norm) for _ in range(3)))
        self.last, self.sequential, self.wants, self.options = nn.Linear(16, 4), sequential, wants, options

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        if self.wants:
            x.requires_grad_()
        if self.sequential:
            x = checkpoint_sequential(self.blocks, 2, x, **self.options)  # type: ignore[no-untyped-call]
        else:
            for block in self.blocks:
                x = checkpoint(block, x, **self.options)
        result: Tensor = self.last(x)
        return result


def _meter(module: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    outsize.meter(module, optimizer=optimizer)


def _step(module: nn.Module, number: int) -> Tensor:
    loss: Tensor = module(torch.randn(8, 16)).square().mean()
    return loss


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
@pytest.mark.parametrize(
    "make",
    [
        lambda: Checkpointed(use_reentrant=False),
        lambda: Checkpointed(
            use_reentrant=True
        ),  # gives the blocks no gradient: none of their inputs asks for one
        lambda: Checkpointed(use_reentrant=True, wants=True),
        lambda: Checkpointed(use_reentrant=False, sequential=True),
    ],
)
def test_checkpoints_are_traced_through(make: Callable[[], nn.Module]) -> None:
    assert differing(run(make, _step, steps=2), run(make, _step, _meter, steps=2)) == []


@pytest.mark.parametrize(
    ("options", "said"),
    [({"norm": True}, "updates a buffer"), ({"preserve_rng_state": False}, "draws random numbers")],
)
def test_what_a_second_forward_would_do_again_is_refused(options: dict[str, bool], said: str) -> None:
    module = outsize.meter(Checkpointed(use_reentrant=False, **options))
    with pytest.raises(CaptureError, match=said) as caught:
        module(torch.randn(8, 16))
    assert f'File "{__file__}"' in str(caught.value)


class Forward(nn.Module):
    """A layer, and what is called with it and the input."""

    def __init__(self, call: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.layer, self.call = nn.Linear(16, 16), call

    def forward(self, x: Tensor) -> Tensor:
        return self.call(self.layer, x)


def _replaces_data(layer: nn.Module, x: Tensor) -> Tensor:
    layer.weight.data = layer.weight.data * 0.9
    result: Tensor = layer(x)
    return result


def _takes_a_gradient(layer: nn.Module, x: Tensor) -> Tensor:
    hidden = layer(x)
    (gradient,) = torch.autograd.grad(hidden.tanh().sum(), hidden, create_graph=True)
    return hidden - gradient


def _runs_a_backward(layer: nn.Module, x: Tensor) -> Tensor:
    loss: Tensor = layer(x).sum()
    loss.backward()
    return loss


@pytest.mark.parametrize(
    ("call", "advice"),
    [
        (_replaces_data, r"p\.data\.copy_\(values\)"),
        (_takes_a_gradient, r"take the inner gradient outside of forward\(\)"),
        (_runs_a_backward, r"call backward\(\) on what the module returned"),
    ],
)
def test_the_line_and_what_to_write(call: Callable[[nn.Module, Tensor], Tensor], advice: str) -> None:
    with pytest.raises(CaptureError, match=advice) as caught:
        outsize.meter(Forward(call))(torch.randn(8, 16))
    assert f'File "{__file__}"' in str(caught.value)
    assert call.__name__ in str(caught.value)


def test_a_second_derivative_is_refused_where_it_was_asked_for() -> None:
    module, x = (
        outsize.meter(nn.Sequential(nn.Linear(16, 16), nn.Tanh())),
        torch.randn(8, 16, requires_grad=True),
    )
    (gradient,) = torch.autograd.grad(module(x).sum(), x, create_graph=True)
    with pytest.raises(CaptureError, match="differentiated again") as caught:
        gradient.norm().backward()
    assert f'File "{__file__}"' in str(caught.value)


def _raises(layer: nn.Module, x: Tensor) -> Tensor:
    raise ValueError(f"{x.shape[1]} columns")


@pytest.mark.parametrize(
    ("call", "kind", "said"),
    [
        (_raises, ValueError, "16 columns"),
        (of_three_dimensions, AssertionError, "three dimensions"),
        (lambda layer, x: layer(x[:, :3]), RuntimeError, "shapes cannot be multiplied"),
        (lambda layer, x: layer({}["key"]), KeyError, "key"),
    ],
)
def test_what_the_module_raises(
    call: Callable[[nn.Module, Tensor], Tensor], kind: type[Exception], said: str
) -> None:
    with pytest.raises(kind, match=said) as caught:
        outsize.meter(Forward(call))(torch.randn(8, 16))
    assert type(caught.value) is kind


@pytest.mark.filterwarnings("ignore")
def test_a_wrapper_goes_around_a_compiled_module() -> None:
    wrapped = nn.DataParallel(nn.Linear(16, 16))
    with pytest.raises(CaptureError, match=r"DataParallel\(outsize\.compile\(model, …\)\)"):
        outsize.meter(wrapped)
    with pytest.raises(CaptureError, match="1 is a DataParallel"):
        outsize.meter(nn.Sequential(nn.Linear(16, 16), wrapped))


def test_settings_are_left_as_they_were() -> None:
    from torch._dynamo import config
    from torch._functorch import config as functorch

    before = (
        config.skip_nnmodule_hook_guards,
        functorch.backward_pass_autocast,
        torch.utils.checkpoint.checkpoint,
    )
    module = outsize.meter(Checkpointed(use_reentrant=False))
    module(torch.randn(8, 16)).sum().backward()
    after = (
        config.skip_nnmodule_hook_guards,
        functorch.backward_pass_autocast,
        torch.utils.checkpoint.checkpoint,
    )
    assert after == before
    graphs: list[torch.fx.GraphModule] = []

    def backend(graph: torch.fx.GraphModule, _: object) -> Callable[..., object]:
        graphs.append(graph)
        return graph.forward

    torch.compile(Checkpointed(use_reentrant=False), backend=backend)(torch.randn(8, 16))
    assert any("checkpoint" in str(n.target) for n in graphs[0].graph.nodes)
