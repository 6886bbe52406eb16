"""Compression of what is kept between the forward and the backward pass (method 1).

`compress(tensor)` and `.decompress()` are the whole of it; `encode_into` and `decompress(out=…)` do the same
in memory planned before, and `relu_encode` produces an activation and its encoding in one pass.
"""

from ..errors import CodecError
from .bits import Window, compress_pool_indices
from .choose import backends
from .compress import CODECS, compress
from .contract import Backend, Compressed
from .hooks import Policy, saved_tensors_hooks
from .layout import Layout
from .lossy import LossyCompressed, bound
from .mask import MaskCompressed, mask_backward
from .rates import DensityMeter, Rates, measure_rates, sample_density, worthwhile
from .relu import ReluCompressed, encode_into, relu_encode
from .uses import Need, choose_codec, need_of

__all__ = [
    "CODECS",
    "Backend",
    "CodecError",
    "Compressed",
    "DensityMeter",
    "Layout",
    "LossyCompressed",
    "MaskCompressed",
    "Need",
    "Policy",
    "Rates",
    "ReluCompressed",
    "Window",
    "backends",
    "bound",
    "choose_codec",
    "compress",
    "compress_pool_indices",
    "encode_into",
    "mask_backward",
    "measure_rates",
    "need_of",
    "relu_encode",
    "sample_density",
    "saved_tensors_hooks",
    "worthwhile",
]
