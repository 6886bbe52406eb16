"""What the reader makes of a joint graph: ops, storages, who touches which bytes."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from outsize.api import capture
from outsize.errors import CaptureError
from outsize.fx import CapturedStep
from outsize.values import Op, Storage


def op(step: CapturedStep, part: str, phase: str = "forward") -> Op:
    return next(o for o in step.graph.ops if part in o.target and o.phase == phase)


def made_by(step: CapturedStep, part: str, phase: str = "forward") -> Storage:
    return step.graph.storages[op(step, part, phase).writes[0]]


def test_a_linear_layer_op_by_op() -> None:
    step = capture(nn.Sequential(nn.Linear(8, 4), nn.Tanh()), (torch.randn(3, 8),))
    graph = step.graph
    assert [o.target for o in graph.ops] == [
        "aten.addmm.default",
        "aten.tanh.default",
        "outside",
        "aten.tanh_backward.default",
        "aten.mm.default",
        "aten.sum.dim_IntList",
        "update",
    ]
    assert [o.phase for o in graph.ops] == ["forward"] * 2 + ["outside"] + ["backward"] * 3 + ["update"]
    assert step.boundary == 2
    weight, bias, x = (s for s in graph.storages if s.kind == "resident")
    assert (weight.nbytes, bias.nbytes, x.nbytes) == (4 * 8 * 4, 4 * 4, 3 * 8 * 4)
    assert graph.resident_bytes == weight.nbytes + bias.nbytes + x.nbytes
    linear, tanh = made_by(step, "addmm"), made_by(step, "tanh")
    assert (linear.kind, linear.uses, linear.nbytes) == ("activation", (1,), 3 * 4 * 4)
    assert (tanh.kind, tanh.uses) == ("output", (2, 3))
    assert x.uses == (0, 4)  # the weight's gradient reads the input again
    assert sorted(s.nbytes for s in graph.storages if s.kind == "gradient") == [16, 128]
    assert op(step, "addmm").flops == 2 * 3 * 8 * 4
    assert op(step, "addmm").checkpoint
    assert not op(step, "tanh").checkpoint


class Views(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 6)

    def forward(self, x: Tensor) -> Tensor:
        wide = self.linear(x).view(4, 2, 3).transpose(1, 2)
        return torch.sin(wide[:, 1:]) * torch.cos(wide[:, :2])


def test_views_share_the_storage_of_their_base_and_are_no_ops() -> None:
    step = capture(Views(), (torch.randn(4, 8),))
    base = made_by(step, "addmm")
    viewed = [n for n in step.order if step.storage.get(n) == base.index]
    assert len(viewed) >= 5  # addmm, view, transpose, two slices
    assert {o.name for o in step.graph.ops} & {n.name for n in viewed} == {"addmm"}
    sine, cosine = op(step, "sin."), op(step, "cos.")
    assert base.index in sine.reads
    assert base.index in cosine.reads
    assert base.nbytes == 4 * 6 * 4
    assert {sine.index, cosine.index} <= set(base.uses)
    assert len(base.uses) == len(set(base.uses))


def test_several_results_are_several_storages() -> None:
    step = capture(nn.Sequential(nn.Linear(4, 16), nn.LayerNorm(16), nn.Linear(16, 4)), (torch.randn(5, 4),))
    norm = op(step, "native_layer_norm")
    assert [step.graph.storages[s].nbytes for s in norm.writes] == [5 * 16 * 4, 5 * 4, 5 * 4]
    back = op(step, "native_layer_norm_backward", "backward")
    assert set(norm.writes[1:]) <= set(back.reads)  # mean and deviation


def test_of_a_dropout_the_draw_is_random_and_its_mask_crosses() -> None:
    step = capture(nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5), nn.Tanh()), (torch.randn(2, 4),))
    draw, product = op(step, "dropout_mask"), op(step, "masked_dropout")
    assert [o.name for o in step.graph.ops if o.random] == [draw.name]
    mask = step.graph.storages[draw.writes[0]]
    assert (mask.nbytes, mask.dtype) == (8, "bool")
    assert mask.uses == (product.index, op(step, "dropout_backward", "backward").index)
    assert step.graph.storages[product.writes[0]].zeros


@pytest.mark.parametrize("p", [0.1, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_a_dropout_in_two_parts_has_the_bits_of_one(p: float, dtype: torch.dtype) -> None:
    x = torch.randn(17, 33, generator=torch.Generator().manual_seed(1)).to(dtype)
    torch.manual_seed(5)
    whole, mask = torch.ops.aten.native_dropout(x, p, True)
    state = torch.get_rng_state()
    torch.manual_seed(5)
    drawn = torch.ops.outsize.dropout_mask(x, p)
    parts = torch.ops.outsize.masked_dropout(x, drawn, 1 / (1 - p) if p < 1 else 0.0)
    assert torch.equal(drawn, mask)
    assert torch.equal(parts, whole)
    assert torch.equal(torch.get_rng_state(), state)


def attention(dropout: float) -> CapturedStep:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            return F.scaled_dot_product_attention(x, self.linear(x), x, dropout_p=dropout)

    return capture(Attention(), (torch.randn(2, 3, 5, 8),))


def test_an_attention_that_drops_nothing_out_may_run_again_and_counts_its_products() -> None:
    step = attention(0.0)
    forward, backward = op(step, "attention"), op(step, "attention", "backward")
    product = 2 * (2 * 3) * 5 * 5 * 8
    assert not forward.random
    assert (forward.flops, backward.flops) == (2 * product, 5 * product)
    assert any(o.random for o in attention(0.5).graph.ops)


def test_tangents_are_held_by_autograd() -> None:
    step = capture(nn.Sequential(nn.Linear(4, 8), nn.Tanh()), (torch.randn(2, 4),))
    (tangent,) = (step.graph.storages[step.storage[n]] for n in step.tangents)
    assert tangent.held
    assert tangent.producer == step.boundary
    assert tangent.index not in {s.index for s in step.graph.candidates()}


def test_batch_norm_reads_its_statistics_and_hands_the_next_ones_out() -> None:
    step = capture(
        nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Tanh()), (torch.randn(2, 1, 5, 5),)
    )
    norm = op(step, "batch_norm")
    kinds = [step.graph.storages[s].kind for s in norm.writes]
    assert kinds[:3] == ["activation"] * 3
    assert kinds[3:] == ["output"] * 2
    assert all(step.graph.storages[s].kind == "resident" for s in norm.reads[1:])


class Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.register_buffer("seen", torch.zeros(4))

    def forward(self, x: Tensor) -> Tensor:
        self.seen.add_(x.detach().abs().sum(0))
        return self.linear(x) * self.seen


def test_a_buffer_changed_in_place_is_a_result_of_the_step() -> None:
    step = capture(Counting(), (torch.randn(3, 4),))
    changed = [n for n in step.forward_outputs if isinstance(n, torch.fx.Node)]
    assert len(changed) == 2  # the next `seen`, and the module's result
    sizes = [step.graph.storages[step.storage[n]].nbytes for n in changed]
    assert sizes == [4 * 4, 3 * 4 * 4]


def test_tied_weights_are_one_resident_storage() -> None:
    first, second = nn.Linear(6, 6, bias=False), nn.Linear(6, 6, bias=False)
    second.weight = first.weight
    step = capture(nn.Sequential(first, nn.Tanh(), second), (torch.randn(2, 6),))
    resident = [s.nbytes for s in step.graph.storages if s.kind == "resident"]
    assert sorted(resident) == [2 * 6 * 4, 6 * 6 * 4]
    assert sum(s.kind == "gradient" for s in step.graph.storages) == 1


def test_ops_stand_in_order_and_touch_what_exists() -> None:
    step = capture(nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(36, 3)),
                   (torch.randn(2, 1, 5, 5),))  # fmt: skip
    made = {s.index for s in step.graph.storages if s.kind == "resident"}
    for number, each in enumerate(step.graph.ops):
        assert each.index == number
        assert set(each.reads) <= made
        assert not set(each.writes) & made
        made |= set(each.writes)
    assert made == {s.index for s in step.graph.storages}
    phases = [o.phase for o in step.graph.ops]
    assert phases == sorted(phases, key=["forward", "outside", "backward", "update"].index)


def test_equal_operators_have_equal_signatures() -> None:
    step = capture(nn.Sequential(*[nn.Linear(4, 4) for _ in range(3)], nn.Linear(4, 2)), (torch.randn(2, 4),))
    signatures = [o.signature for o in step.graph.ops if "addmm" in o.target]
    assert signatures[0] == signatures[1] == signatures[2] != signatures[3]


class Sparse(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        chosen = self.linear(x)
        return F.relu(chosen[x > 0]).sum()


def test_a_size_that_depends_on_the_data_is_refused() -> None:
    with pytest.raises(CaptureError, match=r"nonzero|data-dependent|boolean|dynamic|item"):
        capture(Sparse(), (torch.randn(2, 4),))
