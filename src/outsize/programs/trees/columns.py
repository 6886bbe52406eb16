"""Is this column what a forest's file says it is? Checks of arrays and lists that came from a file.

Each costs a pass over the array, whatever is in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ...errors import TreesError

#: An integer array, or a mask; numpy's own stubs widen most results to this.
Ints = npt.NDArray[Any]


def check_columns(
    arrays: Mapping[str, Ints], dtypes: Mapping[str, str], optional: Sequence[str] = ()
) -> None:
    """All columns are there, none besides, each of one dimension and its dtype (or int64, as numpy likes to have it).

    Raises:
        TreesError: naming the column.
    """
    if missing := sorted(dtypes.keys() - arrays.keys() - set(optional)):
        raise TreesError(f"it lacks {', '.join(missing)}")
    if unknown := sorted(arrays.keys() - dtypes.keys()):
        raise TreesError(f"it has columns that are not known: {unknown[:4]!a}")
    for name, array in arrays.items():
        if array.ndim != 1 or array.dtype not in (dtypes[name], np.int64):
            raise TreesError(
                f"{name} has {array.ndim} dimensions of {array.dtype}, one of {dtypes[name]} is needed"
            )


def check_texts(about: Mapping[str, Any], names: Sequence[str]) -> None:
    """All lists are there, none besides, and they hold texts.

    Raises:
        TreesError: naming the list.
    """
    if about.keys() != set(names):
        raise TreesError(f"it describes {sorted(about)[:4]!a} instead of {', '.join(names)}")
    for name in names:
        if not isinstance(about[name], list) or not all(isinstance(text, str) for text in about[name]):
            raise TreesError(f"{name} is not a list of texts")


def check_within(name: str, values: Ints, low: int | Ints, high: int | Ints) -> None:
    """`low <= values < high` everywhere.

    Raises:
        TreesError: naming the first that is not.
    """
    wrong = np.flatnonzero((values < low) | (values >= high))
    if len(wrong):
        row = int(wrong[0])
        least, limit = (int(np.broadcast_to(bound, values.shape)[row]) for bound in (low, high))
        raise TreesError(f"{name}[{row}] is {int(values[row])}, and must be from {least} to {limit - 1}")


def check_ptr(name: str, ptr: Ints, lists: int, rows: int) -> None:
    """`ptr` divides `rows` rows among `lists` lists.

    Raises:
        TreesError: it does not.
    """
    if len(ptr) != lists + 1 or ptr[0] != 0 or ptr[-1] != rows or (np.diff(ptr) < 0).any():
        raise TreesError(f"{name} must ascend from 0 to {rows} in {lists} steps")
