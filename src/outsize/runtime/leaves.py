"""Hooks of parameters that get no gradient in a backward.

In an eager step autograd does not come by such a parameter, and its hooks do not run. A captured backward is one node
with an edge to each parameter, and autograd follows them all: a hook would be called with None for a gradient. For the
rest of that backward these hooks are therefore made to skip None.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Any, final

import torch
from torch import Tensor

Hooks = dict[int, Callable[..., Any]]


@final
class Leaves:
    """The leaf tensors among a step's inputs, by their place; held weakly."""

    def __init__(self, inputs: Sequence[Any]) -> None:
        self._leaves = {
            i: weakref.ref(t)
            for i, t in enumerate(inputs)
            if isinstance(t, Tensor) and t.requires_grad and t.is_leaf
        }

    def spare(self, gradients: Sequence[Any]) -> None:
        """A backward gave these: hooks of leaves that get None are not to run for it. Called while it runs."""
        for i, reference in self._leaves.items():
            leaf = reference() if gradients[i] is None else None
            if leaf is None:
                continue
            before, after = leaf._backward_hooks, _after_accumulation(leaf)
            if before or after:
                torch.autograd.Variable._execution_engine.queue_callback(_Spared(leaf, before, after).end)


def _after_accumulation(leaf: Tensor) -> Hooks | None:
    return leaf._post_accumulate_grad_hooks


class _Skipping:
    """A hook that runs only where the leaf got a gradient."""

    def __init__(self, hook: Callable[..., Any], runs: Callable[[Any], bool]) -> None:
        self.hook, self._runs = hook, runs

    def __call__(self, argument: Any) -> Any:
        return self.hook(argument) if self._runs(argument) else None


class _Spared:
    """One leaf during one backward: another path may yet bring it a gradient, and then its hooks run."""

    def __init__(self, leaf: Tensor, before: Hooks | None, after: Hooks | None) -> None:
        self._came = False
        _replace(before, lambda gradient: gradient is not None)
        self._witness = leaf.register_hook(self._saw) if after else None
        _replace(after, lambda _: self._came)
        self._hooks = (before, after)

    def _saw(self, gradient: Tensor | None) -> None:
        self._came = gradient is not None

    def end(self) -> None:
        """The backward is over: the hooks are what they were."""
        if self._witness is not None:
            self._witness.remove()
        for hooks in self._hooks:
            for key, hook in list((hooks or {}).items()):
                if hooks is not None and isinstance(hook, _Skipping):
                    hooks[key] = hook.hook


def _replace(hooks: Hooks | None, runs: Callable[[Any], bool]) -> None:
    if hooks is None:
        return
    for key, hook in list(hooks.items()):
        bare = hook.hook if isinstance(hook, _Skipping) else hook  # of a backward that ended in an exception
        hooks[key] = _Skipping(bare, runs)
