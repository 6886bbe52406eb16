"""All that rests on a tier, back on the device for a block of code."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from .install import session_of
from .session import Session

__all__ = ["resident"]


@contextlib.contextmanager
def resident(module: torch.nn.Module) -> Iterator[torch.nn.Module]:
    """Bring the state of a module's optimizers back to the device, to be changed or viewed there.

    Between steps, what the budget has no room for rests on a tier. It can be read there: `optimizer.state_dict()`,
    `torch.save`, `copy.deepcopy`, a print or a sum fetch what they read, tensor by tensor. A change needs it here. It
    goes back to rest when the next step begins; the budget does not hold meanwhile.

    >>> import torch, outsize
    >>> model = torch.nn.Linear(64, 64)
    >>> optimizer = torch.optim.AdamW(model.parameters())
    >>> with outsize.resident(outsize.compile(model, "64 MiB", optimizer=optimizer)):
    ...     for state in optimizer.state.values():
    ...         state["exp_avg"].zero_()

    Args:
        module: compiled here, or not: then there is nothing to bring.

    Yields:
        the module.

    Raises:
        TierError: what rests there cannot be read back.
    """
    session = session_of(module)
    if isinstance(session, Session):
        session.streams.bring_all()
        session.parameters.bring_all()
    yield module
