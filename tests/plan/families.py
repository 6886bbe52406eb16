"""The network families of the benchmarks, spelt on the tape of `nets`."""

from __future__ import annotations

from collections.abc import Callable

from outsize.values import Profile, StepGraph

from .nets import Machine, Net, T


def resnet(machine: Machine, depth: int = 50, batch: int = 16, size: int = 224) -> tuple[StepGraph, Profile]:
    blocks = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}[depth]
    net = Net(machine)
    x = net.maxpool(net.relu(net.bn(net.conv(net.input(batch, 3, size, size), 64, 7, 2))))
    for stage, count in enumerate(blocks):
        for number in range(count):
            width, stride = 64 * 2**stage, 2 if stage and not number else 1
            y = net.relu(net.bn(net.conv(x, width, 1)))
            y = net.relu(net.bn(net.conv(y, width, 3, stride)))
            y = net.bn(net.conv(y, 4 * width, 1))
            if not number:
                x = net.bn(net.conv(x, 4 * width, 1, stride))
            x = net.relu(net.add(y, x))
    pooled = net.unary("mean", x, keeps="", shape=(batch, x.shape[1]))
    return net.finish(net.linear(pooled, 1000))


def vgg(machine: Machine, batch: int = 16, size: int = 224) -> tuple[StepGraph, Profile]:
    net = Net(machine)
    x = net.input(batch, 3, size, size)
    for width, count in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(count):
            x = net.relu(net.conv(x, width))
        x = net.maxpool(x)
    x = net.unary("mean", x, keeps="", shape=(batch, 512))
    for _ in range(2):
        x = net.dropout(net.relu(net.linear(x, 1024)))
    return net.finish(net.linear(x, 1000))


def _attention(net: Net, x: T, heads: int, *, dropout: bool) -> T:
    batch, tokens, d = x.shape
    q, k, v = (net.linear(x, d) for _ in range(3))
    scores = net.matmul(q, k, (batch, heads, tokens, tokens), d // heads)
    p = net.softmax(net.unary("mul", scores, keeps=""))
    if dropout:
        p = net.dropout(p)
    return net.linear(net.matmul(p, v, (batch, tokens, d), tokens), d)


def _transformer(
    machine: Machine, layers: int, d: int, heads: int, tokens: int, batch: int, *, dropout: bool, pre: bool
) -> tuple[StepGraph, Profile]:
    net = Net(machine)
    x = net.linear(net.input(batch, tokens, 32), d)
    for _ in range(layers):
        y = _attention(net, net.layernorm(x) if pre else x, heads, dropout=dropout)
        x = net.add(x, net.dropout(y) if dropout else y)
        x = x if pre else net.layernorm(x)
        y = net.linear(net.gelu(net.linear(net.layernorm(x) if pre else x, 4 * d)), d)
        x = net.add(x, net.dropout(y) if dropout else y)
        x = x if pre else net.layernorm(x)
    return net.finish(net.linear(net.layernorm(x), 256))


def gpt(
    machine: Machine, layers: int = 8, d: int = 768, tokens: int = 1024, batch: int = 8
) -> tuple[StepGraph, Profile]:
    return _transformer(machine, layers, d, d // 64, tokens, batch, dropout=False, pre=True)


def bert(
    machine: Machine, layers: int = 12, d: int = 768, tokens: int = 512, batch: int = 16
) -> tuple[StepGraph, Profile]:
    return _transformer(machine, layers, d, d // 64, tokens, batch, dropout=True, pre=False)


def vit(machine: Machine, layers: int = 12, d: int = 768, batch: int = 64) -> tuple[StepGraph, Profile]:
    return _transformer(machine, layers, d, d // 64, 197, batch, dropout=False, pre=True)


def unet(
    machine: Machine, levels: int = 4, width: int = 32, size: int = 256, batch: int = 4, dims: int = 2
) -> tuple[StepGraph, Profile]:
    net = Net(machine)
    x = net.input(batch, 1, *[size] * dims)

    def double(x: T, width: int) -> T:
        for _ in range(2):
            x = net.relu(net.bn(net.conv(x, width)))
        return x

    skips = []
    for level in range(levels):
        x = double(x, width * 2**level)
        skips.append(x)
        x = net.maxpool(x)
    x = double(x, width * 2**levels)
    for level in reversed(range(levels)):
        x = double(net.concat(skips[level], net.upsample(x)), width * 2**level)
    return net.finish(net.conv(x, 3, 1))


def densenet(
    machine: Machine, layers: tuple[int, ...] = (6, 12), growth: int = 32, size: int = 56, batch: int = 32
) -> tuple[StepGraph, Profile]:
    """Huang et al. 2017: each layer reads all before it, copied together; transitions halve channels and size."""
    net = Net(machine)
    x = net.conv(net.input(batch, 3, 4 * size, 4 * size), 2 * growth, 7, 4)
    for stage, count in enumerate(layers):
        for _ in range(count):
            y = net.conv(net.relu(net.bn(x)), 4 * growth, 1)
            x = net.concat(x, net.conv(net.relu(net.bn(y)), growth))
        if stage + 1 < len(layers):
            x = net.conv(net.relu(net.bn(x)), x.shape[1] // 2, 1)
            x = net.unary("avg_pool2d", x, keeps="", shape=(*x.shape[:2], x.shape[2] // 2, x.shape[3] // 2))
    return net.finish(net.linear(net.unary("mean", net.relu(net.bn(x)), keeps="", shape=x.shape[:2]), 1000))


def dense_stage(
    machine: Machine, layers: int = 8, growth: int = 24, size: int = 64, batch: int = 16
) -> tuple[StepGraph, Profile]:
    """Batch norm, ReLU and one convolution a layer, each result concatenated to what came before."""
    net = Net(machine)
    x = net.conv(net.input(batch, 3, size, size), 32)
    for _ in range(layers):
        x = net.concat(x, net.conv(net.relu(net.bn(x)), growth))
    return net.finish(net.linear(net.unary("mean", x, keeps="", shape=x.shape[:2]), 10))


def inception(
    machine: Machine, blocks: int = 4, batch: int = 32, size: int = 28
) -> tuple[StepGraph, Profile]:
    """Szegedy et al. 2015: four branches of different depth, concatenated."""
    net = Net(machine)

    def unit(x: T, width: int, k: int) -> T:
        return net.relu(net.bn(net.conv(x, width, k)))

    x = unit(net.input(batch, 3, 4 * size, 4 * size), 64, 7)
    x = net.maxpool(net.maxpool(x))
    for _ in range(blocks):
        pooled = net.unary("avg_pool2d", x, keeps="")
        x = net.concat_all([
            unit(x, 64, 1), unit(unit(x, 96, 1), 128, 3), unit(unit(unit(x, 16, 1), 32, 3), 32, 3), unit(pooled, 32, 1),
        ])  # fmt: skip
    return net.finish(net.linear(net.unary("mean", x, keeps="", shape=x.shape[:2]), 1000))


def pyramid(machine: Machine, batch: int = 8, size: int = 256, width: int = 64) -> tuple[StepGraph, Profile]:
    """Lin et al. 2017: a bottom-up path, laterals added to what comes down, and a head at each level."""
    net = Net(machine)
    x, levels = net.input(batch, 3, size, size), []
    for level in range(4):
        x = net.relu(net.bn(net.conv(x, width * 2**level, 3, 2)))
        x = net.relu(net.bn(net.conv(x, width * 2**level)))
        levels.append(x)
    down = net.conv(levels[-1], width, 1)
    heads = [down]
    for lateral in reversed(levels[:-1]):
        down = net.add(net.conv(lateral, width, 1), net.upsample(down))
        heads.append(down)
    pooled = [
        net.unary("mean", net.relu(net.conv(head, width)), keeps="", shape=(batch, width)) for head in heads
    ]
    return net.finish(net.linear(net.concat_all(pooled), 80))


def rrdb(
    machine: Machine, blocks: int = 3, width: int = 64, growth: int = 32, size: int = 64, batch: int = 8
) -> tuple[StepGraph, Profile]:
    """Wang et al. 2018 (ESRGAN): residual dense blocks in a residual, without normalisation."""
    net = Net(machine)
    x = net.conv(net.input(batch, 3, size, size), width)
    for _ in range(blocks):
        outer = x
        for _ in range(3):
            parts = [x]
            for _ in range(4):
                joined = net.concat_all(parts) if len(parts) > 1 else x
                parts.append(net.relu(net.conv(joined, growth)))
            scaled = net.unary("mul", net.conv(net.concat_all(parts), width), keeps="")
            x = net.add(x, scaled)
        x = net.add(outer, net.unary("mul", x, keeps=""))
    return net.finish(net.conv(net.upsample(x), 3))


def mixed_precision(
    machine: Machine, layers: int = 6, d: int = 512, tokens: int = 512, batch: int = 8
) -> tuple[StepGraph, Profile]:
    """A transformer under autocast: matrix products in two bytes, norms, softmax and the residual in four."""
    net = Net(machine)
    x = net.linear(net.input(batch, tokens, 32), d)
    heads = d // 64
    for _ in range(layers):
        y = net.cast(net.layernorm(x), 2)
        q, k, v = (net.linear(y, d) for _ in range(3))
        scores = net.cast(net.matmul(q, k, (batch, heads, tokens, tokens), 64), 4)
        p = net.cast(net.softmax(scores), 2)
        x = net.add(x, net.linear(net.matmul(p, v, (batch, tokens, d), tokens), d))
        y = net.cast(net.layernorm(x), 2)
        x = net.add(x, net.linear(net.gelu(net.linear(y, 4 * d)), d))
    return net.finish(net.linear(net.layernorm(x), 256))


def lora(
    machine: Machine, layers: int = 6, d: int = 512, rank: int = 8, tokens: int = 512, batch: int = 8
) -> tuple[StepGraph, Profile]:
    """Hu et al. 2021: beside each projection a product of two narrow ones, added to it."""
    net = Net(machine)

    def adapted(x: T, dout: int) -> T:
        small = net.linear(net.linear(net.dropout(x), rank), dout)
        return net.add(net.linear(x, dout), net.unary("mul", small, keeps=""))

    x = net.linear(net.input(batch, tokens, 32), d)
    heads = d // 64
    for _ in range(layers):
        y = net.layernorm(x)
        scores = net.matmul(adapted(y, d), net.linear(y, d), (batch, heads, tokens, tokens), 64)
        p = net.softmax(net.unary("mul", scores, keeps=""))
        x = net.add(x, net.linear(net.matmul(p, adapted(y, d), (batch, tokens, d), tokens), d))
        x = net.add(x, net.linear(net.gelu(net.linear(net.layernorm(x), 4 * d)), d))
    return net.finish(net.linear(net.layernorm(x), 256))


def gnn(
    machine: Machine, layers: int = 5, nodes: int = 20_000, edges: int = 160_000, d: int = 64
) -> tuple[StepGraph, Profile]:
    """Messages along edges: rows gathered at both ends, a small network on each edge, sums at the nodes."""
    net = Net(machine)
    x = net.linear(net.input(nodes, 32), d)
    for _ in range(layers):
        both = net.concat(net.gather(x, edges), net.gather(x, edges))
        message = net.linear(net.relu(net.linear(both, d)), d)
        x = net.layernorm(net.add(x, net.gather(message, nodes, scatter=True)))
    return net.finish(net.linear(x, 16))


def squeeze_excite(
    machine: Machine, blocks: int = 6, width: int = 64, size: int = 56, batch: int = 32
) -> tuple[StepGraph, Profile]:
    """Hu et al. 2018: channels weighed by a gate that their means decide; an expansion before each."""
    net = Net(machine)
    x = net.relu(net.bn(net.conv(net.input(batch, 3, 2 * size, 2 * size), width, 3, 2)))
    for _ in range(blocks):
        y = net.relu(net.bn(net.conv(x, 4 * width, 1)))
        mean = net.unary("mean", y, keeps="", shape=y.shape[:2])
        gate = net.unary("sigmoid", net.linear(net.relu(net.linear(mean, width)), 4 * width), keeps="y")
        x = net.add(x, net.bn(net.conv(net.gate(y, gate), width, 1)))
    return net.finish(net.linear(net.unary("mean", x, keeps="", shape=x.shape[:2]), 1000))


#: Families in which something small that nobody saves lies before something large that is saved.
RETAINING: dict[str, Callable[[Machine], tuple[StepGraph, Profile]]] = {
    "densenet": densenet,
    "dense-stage": dense_stage,
    "inception": inception,
    "pyramid": pyramid,
    "rrdb": rrdb,
    "mixed-precision": mixed_precision,
    "lora": lora,
    "gnn": gnn,
    "squeeze-excite": squeeze_excite,
}

#: name → maker; sizes at which activations dominate, as in the issue's table
FAMILIES: dict[str, Callable[[Machine], tuple[StepGraph, Profile]]] = {
    "resnet50": lambda m: resnet(m, 50, 64),
    "resnet152": lambda m: resnet(m, 152, 32),
    "vgg16": lambda m: vgg(m, 32),
    "gpt": gpt,
    "bert": bert,
    "vit": vit,
    "unet2d": unet,
    "unet3d": lambda m: unet(m, 3, 16, 96, 2, 3),
}
