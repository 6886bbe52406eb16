"""Counts the bytes that the programs move, access by access, in Triton's interpreter (TRITON_INTERPRET=1)."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import numpy as np

__all__ = ["count_traffic"]

#: Access, the argument that holds what is written (None: the result), the argument that holds the mask.
_ACCESSES = (("create_masked_load", None, 1), ("create_masked_store", 1, 2), ("create_atomic_rmw", 2, 3))


@contextlib.contextmanager
def count_traffic() -> Iterator[list[int]]:
    """A list to which every load, store and atomic adds the bytes of the lanes that its mask lets through."""
    from triton.runtime.interpreter import InterpreterBuilder

    moved: list[int] = []

    def counted(plain: Callable[..., Any], value: int | None, mask: int) -> Callable[..., Any]:
        def access(self: Any, *args: Any, **options: Any) -> Any:
            result = plain(self, *args, **options)
            written = result if value is None else args[value]
            moved.append(int(np.asarray(args[mask].data).sum()) * np.asarray(written.data).itemsize)
            return result

        return access

    with contextlib.ExitStack() as patches:
        for name, value, mask in _ACCESSES:
            access = counted(getattr(InterpreterBuilder, name), value, mask)
            patches.enter_context(mock.patch.object(InterpreterBuilder, name, access))
        yield moved
