"""The other way to learn: whole executions as one sequence, no calls, the state carried through.

Without calls there is nothing to verify and little that generalises (Cai et al. show how little), but it needs no
recursion, and it is how a plain NPI meets a program as it is. Its trouble is memory: back-propagation through 10⁵
steps keeps 10⁵ steps of activations. `LongTrace` cuts the sequence into segments, each one operator that keeps its
inputs only, so that `outsize.compile(model, budget=…)` sees a hundred storages to swap or recompute instead of a
million small ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, final

import torch
from torch import Tensor, nn

from ...errors import NpiError
from .calls import Action, Row, Step, fold
from .controller import Controller, ControllerSettings
from .record import Recorder
from .slots import Slots
from .source import Linker, Program
from .template import Example, Vocabulary

__all__ = ["LongTrace", "as_long_trace", "flat_traces", "flat_vocabulary", "train_flat"]

#: System calls of one flat execution before it is taken to loop.
_FLAT_LIMIT = 10_000_000


def flat_traces(program: Program, examples: Iterable[Example]) -> list[Row]:
    """One row per execution: all its system calls, loops as they are.

    Args:
        program: a function over pointers that makes no program call and no copy of a pointer.
        examples: as for `trace`.

    Raises:
        NpiError: the program calls a function over pointers, copies a pointer, or uses a value after another read.
    """
    linker = Linker(program, lifts=False)
    rows = []
    for example in examples:
        recorder = Recorder(linker, Slots(), limit=_FLAT_LIMIT)
        recorder.run(tuple(example()))
        if len(recorder.rows) > 1 or any(s.action.key in ("copy", "middle") for s in recorder.rows[0].steps):
            raise NpiError(
                f"{program.__name__} makes calls or copies: a flat program is one function on fixed pointers"
            )
        rows.append(Row(program.__name__, _relative(recorder.rows[0].steps)))
    return rows


def _relative(steps: Sequence[Step]) -> tuple[Step, ...]:
    """Value registers counted from the last read, since a flat execution reads without end."""
    out, base, count = [], 0, 0
    for seen, action in fold(steps):
        if action.key == "read":
            base, count = count, count + len(action.operands)
        numbers = [int(o[1:]) - base if o[0] == "v" else 0 for o in action.operands]
        if min(numbers, default=0) < 0:
            raise NpiError(
                f"{action} uses a value from before the last read: read it again where it is needed"
            )
        operands = tuple(f"v{n}" if o[0] == "v" else o for o, n in zip(action.operands, numbers))
        out.append(Step(seen, Action(action.key, operands, action.slot)))
    return tuple(out)


def flat_vocabulary(rows: Sequence[Row]) -> Vocabulary:
    """The vocabulary of flat rows."""
    return Vocabulary.of(rows[0].program, rows)


@torch.library.custom_op("outsize_npi::lstm", mutates_args=())
def _lstm(
    x: Tensor, h: Tensor, c: Tensor, w_x: Tensor, w_h: Tensor, b_x: Tensor, b_h: Tensor
) -> tuple[Tensor, Tensor]:
    """LSTM over x [T, E] from h, c [H]: outputs [T, H] and the last c."""
    hs, cs, _ = _forward(x, h, c, w_x, w_h, b_x + b_h)
    return hs, cs[-1].clone()


def _forward(
    x: Tensor, h: Tensor, c: Tensor, w_x: Tensor, w_h: Tensor, bias: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    gates = torch.addmm(bias, x, w_x.T)
    size, transposed = len(h), w_h.T.contiguous()
    hs, cs = x.new_empty(len(x), size), x.new_empty(len(x), size)
    h = h[None]
    for t in range(len(x)):
        gate = gates[t : t + 1]
        gate.addmm_(h, transposed)
        gate[:, : 2 * size].sigmoid_()
        gate[:, 2 * size : 3 * size].tanh_()
        gate[:, 3 * size :].sigmoid_()
        i, f, g, o = gate[0].split(size)
        c = torch.addcmul(f * c, i, g, out=cs[t])
        torch.mul(o, c.tanh(), out=hs[t])
        h = hs[t : t + 1]
    return hs, cs, gates


@_lstm.register_fake
def _(x: Tensor, h: Tensor, c: Tensor, *weights: Tensor) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape[0], h.shape[0]), torch.empty_like(c)


@torch.library.custom_op("outsize_npi::lstm_backward", mutates_args=())
def _lstm_backward(
    grad_hs: Tensor,
    grad_c: Tensor,
    x: Tensor,
    h: Tensor,
    c: Tensor,
    w_x: Tensor,
    w_h: Tensor,
    b_x: Tensor,
    b_h: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x, h, c, w_x, w_h and the bias. The segment is run again; nothing of it was kept."""
    hs, cs, gates = _forward(x, h, c, w_x, w_h, b_x + b_h)
    size = len(h)
    before_c = torch.cat([c[None], cs[:-1]])
    before_h = torch.cat([h[None], hs[:-1]])
    i, f, g, o = gates.split(size, 1)
    squashed = cs.tanh()
    # What each gate's derivative multiplies, for all steps at once; only the two recurrences are left to the loop.
    to_c = o * (1 - squashed * squashed)
    scale = torch.cat([g * i * (1 - i), before_c * f * (1 - f), i * (1 - g * g)], 1)
    out_scale = squashed * o * (1 - o)
    deltas = torch.empty_like(gates)
    dh, dc = torch.zeros_like(h), grad_c.clone()
    for t in range(len(x) - 1, -1, -1):
        dh = dh + grad_hs[t]
        dc = torch.addcmul(dc, dh, to_c[t])
        delta = deltas[t]
        torch.mul(scale[t].view(3, size), dc, out=delta[: 3 * size].view(3, size))
        torch.mul(out_scale[t], dh, out=delta[3 * size :])
        dh = torch.mv(w_h.T, delta)
        dc = dc * f[t]
    return deltas @ w_x, dh, dc, deltas.T @ x, deltas.T @ before_h, deltas.sum(0)


@_lstm_backward.register_fake
def _(
    grad_hs: Tensor,
    grad_c: Tensor,
    x: Tensor,
    h: Tensor,
    c: Tensor,
    w_x: Tensor,
    w_h: Tensor,
    b_x: Tensor,
    b_h: Tensor,
) -> tuple[Tensor, ...]:
    return tuple(torch.empty_like(t) for t in (x, h, c, w_x, w_h, b_x))


def _keep(ctx: Any, inputs: tuple[Tensor, ...], output: Any) -> None:
    ctx.save_for_backward(*inputs)


def _grad(ctx: Any, grad_hs: Tensor, grad_c: Tensor) -> tuple[Tensor, ...]:
    x, h, c, w_x, w_h, bias = _lstm_backward(grad_hs.contiguous(), grad_c.contiguous(), *ctx.saved_tensors)
    return x, h, c, w_x, w_h, bias, bias.clone()


_lstm.register_autograd(_grad, setup_context=_keep)


@final
class LongTrace(nn.Module):
    """Loss of a controller on one whole trace, segment by segment.

    Args:
        controller: what is trained; `Machine` runs it afterwards.
        segment: steps per operator; an operator's workspace grows with it, what is kept between operators does not.
    """

    def __init__(self, controller: Controller, segment: int = 1_000) -> None:
        super().__init__()
        self.controller, self.segment = controller, segment

    def forward(self, seen: Tensor, wanted: Tensor) -> Tensor:
        """Mean cross-entropy of observations `seen` [T] and answers `wanted` [T, 3], both int64."""
        model = self.controller
        cell, total = model.cell, torch.zeros(())
        h = c = torch.zeros(model.hidden)
        for at, target in zip(seen.split(self.segment), wanted.split(self.segment)):
            x = model.seen(at) + model.program.weight[0]
            hs, c = _lstm(x, h, c, cell.weight_ih, cell.weight_hh, cell.bias_ih, cell.bias_hh)
            h = hs[-1]
            for i, head in enumerate(model.heads(hs).split(model.widths, 1)):
                total = total + nn.functional.cross_entropy(head, target[:, i], reduction="sum")
        return total / len(seen)


def as_long_trace(vocabulary: Vocabulary, row: Row) -> tuple[Tensor, Tensor]:
    """A row as the two inputs of `LongTrace`."""
    seen = torch.tensor([s.seen for s in row.steps])
    return seen, torch.tensor([vocabulary.encode(s.action) for s in row.steps])


def train_flat(
    rows: Sequence[Row],
    *,
    epochs: int,
    settings: ControllerSettings | None = None,
    seed: int = 0,
    wrap: Callable[[nn.Module], nn.Module] = lambda module: module,
) -> Controller:
    """Train the non-recursive controller on whole traces, one trace per step.

    Args:
        rows: from `flat_traces`.
        epochs: passes over the rows.
        settings: width and rate; the margin is not waited for.
        seed: of the weights.
        wrap: what to do with the module before training, such as
            `lambda module: outsize.compile(module, budget="64 MiB")`.
    """
    settings = settings or ControllerSettings()
    vocabulary = flat_vocabulary(rows)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        controller = Controller(vocabulary, hidden=settings.hidden, embedding=settings.embedding)
    module = wrap(LongTrace(controller))
    optimizer = torch.optim.Adam(controller.parameters(), lr=settings.rate)
    traces = [as_long_trace(vocabulary, row) for row in rows]
    for _ in range(epochs):
        for seen, wanted in traces:
            optimizer.zero_grad()
            module(seen, wanted).backward()
            nn.utils.clip_grad_norm_(controller.parameters(), 1.0)
            optimizer.step()
    return controller
