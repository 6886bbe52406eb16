"""Steps to plan: hand-written, random and modelled on real networks, all without torch."""

from __future__ import annotations

import random as rnd
from collections.abc import Sequence

from outsize.values import CodecRate, LinkRate, Op, OpCost, Profile, StepGraph, Storage


class Builder:
    """Adds ops in order; storages and uses follow."""

    def __init__(self) -> None:
        self.ops: list[dict] = []
        self.made: list[dict] = []
        self.uses: list[list[int]] = []
        self.costs: list[OpCost] = []

    def resident(self, nbytes: int, name: str = "") -> int:
        return self._storage(nbytes, "resident", -1, name or f"r{len(self.made)}")

    def _storage(self, nbytes: int, kind: str, producer: int, name: str, zeros: bool = False) -> int:
        index = len(self.made)
        self.made.append(
            {
                "index": index,
                "name": name,
                "nbytes": nbytes,
                "kind": kind,
                "producer": producer,
                "zeros": zeros,
            }
        )
        self.uses.append([])
        return index

    def op(
        self,
        name: str,
        reads: Sequence[int],
        writes: Sequence[int] = (),
        *,
        phase: str = "forward",
        kinds: Sequence[str] = (),
        seconds: float = 1.0,
        workspace: int = 0,
        mutates: Sequence[int] = (),
        target: str = "",
        zeros: bool = False,
        **more: object,
    ) -> tuple[int, ...]:
        """Adds an op that makes one storage per size in `writes`; returns their numbers."""
        position = len(self.ops)
        reads = tuple(dict.fromkeys(reads))
        for s in reads:
            self.uses[s].append(position)
        kinds = kinds or ["activation"] * len(writes)
        made = tuple(
            self._storage(n, k, position, f"{name}.{j}" if j else name, zeros)
            for j, (n, k) in enumerate(zip(writes, kinds))
        )
        self.ops.append({
            "index": position,
            "name": name,
            "target": target or name,
            "phase": phase,
            "reads": reads,
            "writes": made,
            "mutates": tuple(mutates),
            "effect": bool(mutates),
            **more,
        })  # fmt: skip
        self.costs.append(OpCost(seconds=seconds, workspace_bytes=workspace))
        return made

    def graph(self, extra: int = 0) -> StepGraph:
        return StepGraph(
            ops=tuple(Op(**o) for o in self.ops),
            storages=tuple(Storage(**s, uses=tuple(u)) for s, u in zip(self.made, self.uses)),
            extra_resident_bytes=extra,
        )

    def profile(self, rate: float = 100.0, *, shared: bool = False, latency: float = 0.0) -> Profile:
        link = LinkRate(
            out_bytes_per_second=rate, in_bytes_per_second=rate, latency_seconds=latency, shared=shared
        )
        codec = CodecRate(encode_bytes_per_second=10 * rate, decode_bytes_per_second=10 * rate, ratio=0.5)
        return Profile(ops=tuple(self.costs), links={"disk": link}, codecs={"relu": codec})


def chain(
    layers: int, *, size: int = 100, rate: float = 100.0, seconds: float = 1.0
) -> tuple[StepGraph, Profile]:
    """Layer i makes activation i from i-1; backward i reads activation i and the gradient."""
    b = Builder()
    weights = [b.resident(10, f"w{i}") for i in range(layers)]
    x = b.resident(size, "x")
    acts = []
    for i in range(layers):
        (x,) = b.op(f"f{i}", [x, weights[i]], [size], seconds=seconds, flops=10, checkpoint=i % 2 == 0)
        acts.append(x)
    (g,) = b.op("outside", [x], [size], phase="outside", target="outside", effect=True)
    for i in reversed(range(layers)):
        (g, _) = b.op(
            f"b{i}", [g, acts[i], weights[i]], [size, 10], phase="backward",
            kinds=["activation", "gradient"], seconds=2 * seconds, flops=20,
        )  # fmt: skip
    b.op("update", [], phase="update", target="update", effect=True)
    return b.graph(), b.profile(rate)


def random_step(seed: int, *, ops: int = 24) -> tuple[StepGraph, Profile]:
    """A step with branches, several consumers, views of one storage, in-place mutation, random ops, odd sizes."""
    r = rnd.Random(seed)
    b = Builder()
    residents = [b.resident(r.randint(1, 30)) for _ in range(3)]
    alive = [b.resident(r.randint(10, 60))]
    forward: list[int] = []
    for i in range(ops):
        reads = r.sample(alive[-6:], min(len(alive), r.randint(1, 3))) + r.sample(residents, r.randint(0, 1))
        sizes = [r.randint(1, 60) for _ in range(r.choice([1, 1, 1, 2]))]
        kinds = ["output" if r.random() < 0.08 else "activation" for _ in sizes]
        mutable = [s for s in reads if b.made[s]["kind"] == "activation"]
        mutates = [r.choice(mutable)] if mutable and r.random() < 0.1 else []
        made = b.op(
            f"f{i}", reads, sizes, kinds=kinds, seconds=r.choice([0.0, 0.1, 1.0, 3.0]), mutates=mutates,
            workspace=r.choice([0, 0, 20]), random=r.random() < 0.1, flops=r.choice([0, 5, 20]),
            checkpoint=r.random() < 0.3, zeros=r.random() < 0.3,
        )  # fmt: skip
        alive += made
        forward += made
    (g,) = b.op("outside", alive[-1:], [r.randint(1, 30)], phase="outside", target="outside", effect=True)
    for i, s in enumerate(reversed(forward)):
        if r.random() < 0.2:
            continue
        extra = r.sample(forward, r.choice([0, 0, 1]))
        kinds = ["activation"] + (["gradient"] if r.random() < 0.5 else [])
        made = b.op(
            f"b{i}", [g, s, *extra], [r.randint(1, 40)] + [5] * (len(kinds) - 1), phase="backward", kinds=kinds,
            seconds=r.choice([0.1, 1.0, 2.0]), workspace=r.choice([0, 0, 30]), flops=r.choice([0, 10, 40]),
        )  # fmt: skip
        g = made[0]
    b.op("update", [g], phase="update", target="update", effect=True)
    return b.graph(r.randint(0, 20)), b.profile(r.choice([10.0, 50.0, 500.0]), shared=r.random() < 0.3)
