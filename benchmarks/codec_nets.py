"""Networks that the codec benchmarks train beside those of the zoo."""

from __future__ import annotations

from torch import nn

from outsize.zoo import Workload, load

WITHOUT_NORM = "vgg16, no normalisation"


def plain_vgg16(classes: int) -> nn.Module:
    """VGG-16 as published: no normalisation, so nothing but ReLU outputs, poolings and dropout masks is saved."""
    layers: list[nn.Module] = []
    channels = 3
    for width, count in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(count):
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(inplace=True)]
            nn.init.kaiming_normal_(layers[-2].weight)
            channels = width
        layers += [nn.MaxPool2d(2)]
    layers += [nn.Flatten(), nn.Linear(512 * 49, 4096), nn.ReLU(inplace=True), nn.Dropout()]
    layers += [nn.Linear(4096, 4096), nn.ReLU(inplace=True), nn.Dropout(), nn.Linear(4096, classes)]
    return nn.Sequential(*layers)


def workload(name: str, batch: int) -> tuple[nn.Module, Workload]:
    """The module to train, and the workload that has its data and loss."""
    work = load("vgg16" if name == WITHOUT_NORM else name, batch=batch)
    return (plain_vgg16(10) if name == WITHOUT_NORM else work.module).train(), work
