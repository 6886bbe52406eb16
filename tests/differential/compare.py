"""What a run showed, step by step; the next run is held against it to the bit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def same(a: Any, b: Any) -> bool:
    """Whether two values are equal to the bit; two NaNs are equal whatever their bits."""
    if not isinstance(a, Tensor) or not isinstance(b, Tensor):
        return type(a) is type(b) and a == b
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if a.is_complex():
        return same(torch.view_as_real(a.resolve_conj()), torch.view_as_real(b.resolve_conj()))
    if not a.is_floating_point():
        return torch.equal(a, b)
    return bool((((a == b) & (a.signbit() == b.signbit())) | (a.isnan() & b.isnan())).all())


def difference(a: Any, b: Any) -> str:
    """In words: what the two are, and how far apart."""
    if not isinstance(a, Tensor) or not isinstance(b, Tensor):
        return f"{_short(a)} became {_short(b)}"
    if a.shape != b.shape or a.dtype != b.dtype:
        return f"{tuple(a.shape)} {a.dtype} became {tuple(b.shape)} {b.dtype}"
    if a.dtype == torch.bool or a.numel() == 0:
        return "other elements"
    most = (a - b).abs().max().item() if a.dtype != torch.uint8 else "?"
    return f"off by {most:.3g} of {a.abs().max().item():.3g}" if a.dtype != torch.uint8 else "other bytes"


def _short(value: Any) -> str:
    return "a tensor" if isinstance(value, Tensor) else repr(value)


def _share(a: Any, b: Any) -> tuple[torch.dtype, float] | None:
    """Dtype and largest difference over largest element, of two tensors that can be compared."""
    both = isinstance(a, Tensor) and isinstance(b, Tensor) and a.shape == b.shape and a.dtype == b.dtype
    if not both or not (a.is_floating_point() or a.is_complex()):
        return None
    return a.dtype, (a - b).abs().max().item() / max(a.abs().max().item(), 1e-30)


class Reference:
    """Keeps a copy of everything that the eager run shows."""

    def __init__(self) -> None:
        self.kept: dict[str, Any] = {}

    def __call__(self, name: str, value: Any) -> None:
        assert name not in self.kept, name
        self.kept[name] = value.detach().clone() if isinstance(value, Tensor) else value

    @property
    def finite(self) -> bool:
        """Whether all losses are numbers: comparing NaNs would prove little."""
        losses = [v for k, v in self.kept.items() if " loss " in k]
        return bool(losses) and all(bool(v.isfinite().all()) for v in losses)


class Comparison:
    """Holds another run against a reference; what differs first is found first."""

    def __init__(self, reference: Reference) -> None:
        self.missing = set(reference.kept)
        self.reference, self.differing = reference, {}
        self._off: tuple[torch.dtype, float] | None = None

    def __call__(self, name: str, value: Any) -> None:
        if name not in self.reference.kept:
            self.differing[name] = "is not in the eager run"
            return
        self.missing.discard(name)
        expected = self.reference.kept[name]
        if not same(expected, value):
            self._off = self._off if self.differing else _share(expected, value)
            self.differing[name] = difference(expected, value)

    def first_off(self, shares: Mapping[torch.dtype, float], others: float) -> bool:
        """Whether what differs first, in time, does so by a small share of its largest element, that of its dtype."""
        return self._off is not None and self._off[1] <= shares.get(self._off[0], others)

    def told(self, most: int = 4) -> str:
        """The differences in the order in which they came, the first few of them."""
        if not self.differing and self.missing:
            return f"{len(self.missing)} values are missing: {sorted(self.missing)[:most]}"
        found = [f"{name}: {how}" for name, how in self.differing.items()]
        return (
            ""
            if not found
            else f"{len(found)} of {len(self.reference.kept)} differ: " + "; ".join(found[:most])
        )
