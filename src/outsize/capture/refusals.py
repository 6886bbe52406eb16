"""What Dynamo and AOTAutograd refuse, said in our words: what it was, where in the user's code, and what to write.

Private names used: `torch._dynamo.exc`, and the wording of its messages, in which a few patterns tell what was met.
"""

from __future__ import annotations

import re
import sys
import traceback

import torch
from torch.fx import GraphModule

from ..errors import CaptureError, OutsizeError
from .hooks import of_backwards
from .place import is_users, line_of, users_line

#: What to do instead, by what the message holds.
_ADVICE = {
    "multi_head_attention_forward": "Torch looks into a mask to see whether it is causal: say so, as in "
    "nn.Transformer()(…, tgt_is_causal=True) or nn.TransformerEncoder()(…, is_causal=False).",
    "backwards hooks": "Register the hook on the compiled module itself, or on a tensor: tensor.register_hook(f).",
    "ynamic shape operator": "That operator's result has a size that depends on data, and a plan needs sizes before it "
    "runs: use a masked form (torch.where, masked_fill, one_hot with num_classes), or move it out of forward().",
    "ata-dependent": "Use torch.where in place of the branch, keep .item() and Python's if out of forward(), or give "
    "outsize.compile the submodules around that place.",
    "autograd.grad": "A plan holds one backward of the whole module: take the inner gradient outside of forward().",
    "backward() call": "A plan holds one backward of the whole module: call backward() on what the module returned.",
    "requires_grad_() call": "Call requires_grad_() on the input before the module is called.",
    "Random.": "Draw with torch (torch.rand), or hand the number over as a tensor.",
    "torch.nn.Parameter()": "Make parameters in __init__, and write new values into them: p.data.copy_(values).",
}


def _advice(message: str) -> str:
    found = next((text for key, text in _ADVICE.items() if key in message), None)
    return found or "Move that code out of forward(), or give outsize.compile the submodules around it."


def is_users_own(error: Exception) -> bool:
    """Whether it may be an exception that the module raises in plain PyTorch too."""
    from torch._dynamo import exc

    return (
        isinstance(error, (exc.TorchRuntimeError, exc.ObservedException))
        or any(said in str(error) for said in ("Observed exception", "assertion failed"))
        or "Failed to trace builtin" in str(error)
    )


def refusal(error: Exception, module: torch.nn.Module, most_shapes: int) -> OutsizeError:
    """What to raise for an exception that came out of Dynamo."""
    from torch._dynamo import exc

    inner = _root(error)
    if isinstance(inner, OutsizeError):
        return inner
    if isinstance(error, exc.FailOnRecompileLimitHit):
        return CaptureError(
            f"the module was called with more than {most_shapes} different shapes, modes or Python numbers, and "
            "each needs a plan of its own: pad the inputs to fewer sizes, and hand numbers that change (a counter, "
            "a temperature) over as tensors"
        )
    message = str(inner)
    if foreign := _foreign(module):
        return CaptureError(foreign + users_line())
    if "backwards hooks" in message and (hooks := of_backwards(module)):
        where = "".join(f"\n{hook}" for hook in hooks[:3])
        return CaptureError(
            "a hook on the backward of a submodule, or of all modules, cannot be captured with the step: register it on "
            f"the compiled module itself, or on a tensor (tensor.register_hook(f)){where}"
        )
    said = _short(message)
    if "File " not in said:
        said += (
            users_line(getattr(error, "real_stack", None) or traceback.extract_tb(inner.__traceback__))
            or users_line()
        )
    return CaptureError(f"the module cannot be captured as one graph: {said}\n{_advice(message)}")


def refuse_foreign(module: torch.nn.Module, *, captured: bool = True) -> None:
    """Refuse a module that other wrappers run in pieces of their own.

    Args:
        captured: its steps are to be captured; else observed, which a sharded module can be.

    Raises:
        CaptureError: it is, or holds, a DistributedDataParallel, a DataParallel or a module that FSDP shards.
    """
    if foreign := _foreign(module, captured=captured):
        raise CaptureError(foreign + users_line())


def is_sharded(module: torch.nn.Module) -> bool:
    """Whether `fully_shard` has sharded it or a module in it."""
    fsdp = sys.modules.get("torch.distributed.fsdp")
    return fsdp is not None and any(isinstance(inner, fsdp.FSDPModule) for inner in module.modules())


def _foreign(module: torch.nn.Module, *, captured: bool = True) -> str:
    fsdp = sys.modules.get("torch.distributed.fsdp")
    for name, inner in module.named_modules():
        which = name or "the module"
        if isinstance(inner, (torch.nn.parallel.DistributedDataParallel, torch.nn.DataParallel)):
            kind = type(inner).__name__
            return (
                f"{which} is a {kind}, whose own steps cannot be captured: compile the plain module and wrap the result, "
                f"{kind}(outsize.compile(model, …))"
            )
        if fsdp is not None and isinstance(inner, fsdp.FullyShardedDataParallel):
            return (
                f"{which} is a FullyShardedDataParallel, which swaps its parameters for others around each call: shard "
                "the module with torch.distributed.fsdp.fully_shard, whose steps can be observed"
            )
        if captured and fsdp is not None and isinstance(inner, fsdp.FSDPModule):
            return (
                f"{which} is sharded by fully_shard, which gathers its parameters around each call, outside of any "
                "graph: leave door='captured' out, and its steps are observed"
            )
    return ""


def refuse_replaced(graph: GraphModule) -> None:
    """Refuse a forward that gives one of its inputs other bytes.

    Raises:
        CaptureError: with the line.
    """
    for node in graph.graph.nodes:
        if node.op == "call_function" and getattr(node.target, "__name__", "") == "set_":
            raise CaptureError(
                "forward() puts another tensor in a parameter's or buffer's place (p.data = …), and a plan is for the "
                f"bytes that are there: write the values into it, p.data.copy_(values){line_of(node)}"
            )


def _root(error: BaseException) -> BaseException:
    """What Dynamo wrapped: an exception of ours, else of the backend's."""
    seen: BaseException | None = error
    while seen is not None and not isinstance(seen, OutsizeError):
        inner: BaseException | None = getattr(seen, "inner_exception", None)
        if inner is not None and not hasattr(inner, "inner_exception"):
            return inner
        seen = inner or seen.__cause__
    return seen or error


#: What stands before frames in Dynamo's messages, and what stands before that which its developers want to know.
_FRAMES = re.compile(r"from user code:|User Stack \(most recent call last\):")
_APPENDIX = re.compile(
    "Set TORCHDYNAMO_VERBOSE|Developer debug context|consider using data-dependent|For C\\+\\+ stack|For more information"
)


def _short(message: str) -> str:
    """Dynamo's message without its developer appendix: what it met, and where in the user's code."""
    what, *where = (_APPENDIX.split(section)[0].strip() for section in _FRAMES.split(message))
    lines = [line for line in what.splitlines() if line.strip() and not line.strip().startswith("Hint:")]
    frames = list(dict.fromkeys(f"File {f.strip()}" for w in where for f in w.split("File ")[1:]))
    users = [f for f in frames if is_users(f.split('"')[1])]
    return "\n".join([*lines, *users[-3:]])
