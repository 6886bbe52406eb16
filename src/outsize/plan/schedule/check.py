"""Is this schedule right? An abstract interpreter of the entry semantics that shares no code with what it checks.

It walks the entries once and knows, for every storage, whether its bytes are on the device, arriving or absent, and
*which* bytes they are: the version that the unplanned step would have (how often the storage has been mutated in
place since it was made). Every read of every op has to see the version that it sees in the unplanned step, so a
schedule that passes computes the same bits. Bytes are counted at every entry and held against the budget.
"""

from __future__ import annotations

from collections import Counter

from ...errors import PlanError
from ...units import format_bytes
from ...values import Entry, Op, Profile, Schedule, StepGraph
from ...values.schedule import resting
from ..repeat import may_repeat, stale_reads_allowed

#: Version of bytes that an op may have made from other inputs than the first time.
_UNKNOWN = -1
#: The storage came back from a mask: ones and zeros, right for whoever reads its sign only.
_MASKED = -2


def check(graph: StepGraph, profile: Profile, schedule: Schedule, budget_bytes: int) -> None:
    """Prove that a schedule runs every op once, in order, on the right bytes, within the budget.

    Raises:
        PlanError: naming the entry, the storage and what is wrong with it.
    """
    _hold_to_the_step(graph, profile, schedule.entries)
    state = _Interpreter(graph, profile, schedule.entries, budget_bytes)
    for number, entry in enumerate(schedule.entries):
        state.run(number, entry)
    state.finish()


def _hold_to_the_step(graph: StepGraph, profile: Profile, entries: tuple[Entry, ...]) -> None:
    """Every op and storage that is named is one of the step's: a schedule may come from a file."""
    if len(profile.ops) != len(graph.ops):
        raise PlanError(f"the profile has {len(profile.ops)} costs for {len(graph.ops)} ops")
    for number, entry in enumerate(entries):
        runs = entry.kind in ("op", "clone")
        if not (0 <= entry.op < len(graph.ops) if runs else entry.op == -1):
            raise PlanError(f"entry {number} ({entry.kind}) names op {entry.op} of {len(graph.ops)}")
        if not (entry.storage == -1 if runs else 0 <= entry.storage < len(graph.storages)):
            raise PlanError(
                f"entry {number} ({entry.kind}) names storage {entry.storage} of {len(graph.storages)}"
            )


class _Interpreter:
    """Bytes and versions on the device, in the tiers and in encoded form."""

    def __init__(
        self, graph: StepGraph, profile: Profile, entries: tuple[Entry, ...], budget_bytes: int
    ) -> None:
        self.graph, self.profile, self.budget = graph, profile, budget_bytes
        self.resting = resting(graph, entries)
        self.version: dict[int, int] = {
            s.index: 0 for s in graph.storages if s.lasts and s.index not in self.resting
        }
        self.arriving: dict[int, tuple[int, int]] = {}
        self.writing: dict[int, tuple[str, int, int]] = {}
        self.settled: dict[tuple[int, str], tuple[int, int]] = dict.fromkeys(self.resting.items(), (0, 0))
        self.encoded: dict[int, tuple[str, int, int]] = {}
        self.travelling: dict[int, tuple[str, int, int]] = {}
        self.first_seen = _versions_seen(graph)
        self.next_op = 0
        self.alive = graph.resident_bytes - sum(graph.storages[s].nbytes for s in self.resting)
        self.changes = Counter(s for op in graph.ops for s in op.mutates)
        self.needed_at = _needs(graph, entries)
        self.where = ""

    def fail(self, message: str) -> PlanError:
        return PlanError(f"{self.where}: {message}")

    def name(self, storage: int) -> str:
        return f"{self.graph.storages[storage].name!r} (storage {storage})"

    def run(self, number: int, entry: Entry) -> None:
        self.where = f"entry {number} ({entry.kind} {entry.op if entry.op >= 0 else entry.storage})"
        before = self.alive
        getattr(self, f"_{entry.kind}")(entry)
        self._hold_against_budget(max(before, self.alive) if entry.op < 0 else self.alive)
        self._release_unneeded(number, entry)

    def finish(self) -> None:
        self.where = "end of the step"
        if self.next_op != len(self.graph.ops):
            raise self.fail(f"op {self.next_op} never ran")
        for storage in self.graph.storages:
            if storage.kind in ("output", "gradient") and storage.index not in self.version:
                raise self.fail(f"{self.name(storage.index)} is handed to the caller but not on the device")
            if storage.kind in ("state", "parameter"):
                self._ends_as_it_began(storage.index)
        if self.arriving or self.writing:
            raise self.fail(f"transfers of {sorted({*self.arriving, *self.writing})} were never waited for")

    def _ends_as_it_began(self, storage: int) -> None:
        """The next step begins as this one did, with the newest bytes."""
        tier = self.resting.get(storage)
        if (storage in self.version) != (tier is None):
            where = f"on the device, and began in {tier!r}" if tier else "away, and began on the device"
            raise self.fail(f"{self.name(storage)} is {where}")
        if tier is not None and self.settled[storage, tier] != (self.changes[storage], 0):
            raise self.fail(f"{tier!r} holds {self.name(storage)} as it was before its last change")

    def _hold_against_budget(self, alive: int, extra: int = 0) -> None:
        if alive + extra > self.budget:
            raise self.fail(
                f"{alive + extra} bytes alive, over the budget of {self.budget} "
                f"({format_bytes(alive + extra - self.budget)} too many)"
            )

    def _allocate(self, storage: int) -> None:
        self.alive += self.graph.storages[storage].nbytes

    def _free(self, storage: int) -> None:
        del self.version[storage]
        self.alive -= self.graph.storages[storage].nbytes

    def _read(self, op: Op) -> bool:
        """All reads see what they saw in the unplanned step; True where a harmless one does not."""
        stale = False
        for storage, expected in zip(op.reads, self.first_seen[op.index]):
            seen = self.version.get(storage)
            if seen is None:
                state = (
                    "still arriving: no wait" if storage in self.arriving else "not on the device: no restore"
                )
                raise self.fail(f"op {op.name!r} reads {self.name(storage)}, which is {state} before it")
            if seen == _MASKED:
                if not 0 <= self.graph.storages[storage].mask_from <= op.index:
                    raise self.fail(
                        f"op {op.name!r} reads the values of {self.name(storage)}, which is back as a mask"
                    )
            elif seen != expected:
                if seen == _UNKNOWN or not stale_reads_allowed(op, storage):
                    raise self.fail(
                        f"op {op.name!r} reads {self.name(storage)} at version {seen}, needs {expected}"
                    )
                stale = True
        return stale

    def _run_op(self, op: Op, stale: bool) -> None:
        second = 0
        for number, storage in enumerate(op.writes):
            if storage in self.version or storage in self.arriving:
                second += self.graph.storages[storage].nbytes
            else:
                self._allocate(storage)
                self.version[storage] = _UNKNOWN if stale and number >= 3 else 0
        self._hold_against_budget(self.alive, second + self.profile.ops[op.index].workspace_bytes)

    def _op(self, entry: Entry) -> None:
        if entry.op != self.next_op:
            raise self.fail(f"op {self.next_op} was due")
        op = self.graph.ops[entry.op]
        if self._read(op):
            raise self.fail(f"op {op.name!r} reads changed bytes in its first run")
        if again := [s for s in op.writes if s in self.version or s in self.arriving]:
            raise self.fail(f"op {op.name!r} writes {self.name(again[0])}, which is there already")
        for storage in op.mutates:
            if storage in self.writing:
                raise self.fail(f"op {op.name!r} mutates {self.name(storage)} while it is written to a tier")
        self._run_op(op, stale=False)
        for storage in op.mutates:
            self.version[storage] += 1
        self.next_op += 1

    def _clone(self, entry: Entry) -> None:
        op = self.graph.ops[entry.op]
        if entry.op >= self.next_op:
            raise self.fail(f"op {op.name!r} runs again before it ran first")
        if not may_repeat(op):
            why = "random" if op.random else "effectful"
            raise self.fail(f"op {op.name!r} is {why}, so it may not run again")
        self._run_op(op, stale=self._read(op))

    def _resident(self, storage: int) -> int:
        if storage not in self.version:
            raise self.fail(f"{self.name(storage)} is not on the device")
        return self.version[storage]

    def _swap_out(self, entry: Entry) -> None:
        storage = entry.storage
        if storage in self.writing:
            raise self.fail(f"{self.name(storage)} is already being written")
        if entry.nbytes:
            if storage not in self.encoded:
                raise self.fail(f"{self.name(storage)} has no encoded form to write")
            if self.encoded[storage][2] != entry.nbytes:
                raise self.fail(f"{self.name(storage)} has another encoded form than {entry.nbytes} bytes")
            self.travelling[storage] = self.encoded[storage]
            version = self.encoded[storage][1]
        else:
            version = self._resident(storage)
        self.writing[storage] = (entry.tier, version, entry.nbytes)

    def _settle(self, entry: Entry) -> None:
        storage = entry.storage
        if storage not in self.writing:
            raise self.fail(f"no write of {self.name(storage)} was started")
        tier, version, nbytes = self.writing.pop(storage)
        if nbytes != entry.nbytes:
            raise self.fail(f"{self.name(storage)}: {nbytes} encoded bytes written, {entry.nbytes} settled")
        self.settled[(storage, tier)] = (version, nbytes)
        if nbytes:
            self.alive -= self.encoded.pop(storage)[2]

    def _encode(self, entry: Entry) -> None:
        if entry.storage in self.encoded:
            raise self.fail(f"{self.name(entry.storage)} is encoded already")
        self.encoded[entry.storage] = (entry.codec, self._resident(entry.storage), entry.nbytes)
        self.alive += entry.nbytes

    def _drop(self, entry: Entry) -> None:
        storage = entry.storage
        self._resident(storage)
        kind = self.graph.storages[storage].kind
        # Of what rests over the turn, the end of the step says whether its newest bytes are kept.
        if kind not in ("activation", "state", "parameter"):
            raise self.fail(f"{self.name(storage)} is {kind}: never dropped")
        if self.next_op <= (until := self.graph.storages[storage].held_until):
            raise self.fail(f"{self.name(storage)} is dropped before op {until}, up to which others hold it")
        if storage in self.writing and not self.writing[storage][2]:
            raise self.fail(f"{self.name(storage)} is dropped while its write is under way: no settle")
        self._free(storage)

    def _fetch(self, entry: Entry) -> None:
        storage = entry.storage
        if storage in self.version or storage in self.arriving:
            raise self.fail(f"{self.name(storage)} is fetched while it is on the device or arriving")
        if (storage, entry.tier) not in self.settled:
            raise self.fail(
                f"{self.name(storage)} is fetched, but no settled write to {entry.tier!r} holds it"
            )
        version, nbytes = self.settled[(storage, entry.tier)]
        if nbytes != entry.nbytes:
            raise self.fail(f"{self.name(storage)}: {nbytes} encoded bytes written, {entry.nbytes} fetched")
        self.arriving[storage] = (version, nbytes)
        self.alive += nbytes or self.graph.storages[storage].nbytes

    def _wait(self, entry: Entry) -> None:
        storage = entry.storage
        if storage not in self.arriving:
            raise self.fail(f"no read of {self.name(storage)} is under way")
        version, nbytes = self.arriving.pop(storage)
        if nbytes != entry.nbytes:
            raise self.fail(
                f"{self.name(storage)}: {nbytes} encoded bytes fetched, {entry.nbytes} waited for"
            )
        if entry.nbytes:
            codec = self.travelling[storage][0]
            self.encoded[storage] = (codec, version, entry.nbytes)
        else:
            self.version[storage] = version

    def _decode(self, entry: Entry) -> None:
        storage = entry.storage
        if storage in self.version or storage in self.arriving:
            raise self.fail(f"{self.name(storage)} is decoded while it is on the device or arriving")
        codec, version, nbytes = self.encoded.get(storage, ("", 0, 0))
        if codec != entry.codec or storage not in self.encoded:
            raise self.fail(f"{self.name(storage)} has no form encoded by {entry.codec!r}")
        self._allocate(storage)
        self.version[storage] = _MASKED if codec == "mask" else version
        if entry.last:
            if storage in self.writing:
                raise self.fail(
                    f"the encoded form of {self.name(storage)} is freed while it is written: no settle"
                )
            self._hold_against_budget(self.alive)
            del self.encoded[storage]
            self.alive -= nbytes

    def _release_unneeded(self, number: int, entry: Entry) -> None:
        touched = {entry.storage}
        if entry.op >= 0:
            op = self.graph.ops[entry.op]
            touched = {*op.reads, *op.writes}
        for storage in touched & self.version.keys():
            if self.graph.storages[storage].kind == "activation" and self.needed_at[storage] <= number:
                if storage in self.writing and not self.writing[storage][2]:
                    continue
                self._free(storage)


def _versions_seen(graph: StepGraph) -> list[list[int]]:
    """For each op the versions of its reads in the unplanned step."""
    version = [0] * len(graph.storages)
    seen = []
    for op in graph.ops:
        seen.append([version[s] for s in op.reads])
        for s in op.mutates:
            version[s] += 1
    return seen


def _needs(graph: StepGraph, entries: tuple[Entry, ...]) -> list[int]:
    """The last entry at which each storage's dense bytes are needed, -1 for never."""
    needed = [-1] * len(graph.storages)
    for number in reversed(range(len(entries))):
        entry = entries[number]
        if entry.op >= 0:
            wanted = graph.ops[entry.op].reads
        elif entry.kind in ("encode", "drop") or (entry.kind in ("swap_out", "settle") and entry.nbytes == 0):
            wanted = (entry.storage,)
        else:
            continue
        for storage in wanted:
            needed[storage] = max(needed[storage], number)
    return needed
