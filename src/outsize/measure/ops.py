"""Seconds and workspace of each operator, by running it once more on made-up inputs of the same shapes.

The step itself cannot be profiled by running it: it does not fit. One operator does. Operators with equal signatures
cost the same, so each signature runs once, and what was measured is kept on disk under a key that names the machine,
the threads and torch. Random numbers are drawn from a forked generator, so training sees none of this.

What is known from another process runs once more in this one, for two reasons. The libraries build kernels and caches
at the first call with a shape (2 MB on some steps), which are no part of a step and have to be there before its bytes
are counted. And a time taken while the machine was busy is too long: the shortest of all processes is kept.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

import torch
from torch.fx import Node

from ..device.clock import Stopwatch, now
from ..device.memory import PeakMeter, bytes_in_use
from ..device.place import CPU
from ..fx import map_nodes, tensor_leaves
from ..values import Op, OpCost
from .store import Store

#: Bytes per second of a memory-bound operator with fresh outputs, at the slow end of what was seen on two cores.
SLOW_BYTES = 2e9
#: Runs of an operator one behind the other, on a device that is told before it works.
IN_A_ROW = 10


@dataclass(frozen=True, kw_only=True)
class MeasureSettings:
    """How long to look.

    Attributes:
        repeats: timed runs of a signature, after one that is not; the fastest counts.
        long_seconds: an operator slower than this is timed once: its noise is small beside it.
        quick_seconds: an operator faster than this is run `quick_repeats` times, to get under the timer's noise.
        quick_repeats: see above.
        cache: where measurements are kept, in the process and on disk; None keeps nothing.
    """

    repeats: int = 2
    long_seconds: float = 2e-2
    quick_seconds: float = 2e-3
    quick_repeats: int = 5
    cache: Path | None = None

    def again(self) -> MeasureSettings:
        """For what was measured in another process."""
        return replace(self, repeats=1, quick_repeats=min(self.quick_repeats, 2))


def default_cache() -> Path:
    """`$XDG_CACHE_HOME/outsize`, or `~/.cache/outsize`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "outsize"


def measure_ops(
    ops: Sequence[Op],
    nodes: Sequence[Node | None],
    settings: MeasureSettings,
    progress: Callable[[int, int], None] | None = None,
    *,
    device: torch.device = CPU,
) -> tuple[OpCost, ...]:
    """One cost per op; `outside` and `update` cost nothing here.

    Args:
        ops, nodes: the captured step's, by position.
        progress: called with (signatures done, signatures in all).
        device: that they run on.
        settings: how long and how often to measure, and where results are kept.

    Returns:
        by position: seconds, and bytes of workspace.
    """
    store = Store(settings.cache, device)
    wanted = {op.signature: node for op, node in zip(ops, nodes) if node is not None}
    missing = [s for s in wanted if s not in store.seen]
    if missing:
        if device.type == "cuda":
            _warm_engine(device)
        forked = [device] if device.type == "cuda" else []
        with torch.random.fork_rng(devices=forked), torch.no_grad(), PeakMeter(device) as meter:
            for done, signature in enumerate(missing):
                known = store.costs.get(signature)
                cost = _cost(wanted[signature], meter, settings.again() if known else settings, device)
                if known:  # bytes do not depend on the load
                    cost = replace(known, seconds=min(known.seconds, cost.seconds))
                store.seen[signature] = store.costs[signature] = cost
                if progress is not None:
                    progress(done + 1, len(missing))
        store.save()
    return tuple(
        store.seen[op.signature] if node is not None else OpCost(seconds=0.0) for op, node in zip(ops, nodes)
    )


@final
class _Warm(torch.autograd.Function):
    """Products in a backward: it runs on a thread of the engine, whose libraries take a workspace of their own at their
    first call (32 MiB on an H100)."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        return torch.addmm(gradient[0], gradient, gradient @ gradient)


def _warm_engine(device: torch.device) -> None:
    with torch.enable_grad():
        _Warm.apply(torch.ones(8, 8, device=device, requires_grad=True)).sum().backward()


def _cost(node: Node, meter: PeakMeter, settings: MeasureSettings, device: torch.device) -> OpCost:
    """What `_measure` says, or the time to move the operator's bytes where made-up inputs do not suit it.

    Recorded dtypes are not always those that the kernel makes (a group norm's statistics under autocast), and some
    operators want particular values; both run in the step and not here.
    """
    try:
        for example in (_example, _wide_statistics):
            with suppress(RuntimeError, ValueError, IndexError, TypeError):
                return _measure(node, meter, settings, example, device)
        return _measure(node, meter, settings, _unit_values, device)
    except (RuntimeError, ValueError, IndexError, TypeError) as error:
        values = [n.meta.get("val") for n in (node, *node.all_input_nodes)]
        nbytes = sum(leaf.untyped_storage().nbytes() for value in values for leaf in tensor_leaves(value))
        warnings.warn(
            f"{node.target} cannot be timed on made-up inputs ({error}); "
            f"its bytes over {SLOW_BYTES:.0e} bytes/s are taken",
            RuntimeWarning,
            stacklevel=2,
        )
        return OpCost(seconds=nbytes / SLOW_BYTES)


def _measure(
    node: Node,
    meter: PeakMeter,
    settings: MeasureSettings,
    example: Callable[[Node], Any],
    device: torch.device,
) -> OpCost:
    args, kwargs = map_nodes(node.args, example), map_nodes(node.kwargs, example)
    target: Callable[..., Any] = node.target  # type: ignore[assignment]
    result = target(*args, **kwargs)
    surplus = _storages(result, [args, *kwargs.values()]) - _storages(
        node.meta.get("val"), [n.meta.get("val") for n in node.all_input_nodes]
    )
    del result
    seconds, workspace, runs = float("inf"), 0, settings.repeats
    while runs > 0:
        runs -= 1
        before = bytes_in_use(device)
        meter.reset()
        start = now(device)
        result = target(*args, **kwargs)
        took = now(device) - start
        peak = meter.peak()
        made = _storages(result)
        del result
        if seconds == float("inf") and took < settings.quick_seconds:
            runs += settings.quick_repeats
        elif took > settings.long_seconds:
            runs = 0
        seconds, workspace = min(seconds, took), max(workspace, peak - before - made)
    if device.type == "cuda" and seconds < settings.long_seconds:
        seconds = min(seconds, _in_a_row(lambda: target(*args, **kwargs), device))
    workspace = max(0, workspace, _over_values(node, meter, device))
    return OpCost(seconds=seconds, workspace_bytes=workspace, surplus_bytes=max(0, surplus))


def _over_values(node: Node, meter: PeakMeter, device: torch.device) -> int:
    """The most temporary bytes over patterns of whole numbers and masks.

    What an operator that scatters, counts or sorts takes for a moment depends on which indices meet: none twice, all the
    same, or as it happens.
    """
    given = [v for v in (n.meta.get("val") for n in node.all_input_nodes) if isinstance(v, torch.Tensor)]
    if all(v.dtype.is_floating_point or v.dtype.is_complex for v in given):
        return 0
    below, worst = _least_extent(node, given), 0
    target: Callable[..., Any] = node.target  # type: ignore[assignment]
    for pattern in _PATTERNS:

        def example(n: Node, pattern: Callable[[int, int], torch.Tensor] = pattern) -> Any:
            value = _example(n)
            if not isinstance(value, torch.Tensor) or value.dtype.is_floating_point or value.dtype.is_complex:
                return value
            flat = pattern(value.numel(), 2 if value.dtype == torch.bool else below)
            return value.copy_(flat.view(value.shape)) if value.numel() else value

        with suppress(RuntimeError, ValueError, IndexError, TypeError):
            args, kwargs = map_nodes(node.args, example), map_nodes(node.kwargs, example)
            before = bytes_in_use(device)
            meter.reset()
            result = target(*args, **kwargs)
            now(device)  # an accelerator has done it by then
            worst = max(worst, meter.peak() - before - _storages(result))
            del result
    return worst


#: Count and exclusive upper limit → whole numbers: each as often as any other, in order; drawn; all the highest.
_PATTERNS: tuple[Callable[[int, int], torch.Tensor], ...] = (
    lambda count, below: torch.arange(count) % below,
    lambda count, below: torch.randint(below, (count,)),
    lambda count, below: torch.full((count,), below - 1),
)


def _least_extent(node: Node, given: Sequence[torch.Tensor]) -> int:
    """A number below which every value is a valid index, whichever dimension it goes into."""
    sizes = [n for v in given if v.dtype.is_floating_point or v.dtype.is_complex for n in v.shape if n > 1]
    counts = [a for a in (*node.args, *node.kwargs.values()) if type(a) is int and a > 1]
    lists = [n for a in node.args if isinstance(a, (list, tuple)) for n in a if type(n) is int and n > 1]
    return max(1, min([*sizes, *counts, *lists], default=2))


def _storages(values: Any, others: Any = ()) -> int:
    """Bytes of the storages behind the tensors in `values`, each once, but for those that `others` have too."""
    found, known = (
        {s._cdata: s.nbytes() for s in (leaf.untyped_storage() for leaf in tensor_leaves(nested))}
        for nested in (values, others)
    )
    return sum(nbytes for storage, nbytes in found.items() if storage not in known)


def _in_a_row(run: Callable[[], object], device: torch.device) -> float:
    """The device's own seconds for one of many, as in a step, where each is launched while those before it run."""
    if device.type == "cuda":  # busy while the host puts them on it, so that no time of launching counts
        factor = torch.zeros(2048, 2048, device=device)
        for _ in range(8):
            torch.mm(factor, factor)
    watch = Stopwatch(device)
    for _ in range(IN_A_ROW):
        run()
    watch.stop()
    return watch.seconds / IN_A_ROW


def _example(node: Node) -> Any:
    """A value with the geometry of what the node stands for: small random floats, zeros for the rest."""
    value = node.meta.get("val", node.meta.get("example_value"))
    if isinstance(value, torch.Tensor):
        return _tensor_like(value)
    if isinstance(value, (list, tuple)):
        return type(value)(_tensor_like(v) if isinstance(v, torch.Tensor) else v for v in value)
    return value


def _wide_statistics(node: Node) -> Any:
    """As `_example`, but vectors of 16-bit floats in 32 bits: what a norm's statistics are under autocast."""
    value = _example(node)
    if (
        isinstance(value, torch.Tensor)
        and value.dim() <= 2
        and value.dtype in (torch.bfloat16, torch.float16)
    ):
        return value.float()
    return value


def _unit_values(node: Node) -> Any:
    """As `_example`, but within [0, 1] and true: what a probability or an assertion asks for."""
    value = _example(node)
    if isinstance(value, torch.Tensor) and not value.dtype.is_complex:
        return value.sigmoid() if value.dtype.is_floating_point else value.fill_(1)
    return value


def _tensor_like(value: torch.Tensor) -> torch.Tensor:
    # The size of the bytes that the view spans, not of its base: the rest is never touched.
    extent = 1 + sum((n - 1) * s for n, s in zip(value.shape, value.stride())) if value.numel() else 0
    flat = torch.empty(extent, dtype=value.dtype, device=value.device)
    if value.dtype.is_floating_point or value.dtype.is_complex:
        flat.normal_(0.0, 0.1)
    else:
        flat.zero_()
    return flat.as_strided(value.shape, value.stride())
