"""One recipe per name: sizes, data and loss put together into a `Workload`.

Each has a full size, which is the published one or one that a two-core machine trains within minutes, and a tiny one
with every operator of the full one for tests.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import WorkloadError
from .data import images, text, volume
from .models.convolutional import VGG, ResNet, ResNetSize, TiedAutoencoder, VGGSize
from .models.recurrent import LSTM, LSTMSize
from .models.transformer import GPT, Bert, TransformerSize, ViT
from .models.unet import UNet, UNetSize
from .workload import Batch, Workload

#: Batches in a validation pass.
VALIDATION_BATCHES = 2
#: Bytes hidden from the encoder, as in BERT.
MASKED_SHARE = 0.15


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What the caller asked for; None leaves it to the recipe.

    Attributes:
        seed: of initialisation and data.
        batch: samples per batch.
        size: context in bytes, or side of image or volume.
        tiny: the test size.
        data: a file or folder of the user's in place of the built-in data.
    """

    seed: int = 0
    batch: int | None = None
    size: int | None = None
    tiny: bool = False
    data: Path | None = None

    def pick(self, full: int, tiny: int) -> int:
        """A number by the size that was asked for.

        Args:
            full: for the full size.
            tiny: for the test size.

        Returns:
            one of the two.
        """
        return tiny if self.tiny else full


def symbols_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Cross entropy in nats per symbol: logits (B, T, symbols), target (B, T), -100 ignored."""
    return F.cross_entropy(logits.flatten(0, 1), target.flatten())


def _gpt(wanted: Wanted, *, tied: bool) -> Workload:
    context = wanted.size or wanted.pick(1024, 32)
    size = (
        TransformerSize(width=32, depth=2, heads=2, context=context)
        if wanted.tiny
        else TransformerSize(width=384, depth=6, heads=6, context=context)
    )
    name = "gpt-tied" if tied else "gpt"
    return _next_byte(wanted, name, GPT(size, tied=tied), context, batch=2, rate=1e-3, steps=60)


def _lstm(wanted: Wanted) -> Workload:
    context = wanted.size or wanted.pick(128, 16)
    size = LSTMSize(width=16, depth=2) if wanted.tiny else LSTMSize(width=512, depth=2)
    return _next_byte(wanted, "lstm", LSTM(size), context, batch=32, rate=2e-3, steps=40)


def _next_byte(
    wanted: Wanted, name: str, module: nn.Module, context: int, *, batch: int, rate: float, steps: int
) -> Workload:
    corpus, batch = _corpus(wanted, context), wanted.batch or wanted.pick(batch, 16)
    return Workload(
        name=name,
        module=module,
        batches=partial(text.next_byte, corpus.train, batch=batch, context=context, seed=wanted.seed),
        validation=partial(
            text.next_byte_validation,
            corpus.validation,
            batch=batch,
            context=context,
            count=VALIDATION_BATCHES,
        ),
        loss_fn=symbols_loss,
        data=f"next byte of {corpus.origin}",
        batch_size=batch,
        learning_rate=rate,
        steps=steps,
    )


def _bert(wanted: Wanted) -> Workload:
    context = wanted.size or wanted.pick(512, 32)
    size = (
        TransformerSize(width=32, depth=2, heads=2, context=context)
        if wanted.tiny
        else TransformerSize(width=384, depth=6, heads=6, context=context)
    )
    corpus, batch = _corpus(wanted, context), wanted.batch or wanted.pick(4, 16)
    train = partial(text.next_byte, corpus.train, batch=batch, context=context, seed=wanted.seed)
    aside = partial(
        text.next_byte_validation, corpus.validation, batch=batch, context=context, count=VALIDATION_BATCHES
    )
    hide = partial(text.masked, share=MASKED_SHARE, mask_id=256)
    return Workload(
        name="bert",
        module=Bert(size),
        batches=lambda: hide(train(), seed=wanted.seed + 1),
        validation=lambda: hide(aside(), seed=wanted.seed + 2),
        loss_fn=symbols_loss,
        data=f"masked bytes of {corpus.origin}",
        batch_size=batch,
        learning_rate=5e-4,
        steps=40,
    )


def _corpus(wanted: Wanted, context: int) -> text.Corpus:
    if wanted.data is None:
        corpus = text.standard_library(seed=wanted.seed)
    else:
        corpus = text.folder(wanted.data, seed=wanted.seed)
    text.check_length(corpus, context=context)
    return corpus


def _resnet(wanted: Wanted, *, name: str, stages: tuple[int, ...]) -> Workload:
    side = wanted.size or wanted.pick(224, 32)
    size = ResNetSize(stages=(1, 1, 1, 1), width=8) if wanted.tiny else ResNetSize(stages=stages)
    return _classify(
        wanted, name, lambda classes: ResNet(size, classes=classes), side, batch=16, rate=5e-4, steps=12
    )


def _vgg(wanted: Wanted) -> Workload:
    side = wanted.size or wanted.pick(224, 16)
    size = VGGSize(stages=((8,), (16, 16)), hidden=32) if wanted.tiny else VGGSize()
    _check_multiple("vgg16", side, 2 ** len(size.stages))
    build = lambda classes: VGG(size, side=side, classes=classes)  # noqa: E731
    return _classify(wanted, "vgg16", build, side, batch=8, rate=1e-4, steps=8)


def _vit(wanted: Wanted) -> Workload:
    side, patch = wanted.size or wanted.pick(224, 16), wanted.pick(16, 4)
    _check_multiple("vit", side, patch)
    context = (side // patch) ** 2
    size = (
        TransformerSize(width=32, depth=2, heads=2, context=context)
        if wanted.tiny
        else TransformerSize(width=384, depth=12, heads=6, context=context)
    )
    build = lambda classes: ViT(size, patch=patch, classes=classes)  # noqa: E731
    return _classify(wanted, "vit", build, side, batch=16, rate=5e-4, steps=16)


def _classify(
    wanted: Wanted,
    name: str,
    build: Callable[[int], nn.Module],
    side: int,
    *,
    batch: int,
    rate: float,
    steps: int,
) -> Workload:
    samples, batch = _samples(wanted), wanted.batch or wanted.pick(batch, 16)
    enlarge = partial(images.enlarge, side=side, channels=3)
    return Workload(
        name=name,
        module=build(samples.classes),
        batches=lambda: (
            Batch((enlarge(b.args[0]),), b.target)
            for b in images.shuffled(samples.train, batch=batch, seed=wanted.seed)
        ),
        validation=lambda: (
            Batch((enlarge(b.args[0]),), b.target)
            for b in images.in_order(samples.validation, batch=batch, count=VALIDATION_BATCHES)
        ),
        loss_fn=F.cross_entropy,
        data=f"classes of {samples.origin}, enlarged to {side}×{side}",
        batch_size=batch,
        learning_rate=rate,
        steps=steps,
    )


def _autoencoder(wanted: Wanted) -> Workload:
    side = wanted.size or wanted.pick(64, 16)
    channels = (4, 8) if wanted.tiny else (32, 64, 128)
    _check_multiple("autoencoder", side, 2 ** len(channels))
    samples, batch = _samples(wanted), wanted.batch or wanted.pick(128, 16)
    enlarge = partial(images.enlarge, side=side, channels=1)

    def rebuild(batch: Batch) -> Batch:
        image = enlarge(batch.args[0])
        return Batch((image,), image)

    return Workload(
        name="autoencoder",
        module=TiedAutoencoder(channels),
        batches=lambda: map(rebuild, images.shuffled(samples.train, batch=batch, seed=wanted.seed)),
        validation=lambda: map(
            rebuild, images.in_order(samples.validation, batch=batch, count=VALIDATION_BATCHES)
        ),
        loss_fn=F.mse_loss,
        data=f"{samples.origin}, enlarged to {side}×{side}, to be rebuilt from a part of their pixels",
        batch_size=batch,
        learning_rate=2e-3,
        steps=30,
    )


def _samples(wanted: Wanted) -> images.Samples:
    if wanted.data is None:
        return images.digits(seed=wanted.seed)
    return images.arrays(wanted.data, seed=wanted.seed, dimensions=4)


def _unet(wanted: Wanted, *, dimensions: int) -> Workload:
    name, full = f"unet{dimensions}d", (256 if dimensions == 2 else 64)
    side = wanted.size or wanted.pick(full, 16)
    if wanted.tiny:
        size = UNetSize(width=4, depth=2)
    else:
        size = UNetSize(width=32, depth=4) if dimensions == 2 else UNetSize(width=16, depth=3)
    _check_multiple(name, side, 2**size.depth)
    batch = wanted.batch or wanted.pick(4 if dimensions == 2 else 1, 16 if dimensions == 2 else 2)
    samples = None if wanted.data is None else _volumes(wanted, wanted.data, dimensions, side)
    fresh = partial(volume.volumes, side=side, dimensions=dimensions, batch=batch, seed=wanted.seed)
    return Workload(
        name=name,
        module=UNet(size, dimensions=dimensions, classes=samples.classes if samples else volume.CLASSES),
        batches=partial(images.shuffled, samples.train, batch=batch, seed=wanted.seed)
        if samples
        else partial(fresh, part=0),
        validation=partial(images.in_order, samples.validation, batch=batch, count=VALIDATION_BATCHES)
        if samples
        else lambda: (b for b, _ in zip(fresh(part=1), range(VALIDATION_BATCHES))),
        loss_fn=F.cross_entropy,
        data=f"segments {samples.origin}"
        if samples
        else f"segments overlapping {'spheres' if dimensions == 3 else 'discs'} seen through a simulated microscope",
        batch_size=batch,
        learning_rate=2e-3,
        steps=30 if dimensions == 3 else 16,
    )


def _volumes(wanted: Wanted, path: Path, dimensions: int, side: int) -> images.Samples:
    found = images.arrays(path, seed=wanted.seed, dimensions=dimensions + 2)
    shape, classes = tuple(found.train[0].shape[1:]), tuple(found.train[1].shape[1:])
    if shape != (1, *[side] * dimensions) or classes != shape[1:]:
        raise WorkloadError(
            f"{path}: samples of shape {shape} with classes of shape {classes}; this network takes "
            f"{(1, *[side] * dimensions)} and {tuple([side] * dimensions)} (another side: --size)"
        )
    return found


def _check_multiple(name: str, side: int, of: int) -> None:
    if side % of:
        nearest = max(of, round(side / of) * of)
        raise WorkloadError(f"{name} takes sides that are multiples of {of}, not {side}: try {nearest}")


RECIPES: dict[str, Callable[[Wanted], Workload]] = {
    "gpt": partial(_gpt, tied=False),
    "gpt-tied": partial(_gpt, tied=True),
    "bert": _bert,
    "lstm": _lstm,
    "resnet50": partial(_resnet, name="resnet50", stages=(3, 4, 6, 3)),
    "resnet152": partial(_resnet, name="resnet152", stages=(3, 8, 36, 3)),
    "vgg16": _vgg,
    "vit": _vit,
    "unet2d": partial(_unet, dimensions=2),
    "unet3d": partial(_unet, dimensions=3),
    "autoencoder": _autoencoder,
}


def load(name: str, **wanted: Any) -> Workload:
    """A workload by name: `load("gpt", seed=0, batch=2)`.

    Args:
        name: one of `names()`.
        **wanted: fields of `Wanted`: `seed`, `batch`, `size`, `tiny`, `data`.

    Returns:
        module, batches, loss and optimizer.

    Raises:
        WorkloadError: unknown name, or data or sizes that do not fit.
    """
    if name not in RECIPES:
        raise WorkloadError(
            f"no model {name!r} in the zoo: choose from {', '.join(RECIPES)}, or file.py:build"
        )
    request = Wanted(**wanted)
    if (request.batch is not None and request.batch < 1) or (request.size is not None and request.size < 1):
        raise WorkloadError(f"batch {request.batch} and size {request.size} must be at least 1")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(request.seed)
        return RECIPES[name](request)


def names() -> tuple[str, ...]:
    """The names that `load` knows."""
    return tuple(RECIPES)
