"""DDP's own tests of `torch.testing._internal.distributed.distributed_test` that are gated on GPUs, ported to the CPU.

Each scenario carries the name of the upstream test (but for `ELSEWHERE`). What upstream asserts of
`DistributedDataParallel` is asserted of `synchronize`; where ours is meant to differ, the docstring says so. All run in
one pair of processes. `benchmarks/parallel-ddp-suite` runs upstream's own code.
"""

from __future__ import annotations

import ast
import traceback
from collections import namedtuple
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.utils.checkpoint import checkpoint

from outsize.parallel import ParallelError, Settings, distribute, synchronize

from .cluster import run

SCENARIOS: dict[str, Callable[[int], None]] = {}


def scenario(body: Callable[[int], None]) -> Callable[[int], None]:
    SCENARIOS[body.__name__] = body
    return body


#: Scenarios that upstream does not gate on GPUs, or that come from its other files.
ELSEWHERE = {"ddp_checkpointing_once", "ddp_create_graph"}


def mean_of(tensor: torch.Tensor) -> torch.Tensor:
    total = tensor.clone()
    dist.all_reduce(total)
    return total / dist.get_world_size()


def ones(shape: tuple[int, ...], value: float = 1.0) -> torch.Tensor:
    return torch.full(shape, value)


class TwoLinear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lin1, self.lin2 = nn.Linear(10, 10, bias=False), nn.Linear(10, 10, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # Which layer runs depends on the input.
        return self.lin2(torch.tanh(self.lin1(x))) if x.sum() > 0 else torch.tanh(self.lin1(x))


@scenario
def ddp_control_flow_same_across_ranks(rank: int) -> None:
    model = synchronize(TwoLinear())
    for step in range(6):
        model.zero_grad()
        model(ones((20, 10), 1.0 if step % 2 == 0 else -1.0)).sum().backward()
        assert (model.module.lin2.weight.grad is None) == (step % 2 == 1)


@scenario
def ddp_control_flow_different_across_ranks(rank: int) -> None:
    model, alone = synchronize(TwoLinear()), TwoLinear()
    for step in range(6):
        x = ones((20, 10), 1.0 if (step + rank) % 2 == 0 else -1.0)
        for net in (model, alone):
            net.zero_grad()
            net(x).sum().backward()
        local = alone.lin2.weight.grad
        expected = mean_of(torch.zeros(10, 10) if local is None else local)
        torch.testing.assert_close(model.module.lin2.weight.grad, expected)


@scenario
def ddp_shared_grad_acc_unused_params(rank: int) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc1, self.fc2, self.fc3 = nn.Linear(10, 5), nn.Linear(5, 10), nn.Linear(10, 5)
            self.fc3.bias = self.fc1.bias

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fc2(self.fc1(x))

    model = synchronize(Net())
    for _ in range(3):
        model(torch.ones(2, 10) * (rank + 1)).sum().backward()
    assert model.module.fc3.weight.grad is None
    assert model.module.fc3.bias.grad is model.module.fc1.bias.grad


@scenario
def undefined_grad_parity_unused_parameters(rank: int) -> None:
    model = synchronize(TwoLinear())
    torch._C._functions.UndefinedGrad()(model(torch.ones(2, 10)).sum()).backward()
    assert all(p.grad is None for p in model.parameters())
    model(-torch.ones(2, 10)).sum().backward()
    assert model.module.lin2.weight.grad is None
    assert model.module.lin1.weight.grad is not None


Pair = namedtuple("Pair", ["a", "b"])


@scenario
def ddp_namedtuple(rank: int) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lin = nn.Linear(10, 1)

        def forward(self, pair: Pair) -> Pair:
            assert isinstance(pair, Pair)
            return Pair(self.lin(pair.a), pair.b)

    model = synchronize(Net())
    out = model(Pair(torch.rand(4, 10), torch.rand(4, 10)))
    assert isinstance(out, Pair)
    out.a.sum().backward()


@scenario
def ddp_zero_output_features(rank: int) -> None:
    model = synchronize(nn.Sequential(nn.Linear(8, 0, bias=False), nn.Linear(0, 3)))
    model(torch.ones(2, 8)).sum().backward()
    torch.testing.assert_close(model.module[1].bias.grad, ones((3,), 2.0))


@scenario
def ddp_new_tensor_in_fwd(rank: int) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(10, 10)
            self.extra = nn.Parameter(torch.rand(10))

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
            fresh = torch.ones(10, 10, requires_grad=rank == 0) if rank == 0 else torch.zeros(10, 10)
            return self.fc(x), fresh, self.fc(x)

    model = synchronize(Net())
    for _ in range(3):
        out, _, opt = model(torch.randn(1, 10))
        (out.mean() + opt.mean()).backward()
    assert model.module.extra.grad is None


@scenario
def output_unused_in_loss_dict_module(rank: int) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)

        def forward(self, x: torch.Tensor) -> dict[str, Any]:
            return {"a": self.a(x), "rest": (self.b(x),)}

    model = synchronize(Net())
    for step in range(4):
        model.zero_grad()
        out = model(torch.ones(2, 4))
        (out["a"] if step % 2 else out["rest"][0]).sum().backward()
        assert (model.module.a.weight.grad is None) == (step % 2 == 0)


@scenario
def ddp_sync_module_states(rank: int) -> None:
    net = nn.BatchNorm1d(3)
    with torch.no_grad():
        net.weight.fill_(rank + 5.0)
        net.running_mean.fill_(rank + 7.0)
    synchronize(net)
    assert net.weight[0] == 5
    assert net.running_mean[0] == 7


@scenario
def ddp_model_diff_shape_across_ranks(rank: int) -> None:
    with pytest.raises(ParallelError, match="same model"):
        synchronize(nn.Linear(2 + rank, 2))


@scenario
def ddp_model_diff_num_params_across_ranks(rank: int) -> None:
    with pytest.raises(ParallelError, match="same model"):
        synchronize(nn.Linear(2, 2, bias=rank == 0))


@scenario
def ddp_forward_backward_hook(rank: int) -> None:
    seen = []

    def hooked() -> nn.Linear:
        torch.manual_seed(0)
        net = nn.Linear(2, 2)
        net.register_forward_pre_hook(lambda m, given: nn.functional.relu(given[0]))
        net.register_forward_hook(lambda m, given, out: nn.functional.gelu(out))
        net.register_full_backward_hook(lambda m, gi, go: seen.append("backward"))
        return net

    model, alone = synchronize(hooked()), hooked()
    x = torch.rand(
        5, 2, generator=torch.Generator().manual_seed(1)
    ).requires_grad_()  # the same on all workers
    out, expected = model(x), alone(x)
    assert torch.equal(out, expected)
    out.sum().backward()
    expected.sum().backward()
    assert seen == ["backward", "backward"]
    torch.testing.assert_close(model.module.weight.grad, alone.weight.grad)
    torch.testing.assert_close(model.module.bias.grad, alone.bias.grad)


@scenario
def ddp_broadcast_buffer(rank: int) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lin = nn.Linear(2, 2)
            self.register_buffer("mark", torch.zeros(3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.seen = self.mark.clone()
            return self.lin(x)

    for enabled in (True, False):
        model = synchronize(Net(), settings=Settings(broadcast_buffers=enabled))
        for step in range(3):
            model.module.mark.fill_(step * 10 + rank)
            model(torch.ones(1, 2)).sum().backward()
            assert model.module.seen[0] == step * 10 + (0 if enabled else rank)


@scenario
def ddp_grad_div_uneven_inputs(rank: int) -> None:
    for divide in (True, False):
        model = synchronize(nn.Linear(2, 1, bias=False))
        with model.join(divide_by_initial_world_size=divide):
            for step in range(2 if rank == 0 else 4):
                model.zero_grad()
                model(torch.ones(1, 2)).sum().backward()
                expected = 1.0 if step < 2 or not divide else 0.5
                torch.testing.assert_close(model.module.weight.grad, ones((1, 2), expected))


@scenario
def ddp_uneven_input_join_disable(rank: int) -> None:
    model = synchronize(nn.Linear(2, 1, bias=False))
    with model.join(enable=False):
        for _ in range(2):
            model.zero_grad()
            model(torch.ones(1, 2) * (rank + 1)).sum().backward()
            torch.testing.assert_close(model.module.weight.grad, ones((1, 2), 1.5))


@scenario
def ddp_create_graph(rank: int) -> None:
    """Gradients of gradients stay local, as with DDP; the first-order ones are synchronised."""
    model = synchronize(nn.Linear(2, 1, bias=False))
    x = torch.ones(1, 2) * (rank + 1)
    loss = (model(x) ** 2).sum()
    (grad,) = torch.autograd.grad(loss, model.module.weight, create_graph=True)
    grad.square().sum().backward()
    assert model.module.weight.grad is not None


@scenario
def stateless_api_with_ddp(rank: int) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.l1 = nn.Linear(1, 1)
            self.register_buffer("buffer", torch.ones(1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.l1(x) + self.buffer

    model = synchronize(Net())
    before = model.module.l1.weight.clone()
    weight = torch.tensor([[1.0]], requires_grad=True)
    bias = torch.tensor([0.0], requires_grad=True)
    given = {"module.l1.weight": weight, "module.l1.bias": bias, "module.buffer": torch.tensor([0.0])}
    x = torch.rand(1, 1)
    out = torch.func.functional_call(model, given, x)
    assert torch.equal(out, x)
    out.backward()
    assert weight.grad is not None
    assert bias.grad is not None
    assert model.module.l1.weight.grad is None
    assert torch.equal(model.module.l1.weight, before)
    assert torch.equal(model.module.buffer, torch.ones(1))


@scenario
def different_graph_across_ranks(rank: int) -> None:
    model = synchronize(TwoLinear())
    for _ in range(3):
        model(ones((2, 10), 1.0 if rank else -1.0)).sum().backward()
    torch.testing.assert_close(model.module.lin1.weight.grad, mean_of(model.module.lin1.weight.grad))


@scenario
def ddp_checkpointing_once(rank: int) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.a, self.b = nn.Linear(6, 6), nn.Linear(6, 6)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.b(checkpoint(lambda y: torch.tanh(self.a(y)), x, use_reentrant=False))

    for make in (synchronize, lambda net: distribute(net, torch.optim.SGD, lr=0.1)):
        made, alone = make(Net()), Net()
        model = made[0] if isinstance(made, tuple) else made
        x = torch.full((2, 6), rank + 1.0)
        model(x).sum().backward()
        alone(x).sum().backward()
        expected = mean_of(alone.a.weight.grad)
        if isinstance(made, tuple):
            made[1].step()
            torch.testing.assert_close(model.module.a.weight, alone.a.weight - 0.1 * expected)
        else:
            torch.testing.assert_close(model.module.a.weight.grad, expected)


@scenario
def ddp_apply_optim_in_backward(rank: int) -> None:
    """Upstream's private `_apply_optimizer_in_backward`: here the updating mode, against a plain optimizer."""
    for options in ({}, {"momentum": 0.9}):
        model, optimizer = distribute(TwoLinear(), torch.optim.SGD, lr=0.05, **options)
        alone = TwoLinear()
        plain = torch.optim.SGD(alone.parameters(), lr=0.05, **options)
        for step in range(4):
            x = torch.rand(4, 10, generator=torch.Generator().manual_seed(step + 10 * rank))
            model(x).square().mean().backward()
            optimizer.step()
            alone.zero_grad()
            alone(x).square().mean().backward()
            for p in alone.parameters():
                p.grad = mean_of(p.grad)
            plain.step()
        torch.testing.assert_close(model.module.lin1.weight.detach(), alone.lin1.weight.detach())


def every(rank: int) -> dict[str, str]:
    found = {}
    for name, body in SCENARIOS.items():
        try:
            body(rank)
            found[name] = ""
        except BaseException:
            found[name] = traceback.format_exc()
        dist.barrier()
    return found


@pytest.fixture(scope="module")
def outcomes() -> list[dict[str, str]]:
    return run(2, every)


@pytest.mark.parametrize("name", SCENARIOS)
def test_ported(outcomes: list[dict[str, str]], name: str) -> None:
    for rank, found in enumerate(outcomes):
        assert found[name] == "", f"rank {rank}: {found[name]}"


def test_the_ported_tests_are_upstreams_and_gated_there() -> None:
    upstream = (
        Path(str(find_spec("torch").origin)).parent / "testing/_internal/distributed/distributed_test.py"
    )
    tree = ast.parse(upstream.read_text())
    marks = {
        node.name: " ".join(map(ast.unparse, node.decorator_list))
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
    }
    gated = {
        name for name in SCENARIOS if "skip_if_lt_x_gpu" in marks.get(f"test_{name}", "").split("nccl_")[0]
    }
    assert set(SCENARIOS) - gated == ELSEWHERE
    assert len(gated) >= 15
