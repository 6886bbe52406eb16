"""How long does a schedule take, and how many bytes are alive at each of its entries?

Three lanes run beside each other: compute, out (device to tier) and in (tier to device). Entries are issued in order
on the compute lane; a transfer starts when it has been issued and its lane is free (first in, first out), and the
compute lane stalls only at `settle` and `wait`. A `shared` link serves both directions on one lane. Each tier has
its own pair of lanes. Where the processor itself moves the bytes, each transfer also takes its drag from the compute
lane, after its issue.
"""

from __future__ import annotations

from ...errors import PlanError
from ...values import CodecRate, Entry, LaneSpan, Profile, Schedule, StepGraph, Timeline
from ...values.actions import REDUCING, RESTORING
from ...values.schedule import resting
from ...values.timeline import Lane


def simulate(graph: StepGraph, profile: Profile, schedule: Schedule) -> Timeline:
    """Seconds, stalls and residency of a schedule.

    Returns:
        The timeline; `residency[k]` are the device bytes alive while entry k runs, workspace included.

    Raises:
        PlanError: a tier or codec that the profile has no rate for.
    """
    run = _Run(graph, profile, schedule.entries)
    for number, entry in enumerate(schedule.entries):
        run.step(number, entry)
    ends = [run.now, *run.lane_free.values()]
    return Timeline(
        seconds=max(ends),
        stall_seconds=run.stalled,
        residency=tuple(run.residency),
        starts=tuple(run.starts),
        spans=tuple(run.spans),
    )


def codec_rate(profile: Profile, codec: str, storage: int) -> CodecRate:
    """The rate measured for this storage, or the codec's general one."""
    rate = profile.codecs.get(f"{codec}:{storage}") or profile.codecs.get(codec)
    if rate is None:
        raise PlanError(f"no rate for codec {codec!r}; the profile has {sorted(profile.codecs)}")
    return rate


def tier_peaks(graph: StepGraph, schedule: Schedule) -> dict[str, int]:
    """Most bytes that each tier holds at any moment: from the start of a write to the end of the last read."""
    last_wait = {entry.storage: k for k, entry in enumerate(schedule.entries) if entry.kind == "wait"}
    held: dict[tuple[str, int], int] = {}
    peaks: dict[str, int] = {}
    total: dict[str, int] = {}
    for number, entry in enumerate(schedule.entries):
        if entry.kind == "swap_out":
            key, nbytes = (entry.tier, entry.storage), entry.nbytes or graph.storages[entry.storage].nbytes
            total[entry.tier] = total.get(entry.tier, 0) + nbytes - held.get(key, 0)
            held[key] = nbytes
            peaks[entry.tier] = max(peaks.get(entry.tier, 0), total[entry.tier])
        elif entry.kind == "wait" and last_wait[entry.storage] == number:
            for tier in total:
                total[tier] -= held.pop((tier, entry.storage), 0)
    return peaks


def last_needs(graph: StepGraph, entries: tuple[Entry, ...]) -> list[int]:
    """For each storage the last entry that needs its bytes on the device, -1 where none does."""
    last = [-1] * len(graph.storages)
    for number, entry in enumerate(entries):
        if entry.op >= 0:
            for storage in graph.ops[entry.op].reads:
                last[storage] = number
        elif (
            entry.kind == "drop"
            or entry.kind in REDUCING
            or (entry.kind in ("swap_out", "settle") and not entry.nbytes)
        ):
            last[entry.storage] = number
    return last


class _Run:
    """State of the simulation: one clock per lane, the bytes held per storage, dense and encoded."""

    def __init__(self, graph: StepGraph, profile: Profile, entries: tuple[Entry, ...]) -> None:
        self.graph, self.profile = graph, profile
        self.now, self.stalled = 0.0, 0.0
        self.size = [storage.nbytes for storage in graph.storages]
        away = resting(graph, entries)
        self.alive = graph.resident_bytes - sum(self.size[storage] for storage in away)
        self.held = [storage.lasts and storage.index not in away for storage in graph.storages]
        self.transient = [storage.kind == "activation" for storage in graph.storages]
        self.encoded: dict[int, int] = {}
        self.last = last_needs(graph, entries)
        self.lane_free: dict[tuple[str, str], float] = {}
        self.done: dict[tuple[str, int], float] = {}
        self.residency: list[int] = []
        self.starts: list[float] = []
        self.spans: list[LaneSpan] = []

    def step(self, number: int, entry: Entry) -> None:
        start = self.now
        peak = self._compute(number, entry) if entry.op >= 0 else self._move(number, entry)
        self.residency.append(peak)
        stalls = entry.kind in ("settle", "wait")
        self.starts.append(self.now if stalls else start)

    def _compute(self, number: int, entry: Entry) -> int:
        op, cost = self.graph.ops[entry.op], self.profile.ops[entry.op]
        second = 0
        for storage in op.writes:
            if self.held[storage]:
                second += self.size[storage]
            else:
                self._hold(storage)
        peak = self.alive + second + cost.workspace_bytes
        self._busy(cost.seconds, number, op.name)
        for storage in (*op.reads, *op.writes):
            self._free_if_over(storage, number)
        return peak

    def _move(self, number: int, entry: Entry) -> int:
        storage, kind = entry.storage, entry.kind
        if kind == "swap_out":
            self._transfer("out", number, entry)
        elif kind == "fetch":
            if entry.nbytes:
                self._hold_encoded(storage, entry.nbytes)
            else:
                self._hold(storage)
            self._transfer("in", number, entry)
        elif kind in ("settle", "wait"):
            self._stall_until(self.done[("out" if kind == "settle" else "in", storage)])
        elif kind in REDUCING:
            self._hold_encoded(storage, entry.nbytes)
            rate = codec_rate(self.profile, entry.codec, storage)
            self._busy(self.size[storage] / rate.encode_bytes_per_second, number, f"{kind} {storage}")
        elif kind in RESTORING:
            self._hold(storage)
            rate = codec_rate(self.profile, entry.codec, storage)
            self._busy(self.size[storage] / rate.decode_bytes_per_second, number, f"{kind} {storage}")
        peak = self.alive
        if (kind == "settle" and entry.nbytes) or (kind in RESTORING and entry.last):
            self.alive -= self.encoded.pop(storage, 0)
        if kind == "drop":
            self._release(storage)
        else:
            self._free_if_over(storage, number)
        return peak

    def _busy(self, seconds: float, number: int, label: str) -> None:
        end = self.now + seconds
        self.spans.append(LaneSpan(lane="compute", start=self.now, end=end, entry=number, label=label))
        self.now = end

    def _stall_until(self, moment: float) -> None:
        if moment > self.now:
            self.stalled += moment - self.now
            self.now = moment

    def _transfer(self, lane: Lane, number: int, entry: Entry) -> None:
        link = self.profile.links.get(entry.tier)
        if link is None:
            raise PlanError(f"no rate for tier {entry.tier!r}; the profile has {sorted(self.profile.links)}")
        nbytes = entry.nbytes or self.size[entry.storage]
        seconds = link.out_seconds(nbytes) if lane == "out" else link.in_seconds(nbytes)
        key = (entry.tier, "both" if link.shared else lane)
        start = max(self.now, self.lane_free.get(key, 0.0))
        self.lane_free[key] = self.done[(lane, entry.storage)] = end = start + seconds
        label = f"{entry.tier} {self.graph.storages[entry.storage].name}"
        self.spans.append(LaneSpan(lane=lane, start=start, end=end, entry=number, label=label))
        if link.drag_seconds_per_byte:
            self._busy(nbytes * link.drag_seconds_per_byte, number, f"drag {label}")

    def _hold(self, storage: int) -> None:
        if not self.held[storage]:
            self.held[storage] = True
            self.alive += self.size[storage]

    def _hold_encoded(self, storage: int, nbytes: int) -> None:
        self.alive += nbytes - self.encoded.get(storage, 0)
        self.encoded[storage] = nbytes

    def _release(self, storage: int) -> None:
        if self.held[storage]:
            self.held[storage] = False
            self.alive -= self.size[storage]

    def _free_if_over(self, storage: int, number: int) -> None:
        if self.transient[storage] and self.last[storage] <= number:
            self._release(storage)
