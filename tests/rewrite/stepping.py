"""Hand-made schedules for small steps, and a way to run them without autograd."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from outsize.fx import CapturedStep, RewrittenStep
from outsize.rewrite import rewrite_step, verify_step
from outsize.runtime.frame import Frame
from outsize.runtime.ops import OPS
from outsize.runtime.tiers import Tier
from outsize.runtime.tiers.base import Arrival, Block, Data, TierCounters, flat_bytes
from outsize.values import Entry, Op, Schedule


class Here(Arrival):
    def __init__(self, data: Tensor) -> None:
        self.data = data

    def wait(self) -> Tensor:
        return self.data

    def ready(self) -> bool:
        return True


class Copy(Block):
    """Bytes that are written when they are settled, as late as a tier may."""

    def __init__(self, source: Tensor) -> None:
        self.source: Tensor | None = source
        self.nbytes = source.numel()
        self.held: Tensor | None = None

    def settle(self) -> None:
        if self.source is not None:
            self.held, self.source = self.source.clone(), None

    def settled(self) -> bool:
        return self.source is None

    def release(self) -> None:
        self.held = None


class CopyTier(Tier):
    """Keeps copies; counts bytes each way."""

    name = "disk"

    def __init__(self) -> None:
        self.out = self.into = 0

    def reserve(self, nbytes: int) -> None:
        pass

    def write(self, data: Data, owner: object = None, slot: int | None = None) -> Copy:
        block = Copy(flat_bytes(data))
        self.out += block.nbytes
        return block

    def read(self, block: Block, into: Data | None = None) -> Here:
        assert isinstance(block, Copy)
        assert block.held is not None, "fetched before it was settled"
        self.into += block.nbytes
        return Here(block.held.clone())

    def counters(self) -> TierCounters:
        return TierCounters(
            bytes_out=self.out, bytes_in=self.into, stall_seconds=0, held_bytes=0, peak_held_bytes=0
        )

    def facts(self) -> Mapping[str, object]:
        return {}

    def close(self) -> None:
        pass


def find(step: CapturedStep, part: str, phase: str = "forward", number: int = 0) -> Op:
    return [o for o in step.graph.ops if part in o.target and o.phase == phase][number]


def away(storage: int) -> list[Entry]:
    return [Entry(kind="swap_out", storage=storage, tier="disk"), Entry(kind="settle", storage=storage),
            Entry(kind="drop", storage=storage)]  # fmt: skip


def back(storage: int) -> list[Entry]:
    return [Entry(kind="fetch", storage=storage, tier="disk"), Entry(kind="wait", storage=storage)]


def schedule(
    step: CapturedStep,
    after: Mapping[int, list[Entry]] = {},
    before: Mapping[int, list[Entry]] = {},
) -> Schedule:
    """The plain order with entries put in behind and in front of ops."""
    entries: list[Entry] = []
    for op in step.graph.ops:
        entries += [*before.get(op.index, []), Entry(kind="op", op=op.index), *after.get(op.index, [])]
    return Schedule(entries=tuple(entries))


def rewritten(step: CapturedStep, made: Schedule) -> RewrittenStep:
    new = rewrite_step(step, made, OPS)
    verify_step(step, new, OPS)
    return new


def values(step: CapturedStep) -> tuple[list[Tensor], list[Tensor]]:
    """Numbers for the step's inputs and its incoming gradients."""
    generator = torch.Generator().manual_seed(1)

    def like(fake: Tensor) -> Tensor:
        return torch.randn(fake.shape, generator=generator, dtype=torch.float64).to(fake.dtype)

    return [like(n.meta["val"]) for n in step.primals], [like(n.meta["val"]) for n in step.tangents]


def run(step: CapturedStep, new: RewrittenStep, tier: CopyTier | None = None) -> list[Any]:
    """Every result of forward and backward, from the same numbers and the same random stream."""
    primals, tangents = values(step)
    torch.manual_seed(2)
    frame = Frame(new, {"disk": tier or CopyTier()})
    made = list(new.forward.forward([frame, *primals]))
    count = len(step.forward_outputs)
    crossing = made[count:]
    results = made[:count]
    assert len(crossing) == len(new.crossing)
    gradients = list(new.backward.forward([frame, *crossing, *tangents]))
    assert not frame.arrivals
    return [*results, *gradients]


def same(a: list[Any], b: list[Any]) -> bool:
    return len(a) == len(b) and all(
        (x is None and y is None) or (x.shape == y.shape and x.stride() == y.stride() and torch.equal(x, y))
        for x, y in zip(a, b)
    )
