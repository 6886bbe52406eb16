"""What models are called with: small batches of words, images, sound, films, series."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch

ROWS, LENGTH, WORDS = 4, 64, 256

Inputs = Callable[[], dict[str, Any]]


def words() -> dict[str, Any]:
    ids = torch.randint(3, WORDS, (ROWS, LENGTH))
    return {"input_ids": ids, "labels": ids}


def pairs() -> dict[str, Any]:
    return {
        "input_ids": torch.randint(3, WORDS, (ROWS, LENGTH)),
        "labels": torch.randint(3, WORDS, (ROWS, 32)),
    }


def plain_words() -> dict[str, Any]:
    return {"input_ids": torch.randint(3, WORDS, (ROWS, LENGTH))}


def sound() -> dict[str, Any]:
    return {"input_values": torch.randn(ROWS, 16000)}


def frames_and_words() -> dict[str, Any]:
    return {
        "input_features": torch.randn(ROWS, 128, 16),
        "labels": torch.randint(3, WORDS, (ROWS, 16)),
    }


def features_and_words() -> dict[str, Any]:
    return {
        "input_features": torch.randn(ROWS, 16, 128),
        "labels": torch.randint(3, WORDS, (ROWS, 16)),
    }


def film() -> dict[str, Any]:
    return {"pixel_values": torch.randn(2, 4, 3, 64, 64)}


def words_and_image() -> dict[str, Any]:
    return plain_words() | image(64)()


def series() -> dict[str, Any]:
    past, ahead = torch.randn(ROWS, 31), torch.randn(ROWS, 8)
    return {
        "past_values": past,
        "past_time_features": torch.randn(ROWS, 31, 1),
        "past_observed_mask": torch.ones(ROWS, 31),
        "future_values": ahead,
        "future_time_features": torch.randn(ROWS, 8, 1),
    }


def patches() -> dict[str, Any]:
    return {"past_values": torch.randn(ROWS, 64, 2)}


def masks(size: int) -> Inputs:
    """An image with two regions."""
    return lambda: {
        "pixel_values": torch.randn(2, 3, size, size),
        "mask_labels": [(torch.rand(2, size, size) > 0.5).float() for _ in range(2)],
        "class_labels": [torch.tensor([1, 2]) for _ in range(2)],
    }


def image(size: int) -> Inputs:
    return lambda: {"pixel_values": torch.randn(ROWS, 3, size, size)}


def inputs_of(inputs: Inputs | None, model: Any) -> dict[str, Any]:
    """What a model is called with: where its line does not say it, what its class names as its main input."""
    if inputs is not None:
        return inputs()
    asked, config = inspect.signature(model.forward).parameters, model.config
    size = getattr(config, "image_size", 64)
    pixels = image(size if isinstance(size, int) else size[0])
    if model.main_input_name == "input_ids":
        return plain_words() | (pixels() if "pixel_values" in asked else {})
    if model.main_input_name == "pixel_values":
        return pixels() | (plain_words() if "input_ids" in asked else {})
    if model.main_input_name == "input_values":
        return sound()
    if model.main_input_name == "input_features":
        return {"input_features": torch.randn(ROWS, 64, getattr(config, "num_mel_bins", 16))}
    raise ValueError(f"nobody knows what {model.main_input_name} is")
