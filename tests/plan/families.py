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
