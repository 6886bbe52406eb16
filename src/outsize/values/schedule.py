"""A plan lowered to one list of entries, run in order by the executor: the plan's meaning, without room for opinion.

State of a storage at any moment: *resident* (its bytes are on the device and ready), *arriving* (its buffer is
allocated, a read is under way), *absent*. Bytes count from the entry that allocates them to the entry that frees them.

| entry      | needs                      | does                                                                        |
|------------|----------------------------|-----------------------------------------------------------------------------|
| `op`       | reads resident             | allocates the storages it writes, plus its workspace while it runs          |
| `clone`    | reads resident             | runs op again: allocates those of its writes that are absent (and, while it |
|            |                            | runs, second copies of those that are not), plus its workspace              |
| `swap_out` | resident                   | starts a write to `tier` on the out lane; the storage stays resident        |
| `settle`   | a write was started        | waits for the write                                                         |
| `encode`   | resident                   | allocates `nbytes` for the encoded form                                     |
| `drop`     | resident                   | frees the bytes on the device                                               |
| `fetch`    | absent, write settled      | allocates the buffer, starts the read on the in lane: arriving              |
| `wait`     | arriving                   | waits for the read: resident                                                |
| `decode`   | absent, encoded            | allocates the bytes and fills them: resident; `last` frees the encoded form |

For `encode_swap` the encoded form is what travels: `encode`, `drop`, `swap_out`, `settle` (frees the encoded form),
`fetch` (allocates `nbytes`), `wait`, `decode` (frees it). An activation that is resident is freed right after the
last entry that needs it; residents, outputs and gradients stay to the end.

A `state` storage whose first transfer is a `fetch` rests on that tier over the turn: it is absent when the step begins,
with its newest bytes in the tier, and has to be so again when the step ends. So does a `parameter` storage, which no op
changes: it comes for its uses, and is dropped without a write.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .graph import StepGraph
from .ranges import Count, MaybeIndex

#: Lowering makes them; `check`, `rewrite/build.py` and `replay/holdings.py` have a method for each.
EntryKind = Literal["op", "clone", "swap_out", "settle", "encode", "drop", "fetch", "wait", "decode"]

_RESTS = ("state", "parameter")


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One line of the schedule.

    Attributes:
        kind: see the table above.
        op: position of the op for `op` and `clone`, else -1.
        storage: the storage acted on, else -1.
        tier: for `swap_out` and `fetch`.
        codec: for `encode` and `decode`.
        nbytes: reserved bytes of the encoded form (`encode`, and swap entries of an encoded form), else 0.
        last: `decode` only: the encoded form is not needed again.
    """

    kind: EntryKind
    op: MaybeIndex = -1
    storage: MaybeIndex = -1
    tier: str = ""
    codec: str = ""
    nbytes: Count = 0
    last: bool = True


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Entries in the order in which they run.

    Attributes:
        entries: see the table at the top of the module.
    """

    entries: tuple[Entry, ...]

    def resting(self, graph: StepGraph) -> dict[int, str]:
        """State and parameter storages that rest on a tier over the turn, and on which.

        Args:
            graph: whose storages the entries name.

        Returns:
            the tier by index of the storage.
        """
        return resting(graph, self.entries)


def resting(graph: StepGraph, entries: tuple[Entry, ...]) -> dict[int, str]:
    """State and parameter storages that entries fetch before they write them, and from which tier."""
    first: dict[int, Entry] = {}
    for entry in entries:
        if entry.kind in ("fetch", "swap_out") and graph.storages[entry.storage].kind in _RESTS:
            first.setdefault(entry.storage, entry)
    return {storage: entry.tier for storage, entry in first.items() if entry.kind == "fetch"}
