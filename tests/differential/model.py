"""The module of a case: its pieces in a row, heads behind them, results in the form that the case asks for."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .case import Case
from .forms import PIECES

CLASSES = 5


@dataclass
class Record:
    """Results as libraries hand them out."""

    logits: list[Tensor]
    extra: dict[str, Any]


class Model(nn.Module):
    """Made from a case alone, its weights from the case's seed."""

    def __init__(self, case: Case) -> None:
        super().__init__()
        form = case.form
        self.pieces, self.past, scale = nn.ModuleList(), [], form.last**-0.5
        for name, seed, past in case.pieces:
            torch.manual_seed(seed)
            self.pieces.append(PIECES[name][1](form, random.Random(seed)))
            self.past.append(past)
        torch.manual_seed(case.seed)
        self.first = nn.Parameter(1 + scale * torch.randn(form.last))
        self.heads = nn.ModuleList(nn.Linear(form.last, CLASSES) for _ in range(case.heads))
        self.result, self.extra = case.result, case.extra

    def forward(self, x: Any, *, scale: Tensor | None = None) -> Any:
        given = x
        if isinstance(x, dict):
            x, scale = x["x"], x["scale"]
        elif isinstance(x, tuple):
            x, scale = x
        y = x * self.first if scale is None else x * self.first * scale
        feature = y
        for piece, past in zip(self.pieces, self.past):
            y = y + 0.5 * piece(y) if past else piece(y)
            feature = feature if feature is not given else y
        results = [head(y) for head in self.heads]
        return self._handed_out(results, self._extras(x, feature, y, results))

    def _extras(self, x: Tensor, feature: Tensor, y: Tensor, results: list[Tensor]) -> dict[str, Any]:
        made = {
            "feature": lambda: feature,
            "whole": lambda: y.argmax(-1),
            "argument": lambda: x,
            "twice": lambda: results[0],
            "detached": lambda: y.detach(),
            "view": lambda: results[0].flatten(1),
        }
        return {name: made[name]() for name in self.extra}

    def _handed_out(self, results: list[Tensor], extra: dict[str, Any]) -> Any:
        if self.result == "tensor":
            return results[0]
        if self.result == "tuple":
            return (*results, *extra.values())
        if self.result == "list":
            return [*results, *extra.values(), None]
        if self.result == "dict":
            return {**{f"head {i}": r for i, r in enumerate(results)}, **extra, "number": 3}
        if self.result == "record":
            return Record(results, extra)
        return {"results": (results[0], {"others": results[1:]}), "extra": [extra]}


def unpacked(result: Any) -> tuple[list[Tensor], dict[str, Tensor]]:
    """The heads' results and the further ones, whatever they came in."""
    if isinstance(result, Tensor):
        return [result], {}
    if isinstance(result, Record):
        return result.logits, result.extra
    if isinstance(result, dict) and "results" in result:
        first, others = result["results"]
        return [first, *others["others"]], result["extra"][0]
    named = result.items() if isinstance(result, dict) else ((str(i), r) for i, r in enumerate(result))
    tensors = {name: r for name, r in named if isinstance(r, Tensor)}
    heads = [t for t in tensors.values() if t.shape[-1] == CLASSES and t.is_floating_point()]
    return heads, {name: t for name, t in tensors.items() if not any(t is h for h in heads)}
