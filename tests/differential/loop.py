"""The training loop of a case, for an eager module and a planned one alike."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .case import Case, Loop
from .model import CLASSES, unpacked

#: Told a name and a value at the end of each step.
See = Callable[[str, Any], None]

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": lambda p, decay: torch.optim.SGD(p, 0.05, weight_decay=decay),
    "momentum": lambda p, decay: torch.optim.SGD(p, 0.02, momentum=0.9, nesterov=True, weight_decay=decay),
    "adam": lambda p, decay: torch.optim.Adam(p, 2e-3, weight_decay=decay, amsgrad=True),
    "adamw": lambda p, decay: torch.optim.AdamW(p, 2e-3, weight_decay=decay),
    "adamw fused": lambda p, decay: torch.optim.AdamW(p, 2e-3, weight_decay=decay, fused=True),
    "adamw each": lambda p, decay: torch.optim.AdamW(p, 2e-3, weight_decay=decay, foreach=False),
    "rmsprop": lambda p, decay: torch.optim.RMSprop(p, 1e-3, momentum=0.5, weight_decay=decay),
}


def optimizer_of(case: Case, module: nn.Module) -> torch.optim.Optimizer:
    # Complex parameters have no fused update.
    real = not any(p.is_complex() for p in module.parameters())
    name = case.loop.optimizer if real or case.loop.optimizer != "adamw fused" else "adamw"
    return OPTIMIZERS[name](module.parameters(), case.loop.decay)


class Hooks:
    """The hooks of a case: some stand before the module is compiled, some come after the first step."""

    def __init__(self, loop: Loop, module: nn.Module) -> None:
        self.names, self.module = loop.hooks, module
        self.features: dict[str, Tensor] = {}
        self.seen: dict[str, Tensor] = {}
        self._handles: list[Any] = []

    def before(self) -> None:
        piece, parameter = [*self.module.pieces, *self.module.heads][0], self.module.first
        if "feature early" in self.names:
            self._handles.append(piece.register_forward_hook(self._feature("early")))
        if "changes result" in self.names:
            self._handles.append(piece.register_forward_hook(lambda m, a, out: out * 0.9))
        if "changes argument" in self.names:
            self._handles.append(piece.register_forward_pre_hook(lambda m, a: (a[0] * 1.1,)))
        if "module backward" in self.names:
            self._handles.append(self.module.register_full_backward_hook(self._backward))
        if "parameter" in self.names:
            self._handles.append(parameter.register_hook(lambda g: g * 0.5))
        if "accumulated" in self.names:
            self._handles.append(parameter.register_post_accumulate_grad_hook(self._accumulated))

    def after_step(self, step: int) -> None:
        if step == 0 and "feature late" in self.names:
            self._handles.append(
                [*self.module.heads, *self.module.pieces][-1].register_forward_hook(self._feature("late"))
            )
        if step == 0 and "parameter late" in self.names:
            self._handles.append(self.module.heads[0].weight.register_hook(lambda g: g * 2))

    def results(self, heads: list[Tensor]) -> None:
        if "result" in self.names and heads[0].requires_grad:
            heads[0].register_hook(lambda g: g * 0.25)

    def loss(self) -> Any:
        found, self.features = self.features, {}
        return sum(0.1 * f.float().square().mean() for f in found.values())

    def remove(self) -> None:
        while self._handles:
            self._handles.pop().remove()

    def _feature(self, name: str) -> Any:
        def keep(module: nn.Module, args: Any, result: Tensor) -> None:
            self.features[name] = result

        return keep

    def _backward(self, module: nn.Module, into: Any, out: Any) -> None:
        found = [g for g in out if isinstance(g, Tensor)]
        self.seen["backward"] = torch.stack([g.detach().float().norm() for g in found])

    def _accumulated(self, parameter: Tensor) -> None:
        with torch.no_grad():
            parameter.grad.clamp_(-0.1, 0.1)
        self.seen["accumulated"] = parameter.grad.detach().clone()


def argument(case: Case, step: int, call: int) -> Any:
    """The arguments of one call, as (positional, keyword)."""
    loop, shape = case.loop, list(case.form.shape)
    generator = torch.Generator().manual_seed(1000 * case.seed + 10 * step + call)
    if loop.short and step == loop.steps - 1 and shape[0] > 1:
        shape[0] //= 2
    x = strided(torch.randn(shape, generator=generator), loop.strides, generator)
    if loop.input_grad:
        x.requires_grad_()
    scale = torch.rand((), generator=generator) + 0.5
    given: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
        "tensor": ((x,), {}), "keyword": ((x,), {"scale": scale}), "dict": (({"x": x, "scale": scale},), {}),
        "tuple": (((x, scale),), {}),
    }  # fmt: skip
    return x, *given[case.given]


def strided(x: Tensor, how: str, generator: torch.Generator) -> Tensor:
    """The same shape with other strides."""
    if how == "transposed":
        return x.transpose(0, -1).contiguous().transpose(0, -1)
    if how == "narrowed":
        return torch.cat([x, x], -1)[..., : x.shape[-1]]
    if how == "expanded":
        return x[:1].expand(x.shape)
    if how == "channels_last" and x.dim() == 4:
        return x.contiguous(memory_format=torch.channels_last)
    if how == "reversed":
        return torch.stack([x, x], -1)[..., 1]
    return x


def loss_of(case: Case, result: Tensor, step: int) -> Tensor:
    result = result.float()
    if case.loop.loss == "classes":
        rows = result.reshape(-1, result.shape[-1])
        classes = (torch.arange(rows.shape[0]) * (step + 3)) % CLASSES
        return F.cross_entropy(rows, classes, label_smoothing=0.1)
    if case.loop.loss == "absolute":
        return F.smooth_l1_loss(result, torch.zeros_like(result))
    return result.square().mean() if case.loop.loss == "square" else (result / result.shape[0]).tanh().sum()


class Loss:
    """One call of the module and what it adds to the loss."""

    def __init__(self, case: Case, module: nn.Module, hooks: Hooks, step: int, call: int) -> None:
        self.x, args, keywords = argument(case, step, call)
        outer = torch.autocast("cpu", torch.bfloat16) if case.loop.autocast else contextlib.nullcontext()
        with outer:
            result = module(*args, **keywords)
        heads, self.extra = unpacked(result)
        self.heads = heads
        hooks.results(heads)
        which = {"all": range(len(heads)), "first": (0,), "by turns": (step % len(heads),)}[case.loop.used]
        self.terms = [loss_of(case, heads[i], step) for i in which]
        feature = self.extra.get("feature")
        if feature is not None and feature.requires_grad:
            self.terms[0] = self.terms[0] + 0.01 * feature.float().square().mean()
        self.terms[0] = self.terms[0] + hooks.loss()


def train(case: Case, module: nn.Module, optimizer: torch.optim.Optimizer, hooks: Hooks, see: See) -> None:
    """Every step of the case; at the end of each `see` is told what came out."""
    torch.manual_seed(case.seed + 1)
    begin = {k: v.clone() for k, v in module.state_dict().items()} if case.loop.reload else {}
    for step in range(case.loop.steps):
        _step(
            case,
            module,
            optimizer,
            hooks,
            step,
            lambda name, value, step=step: see(f"step {step} {name}", value),
        )
        hooks.after_step(step)
        if case.loop.evaluate and step == 0:
            module.eval()
            with torch.no_grad():
                _, args, keywords = argument(case, 99, 0)
                heads, _ = unpacked(module(*args, **keywords))
                hooks.features.clear()
            see("evaluation", heads[0])
            module.train()
        if case.loop.freeze and step == 0:
            for parameter in module.heads[0].parameters():
                parameter.requires_grad_(False)
                parameter.grad = None
        if begin and step == 1:
            module.load_state_dict(begin)
        see(f"step {step} random", torch.get_rng_state())


def _step(case: Case, module: nn.Module, optimizer: Any, hooks: Hooks, step: int, see: See) -> None:
    loop, kept = case.loop, []
    if loop.zero_at == "begin":
        optimizer.zero_grad(set_to_none=loop.zero == "none")
    for micro in range(loop.micro):
        calls = [Loss(case, module, hooks, step, 2 * micro + call) for call in range(loop.calls)]
        if loop.touch:
            _touch(module)
        if loop.zero_at == "before backward" and micro == 0:
            optimizer.zero_grad(set_to_none=loop.zero == "none")
        _backward(loop, calls)
        kept += calls
    if loop.clip:
        see("norm", torch.nn.utils.clip_grad_norm_(module.parameters(), 0.5))
    optimizer.step()
    _told(module, optimizer, hooks, kept, see)
    if loop.zero_at == "end":
        optimizer.zero_grad(set_to_none=loop.zero == "none")


def _backward(loop: Loop, calls: list[Loss]) -> None:
    total = sum(term for call in calls for term in call.terms)
    if loop.backwards == 2:
        (calls[0].terms[0] * 0.5).backward(retain_graph=True)
    total.backward()


def _touch(module: nn.Module) -> None:
    """The loop itself changes a buffer between forward and backward."""
    with torch.no_grad():
        for buffer in module.buffers():
            if buffer.is_floating_point():
                buffer.mul_(1.25)
                return


def _told(module: nn.Module, optimizer: Any, hooks: Hooks, calls: list[Loss], see: See) -> None:
    for i, call in enumerate(calls):
        for j, term in enumerate(call.terms):
            see(f"loss {i}.{j}", term.detach())
        for j, head in enumerate(call.heads):
            see(f"result {i}.{j}", head.detach())
            see(f"form of result {i}.{j}", form_of(head))
        for name, tensor in call.extra.items():
            see(f"extra {i}.{name}", tensor.detach())
            see(f"form of extra {i}.{name}", form_of(tensor))
        see(f"gradient of input {i}", call.x.grad)
    for name, value in hooks.seen.items():
        see(f"hook {name}", value)
    hooks.seen.clear()
    for name, parameter in module.named_parameters():
        see(f"parameter {name}", parameter.detach())
        see(f"gradient of {name}", parameter.grad)
        for key, value in optimizer.state.get(parameter, {}).items():
            see(f"{key} of {name}", value)
    for name, buffer in module.named_buffers():
        see(f"buffer {name}", buffer)


def form_of(tensor: Tensor) -> tuple[Any, ...]:
    """What code may depend on beside the values: strides, where they say anything, and whether it has a gradient."""
    strides = tuple(s for s, n in zip(tensor.stride(), tensor.shape) if n > 1)
    return strides, tensor.requires_grad
