"""Steps of real network families, without torch: shapes, bytes and FLOPs of their ATen forward and backward.

A tiny tape: each layer adds its forward ops and remembers how its backward is spelt, so that `finish` can add the
backward in reverse. Sizes are float32. Costs follow a roofline: the longer of FLOPs and bytes moved, plus a launch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod

from outsize.values import CodecRate, LinkRate, Profile, StepGraph

from .graphs import Builder


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Sustained rates: FLOP/s of matrix work, bytes/s of memory, seconds per launch; links by tier."""

    flops: float
    bandwidth: float
    launch: float
    links: dict[str, LinkRate]


def link(
    gb_out: float, gb_in: float | None = None, latency: float = 20e-6, *, shared: bool = False
) -> LinkRate:
    return LinkRate(
        out_bytes_per_second=gb_out * 1e9, in_bytes_per_second=(gb_in or gb_out) * 1e9,
        latency_seconds=latency, shared=shared,
    )  # fmt: skip


CPU = Machine(flops=1e11, bandwidth=1e10, launch=20e-6, links={"disk": link(1.2, 1.6, 1e-4, shared=True)})
V100_PCIE3 = Machine(flops=10e12, bandwidth=700e9, launch=5e-6, links={"host": link(11.5)})
V100_NVLINK2 = Machine(flops=10e12, bandwidth=700e9, launch=5e-6, links={"host": link(62.0)})
A100_PCIE4 = Machine(flops=60e12, bandwidth=1500e9, launch=5e-6, links={"host": link(24.0)})
H100_PCIE5 = Machine(flops=250e12, bandwidth=2600e9, launch=5e-6, links={"host": link(50.0)})
GH200 = Machine(flops=300e12, bandwidth=3000e9, launch=5e-6, links={"host": link(350.0)})
A100_NVME = Machine(
    flops=60e12, bandwidth=1500e9, launch=5e-6, links={"disk": link(5.0, 6.5, 1e-4, shared=True)}
)
MACHINES = {
    "v100-pcie3": V100_PCIE3, "v100-nvlink2": V100_NVLINK2, "a100-pcie4": A100_PCIE4,
    "h100-pcie5": H100_PCIE5, "gh200-c2c": GH200, "a100-nvme": A100_NVME,
}  # fmt: skip


@dataclass(frozen=True)
class T:
    """A value: the storage that holds it, its shape and the bytes of an element."""

    storage: int
    shape: tuple[int, ...]
    item: int = 4

    @property
    def nbytes(self) -> int:
        return self.item * prod(self.shape)


class Net(Builder):
    """Layers on a tape."""

    def __init__(self, machine: Machine) -> None:
        super().__init__()
        self.machine = machine
        self.tape: list[Callable[[], None]] = []
        self.grads: dict[int, int] = {}
        self.phase = "forward"
        self.inputs: set[int] = set()

    def input(self, *shape: int) -> T:
        t = T(self.resident(4 * prod(shape), "input"), shape)
        self.inputs.add(t.storage)
        return t

    def weight(self, count: int) -> int:
        return self.resident(4 * count, f"w{len(self.made)}")

    def run(
        self, name: str, reads: Sequence[int], writes: Sequence[int], *, flops: int = 0,
        kinds: Sequence[str] = (), **more: object,
    ) -> tuple[int, ...]:  # fmt: skip
        moved = sum(self.made[s]["nbytes"] for s in set(reads)) + sum(writes)
        seconds = max(flops / self.machine.flops, moved / self.machine.bandwidth) + self.machine.launch
        label = f"{name}_{len(self.ops)}"
        return self.op(
            label, reads, writes, phase=self.phase, kinds=kinds, seconds=seconds, flops=flops,
            target=f"aten.{name}", checkpoint=flops > 0 and self.phase == "forward", **more,
        )  # fmt: skip

    def add_grad(self, t: T, grad: int) -> None:
        if t.storage in self.inputs:
            return
        if (old := self.grads.get(t.storage)) is not None:
            (grad,) = self.run("add", [old, grad], [t.nbytes])
        self.grads[t.storage] = grad

    def _layer(self, y: T, back: Callable[[int], None]) -> T:
        def backward() -> None:
            if (g := self.grads.pop(y.storage, None)) is not None:
                back(g)

        self.tape.append(backward)
        return y

    def conv(self, x: T, cout: int, k: int = 3, stride: int = 1, *, bias: bool = False) -> T:
        n, cin, *space = x.shape
        out = tuple(-(-s // stride) for s in space)
        count = cout * cin * k ** len(space)
        w = self.weight(count)
        shape = (n, cout, *out)
        flops = 2 * n * prod(out) * count
        (s,) = self.run("convolution", [x.storage, w], [4 * prod(shape)], flops=flops)
        first = x.storage in self.inputs

        def back(g: int) -> None:
            writes, kinds = [x.nbytes, 4 * count], ["activation", "gradient"]
            made = self.run(
                "convolution_backward", [g, x.storage, w], writes[first:], kinds=kinds[first:],
                flops=flops if first else 2 * flops,
            )  # fmt: skip
            if not first:
                self.add_grad(x, made[0])

        return self._layer(T(s, shape), back)

    def bn(self, x: T) -> T:
        c = x.shape[1]
        w, b, mean, var = (self.weight(c) for _ in range(4))
        y, m, r, _, _ = self.run(
            "_native_batch_norm_legit_functional", [x.storage, w, b, mean, var], [x.nbytes, *[4 * c] * 4],
            any_version=(mean, var),
        )  # fmt: skip

        def back(g: int) -> None:
            gx, *_ = self.run(
                "native_batch_norm_backward", [g, x.storage, w, m, r], [x.nbytes, 4 * c, 4 * c],
                kinds=["activation", "gradient", "gradient"],
            )  # fmt: skip
            self.add_grad(x, gx)

        return self._layer(T(y, x.shape), back)

    def unary(self, name: str, x: T, *, keeps: str, shape: tuple[int, ...] | None = None) -> T:
        """Pointwise or pooling: the backward reads the input (`x`), the output (`y`) or neither."""
        y = T(-1, shape or x.shape, x.item)
        (s,) = self.run(name, [x.storage], [y.nbytes], zeros=name == "relu")
        y = T(s, y.shape, x.item)

        def back(g: int) -> None:
            kept = [t.storage for t in (x, y) if {x: "x", y: "y"}[t] in keeps]
            self.add_grad(x, self.run(f"{name}_backward", [g, *kept], [x.nbytes])[0])

        return self._layer(y, back)

    def relu(self, x: T) -> T:
        return self.unary("relu", x, keeps="y")

    def gelu(self, x: T) -> T:
        return self.unary("gelu", x, keeps="x")

    def softmax(self, x: T) -> T:
        return self.unary("_softmax", x, keeps="y")

    def maxpool(self, x: T, stride: int = 2) -> T:
        n, c, *space = x.shape
        shape = (n, c, *(s // stride for s in space))
        y, index = self.run("max_pool2d_with_indices", [x.storage], [4 * prod(shape), 8 * prod(shape)])

        def back(g: int) -> None:
            self.add_grad(x, self.run("max_pool2d_backward", [g, x.storage, index], [x.nbytes])[0])

        return self._layer(T(y, shape), back)

    def upsample(self, x: T) -> T:
        n, c, *space = x.shape
        return self.unary("upsample_nearest", x, keeps="", shape=(n, c, *(2 * s for s in space)))

    def concat(self, a: T, b: T) -> T:
        return self.concat_all([a, b])

    def concat_all(self, parts: Sequence[T]) -> T:
        """Along the second dimension."""
        first = parts[0]
        shape = (first.shape[0], sum(part.shape[1] for part in parts), *first.shape[2:])
        (s,) = self.run("cat", [part.storage for part in parts], [first.item * prod(shape)])

        def back(g: int) -> None:
            for part in parts:
                self.add_grad(part, self.run("slice_backward", [g], [part.nbytes])[0])

        return self._layer(T(s, shape, first.item), back)

    def add(self, a: T, b: T) -> T:
        (s,) = self.run("add", [a.storage, b.storage], [max(a.nbytes, b.nbytes)])

        def back(g: int) -> None:
            self.add_grad(a, g)
            self.add_grad(b, g)

        return self._layer(T(s, a.shape, max(a.item, b.item)), back)

    def dropout(self, x: T) -> T:
        """As traced on the CPU: a random mask, then a product that may run again."""
        (mask,) = self.run("bernoulli", [], [x.nbytes // 4], random=True)
        (y,) = self.run("mul", [x.storage, mask], [x.nbytes], zeros=True)

        def back(g: int) -> None:
            self.add_grad(x, self.run("mul", [g, mask], [x.nbytes])[0])

        return self._layer(T(y, x.shape), back)

    def layernorm(self, x: T) -> T:
        d, rows = x.shape[-1], prod(x.shape[:-1])
        w = self.weight(2 * d)
        y, m, r = self.run("native_layer_norm", [x.storage, w], [x.nbytes, 4 * rows, 4 * rows])

        def back(g: int) -> None:
            gx, _ = self.run(
                "native_layer_norm_backward", [g, x.storage, m, r, w], [x.nbytes, 8 * d],
                kinds=["activation", "gradient"],
            )  # fmt: skip
            self.add_grad(x, gx)

        return self._layer(T(y, x.shape), back)

    def linear(self, x: T, dout: int) -> T:
        d, rows = x.shape[-1], prod(x.shape[:-1])
        w = self.weight(d * dout)
        flops = 2 * rows * d * dout
        shape = (*x.shape[:-1], dout)
        if x.item != 4:  # autocast: the weight is cast, and the copy saved
            (w,) = self.run("_to_copy", [w], [x.item * d * dout])
        (s,) = self.run("addmm", [x.storage, w], [x.item * prod(shape)], flops=flops)

        def back(g: int) -> None:
            if x.storage not in self.inputs:
                self.add_grad(x, self.run("mm", [g, w], [x.nbytes], flops=flops)[0])
            self.run("mm", [g, x.storage], [4 * d * dout], flops=flops, kinds=["gradient"])

        return self._layer(T(s, shape, x.item), back)

    def cast(self, x: T, item: int) -> T:
        """To another width of element, and the gradient back."""
        (s,) = self.run("_to_copy", [x.storage], [item * prod(x.shape)])

        def back(g: int) -> None:
            self.add_grad(x, self.run("_to_copy", [g], [x.nbytes])[0])

        return self._layer(T(s, x.shape, item), back)

    def gather(self, x: T, rows: int, *, scatter: bool = False) -> T:
        """Rows of x by an index, or sums of its rows by one; the backward is the other of the two."""
        index = self.resident(8 * max(rows, x.shape[0]), f"index{len(self.made)}")
        shape = (rows, *x.shape[1:])
        names = ("index_add", "index_select") if scatter else ("index_select", "index_add")
        (s,) = self.run(names[0], [x.storage, index], [x.item * prod(shape)])

        def back(g: int) -> None:
            self.add_grad(x, self.run(names[1], [g, index], [x.nbytes])[0])

        return self._layer(T(s, shape, x.item), back)

    def gate(self, x: T, by: T) -> T:
        """A product with a smaller value that is broadcast; both are saved."""
        (s,) = self.run("mul", [x.storage, by.storage], [x.nbytes])

        def back(g: int) -> None:
            self.add_grad(x, self.run("mul", [g, by.storage], [x.nbytes])[0])
            (wide,) = self.run("mul", [g, x.storage], [x.nbytes])
            self.add_grad(by, self.run("sum", [wide], [by.nbytes])[0])

        return self._layer(T(s, x.shape, x.item), back)

    def matmul(self, a: T, b: T, shape: tuple[int, ...], inner: int) -> T:
        flops = 2 * prod(shape) * inner
        (s,) = self.run("bmm", [a.storage, b.storage], [a.item * prod(shape)], flops=flops)

        def back(g: int) -> None:
            self.add_grad(b, self.run("bmm", [g, a.storage], [b.nbytes], flops=flops)[0])
            self.add_grad(a, self.run("bmm", [g, b.storage], [a.nbytes], flops=flops)[0])

        return self._layer(T(s, shape, a.item), back)

    def finish(self, y: T) -> tuple[StepGraph, Profile]:
        """The loss outside, the backward in reverse, the update."""
        self.made[y.storage]["kind"] = "output"
        grad = self.op(
            "outside", [y.storage], [y.nbytes], phase="outside", target="outside", effect=True, seconds=1e-5
        )[0]
        self.phase = "backward"
        self.grads[y.storage] = grad
        for backward in reversed(self.tape):
            backward()
        self.op("update", [], phase="update", target="update", effect=True, seconds=0.0)
        codec = CodecRate(
            encode_bytes_per_second=self.machine.bandwidth / 3,
            decode_bytes_per_second=self.machine.bandwidth / 3, ratio=0.55,
        )  # fmt: skip
        return self.graph(), Profile(
            ops=tuple(self.costs), links=self.machine.links, codecs={"relu": codec}, estimated=True
        )
