"""What is read of a saved tensor, checked against the operations themselves."""

from __future__ import annotations

import torch

from outsize.codecs import Need, choose_codec, compress, need_of

from .helpers import activation, same_bits


def test_the_weakest_codec_that_serves_all_uses() -> None:
    conv, relu = need_of("aten.convolution_backward.default", 1), need_of("aten::threshold_backward", 1)
    pool, indices = (need_of("max_pool2d_with_indices_backward", i) for i in (1, 7))
    assert (conv, relu, pool, indices) == (Need.VALUES, Need.MASK, Need.SHAPE, Need.INDICES)
    assert choose_codec([relu, conv]) == "relu"
    assert choose_codec([relu, pool]) == "mask"
    assert choose_codec([indices]) == "pool"
    assert choose_codec([pool]) is None
    assert need_of("aten.mul.Tensor", 1) is Need.VALUES


def test_operations_that_need_only_a_shape_read_nothing_else() -> None:
    x = activation((2, 3, 8, 8), torch.float32)
    noise = torch.full_like(x, float("nan"))
    aten = torch.ops.aten
    _, indices = torch.nn.functional.max_pool2d(x, 2, return_indices=True)
    grad = torch.randn(2, 3, 4, 4)
    calls = {
        "max_pool2d_with_indices_backward": lambda s: aten.max_pool2d_with_indices_backward(
            grad, s, [2, 2], [2, 2], [0, 0], [1, 1], False, indices
        ),
        "_adaptive_avg_pool2d_backward": lambda s: aten._adaptive_avg_pool2d_backward(grad, s),
        "avg_pool2d_backward": lambda s: aten.avg_pool2d_backward(
            grad, s, [2, 2], [2, 2], [0, 0], False, True, None
        ),
    }
    for name, call in calls.items():
        assert need_of(name, 1) is Need.SHAPE
        same_bits(call(x), call(noise))


def test_operations_that_need_only_a_mask_take_the_decoded_mask() -> None:
    x = torch.randn(1000).relu()
    grad = torch.randn(1000)
    mask = compress(x, "mask").decompress()
    assert not torch.equal(mask, x), "the values are gone, only their signs are left"
    same_bits(torch.ops.aten.threshold_backward(grad, x, 0), torch.ops.aten.threshold_backward(grad, mask, 0))
    kept = torch.rand(1000) < 0.7
    back = compress(kept, "mask").decompress()
    plain = torch.ops.aten.native_dropout_backward(grad, kept, 1 / 0.7)
    same_bits(plain, torch.ops.aten.native_dropout_backward(grad, back, 1 / 0.7))
