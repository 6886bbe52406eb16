"""The codecs on a GPU: Triton kernels and the back end that launches them."""

from .backend import Triton

__all__ = ["Triton"]
