"""The one thing that several calls before a backward make different: the order in which a weight's gradients are added.

Eager PyTorch adds the gradients of all uses of a weight one after the other, the latest use first. A captured call hands
autograd the sum over its own uses. With one use in a call that is the same; with several it may differ in the last bits.
"""

from __future__ import annotations

import warnings

from torch.fx import Node

from ..fx import CapturedStep

__all__ = ["say_order_of_sums"]


def say_order_of_sums(step: CapturedStep) -> None:
    """Warn where a weight is used several times by a call that runs while another waits for its backward."""
    several = [
        n for n, g in zip(step.primals, step.backward_outputs) if isinstance(g, Node) and _uses(step, n) > 1
    ]
    if not several:
        return
    shape = tuple(several[0].meta["val"].shape)
    uses, count = _uses(step, several[0]), len(several)
    warnings.warn(
        f"the module is called again before the backward of an earlier call, and a weight of shape {shape} is used "
        f"{uses} times in a call ({count} such weights). Eager PyTorch adds the gradients of all uses one by one; here "
        "each call adds up its own first, so gradients may differ from an eager step's in their last bits. For the same "
        "bits, call backward() after each call, or give one call all inputs",
        RuntimeWarning,
        stacklevel=2,
    )


def _uses(step: CapturedStep, primal: Node) -> int:
    """Operators of the forward that read it, through views or not."""
    storage = step.storage.get(primal)
    return 0 if storage is None else sum(use < step.boundary for use in step.graph.storages[storage].uses)
