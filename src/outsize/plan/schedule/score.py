"""Seconds and peak of a candidate plan, thousands of times on one step.

The search asks what a few decisions cost, most of them known from the question before. Lowering them to a schedule and
simulating it builds thousands of small objects that nobody reads. So the step is packed once into arrays and each
decision once into a row, and one call of `native/score.c` lowers and simulates the chosen rows without any object
in between. It does the same additions in the same order, so its figures are those of `lower` and `simulate` bit for
bit; those two stay the reference, make the final schedule, and answer where the C module is missing or would refuse.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from typing import TypeVar, final

import numpy as np
from numpy.typing import NDArray

from ... import native
from ...errors import PlanError
from ...values import Decision
from ...values.actions import ACTIONS
from ..model import Floats, Ints, Model
from .lower import lower_placed
from .simulate import codec_rate, simulate, tier_peaks

Decisions = tuple[Decision, ...]
Number = TypeVar("Number", bound=np.generic)

#: Positions match the enums in score.h.
_ROWS, _CODINGS, _REGIONS, _SCRATCH, _SCRATCH_BYTES = 20, 21, 22, 23, 24
STORAGE, ACTION, AFTER, FREE, FETCH, BEFORE, ENCODED, CODING, REGION, LENGTH = range(10)
_NO_PLAN, _ROW, _CODED = -1, 10, 5
#: Decisions whose rows are kept: a plan of a step of 2,400 ops has some 300, and 4,096 rows take 320 KiB.
_KNOWN = 4096


@final
class Scorer:
    """What plans of one step over one tier cost.

    Args:
        model: the step.
        tier: the only tier that the decisions swap to, "" for none.
    """

    def __init__(self, model: Model, tier: str) -> None:
        self.model, self.tier = model, tier
        packed = _Packed(model, tier) if native.available() else None
        self._packed = packed if packed is not None and packed.sound else None

    def score(self, decisions: Decisions) -> tuple[float, int, int]:
        """Seconds of the step, its peak bytes, and the peak bytes of the tier.

        Raises:
            PlanError: a decision is malformed, or a tier or codec has no rate.
        """
        found = self._packed.run(decisions) if self._packed is not None else None
        if found is not None:
            return found
        schedule, _ = lower_placed(self.model.graph, decisions)
        timeline = simulate(self.model.graph, self.model.profile, schedule)
        held = tier_peaks(self.model.graph, schedule).get(self.tier, 0)
        return timeline.seconds, timeline.peak_bytes, held

    @property
    def packed(self) -> bool:
        """Rows can be scored: the C module is there and may read the step."""
        return self._packed is not None

    def score_rows(self, rows: Ints, regions: Ints) -> tuple[float, int, int] | None:
        """As `score`, of rows as `native/score.c` reads them; None where they are no plan."""
        assert self._packed is not None
        return self._packed.run_rows(rows, regions)

    def ground_rows(self, rows: Ints, regions: Ints) -> tuple[float, Ints, Floats] | None:
        """As `ground`, of rows."""
        assert self._packed is not None
        length = len(self.model.graph.ops)
        curve, seconds = np.zeros(length, dtype=np.int64), np.zeros(length)
        found = self._packed.run_rows(rows, regions, curve.ctypes.data, seconds.ctypes.data)
        return None if found is None else (found[0], curve, seconds)

    def coding(self, codec: str, storage: int, encoded: int) -> int:
        """What rows name a storage's rates in a codec's form by."""
        assert self._packed is not None
        return self._packed.coding(codec, storage, encoded)

    def ground(self, decisions: Decisions) -> tuple[float, Ints, Floats]:
        """Seconds of the step; position by position the highest residency and the seconds on the compute lane.

        Raises:
            PlanError: as `score`.
        """
        length = len(self.model.graph.ops)
        if self._packed is not None:
            curve, seconds = np.zeros(length, dtype=np.int64), np.zeros(length)
            found = self._packed.run(decisions, curve.ctypes.data, seconds.ctypes.data)
            if found is not None:
                return found[0], curve, seconds
        curve, seconds = np.zeros(length, dtype=np.int64), np.zeros(length)
        schedule, places = lower_placed(self.model.graph, decisions)
        timeline = simulate(self.model.graph, self.model.profile, schedule)
        np.maximum.at(curve, np.array(places), np.array(timeline.residency, dtype=np.int64))
        for span in timeline.spans:
            if span.lane == "compute":
                seconds[places[span.entry]] += span.end - span.start
        return timeline.seconds, curve, seconds


@final
class _Packed:
    """The step as one block of addresses, and the rows of the decisions seen so far."""

    def __init__(self, model: Model, tier: str) -> None:
        self.model, self.tier, self._link = model, tier, model.profile.links.get(tier)
        self._arrays: list[NDArray[np.generic]] = []
        #: Numbers lie within the step, as the C code takes for granted.
        self.sound = len(model.graph.ops) == len(model.profile.ops)
        self._block = np.array([*self._step(), *[0] * 5], dtype=np.int64)
        self._known: dict[int, int] = {}  #: id of a decision → its row
        self._kept: list[Decision] = []  #: the decisions, so that no id is given away again
        self._coded: dict[tuple[str, int, int], int] = {}  #: rows from 1 on; row 0 is for what is not encoded
        self._used = 0  #: elements of `_regions`
        self._rows = self._reserve(_ROWS, np.zeros((_KNOWN, _ROW), dtype=np.int64))
        self._regions = self._reserve(_REGIONS, np.zeros(_KNOWN, dtype=np.int64))
        self._codings = self._reserve(_CODINGS, np.zeros((64, _CODED)))
        self._scratch: NDArray[np.int64] = np.zeros(0, dtype=np.int64)
        self._address = self._block.ctypes.data

    def _reserve(self, word: int, values: NDArray[Number]) -> NDArray[Number]:
        """Writes the array's address into the block."""
        self._block[word] = values.ctypes.data
        return values

    def _step(self) -> Iterable[int]:
        """The words of the block that do not change."""
        graph, costs = self.model.graph, self.model.profile.ops
        ops, storages = graph.ops, graph.storages
        producer = [s.producer for s in storages]
        last = [max(s.uses) if s.uses else s.producer for s in storages]
        self.sound &= min(producer, default=0) >= -1 and max(producer, default=-1) < len(ops)
        yield from (len(ops), len(storages))
        yield from self._lists([op.reads for op in ops])
        yield from self._lists([op.writes for op in ops])
        yield from self._lists([op.mutates for op in ops])
        yield self._array([cost.seconds for cost in costs], np.float64)
        yield self._array([cost.workspace_bytes for cost in costs], np.int64)
        yield self._array([s.nbytes for s in storages], np.int64)
        yield self._array([s.kind == "activation" for s in storages], np.uint8)
        yield self._array([s.lasts for s in storages], np.uint8)
        yield self._array(producer, np.int64)
        yield self._array(last, np.int32)
        yield from self._transfers(np.array([s.nbytes for s in storages], dtype=np.float64))
        yield graph.resident_bytes

    def _transfers(self, nbytes: Floats) -> Iterable[int]:
        """Seconds out, back and of drag by storage, and whether both directions share a lane."""
        link = self._link
        if link is None or not (link.out_bytes_per_second and link.in_bytes_per_second):
            self.sound &= link is None
            yield from (self._array(np.zeros(len(nbytes)), np.float64) for _ in range(3))
            yield 0
            return
        yield self._array(link.latency_seconds + nbytes / link.out_bytes_per_second, np.float64)
        yield self._array(link.latency_seconds + nbytes / link.in_bytes_per_second, np.float64)
        yield self._array(nbytes * link.drag_seconds_per_byte, np.float64)
        yield int(link.shared)

    def _lists(self, lists: Sequence[Sequence[int]]) -> tuple[int, int]:
        items, storages = (
            np.array([s for some in lists for s in some], dtype=np.int64),
            len(self.model.graph.storages),
        )
        self.sound &= not len(items) or 0 <= int(items.min()) <= int(items.max()) < storages
        starts = np.cumsum([0, *map(len, lists)])
        return self._array(starts, np.int64), self._array(items, np.int64)

    def _array(self, values: object, dtype: type[np.generic]) -> int:
        self._arrays.append(np.array(values, dtype=dtype))
        return self._arrays[-1].ctypes.data

    def run(self, decisions: Decisions, curve: int = 0, seconds: int = 0) -> tuple[float, int, int] | None:
        """As `Scorer.score`; None where the reference has to answer. `curve`, `seconds`: addresses to fill."""
        known = self._known
        try:
            chosen = array("q", list(map(known.__getitem__, map(id, decisions))))
        except KeyError:
            self._learn(decisions)
            chosen = array("q", list(map(known.__getitem__, map(id, decisions))))
        return self._asked(chosen, curve, seconds)

    def run_rows(
        self, rows: Ints, regions: Ints, curve: int = 0, seconds: int = 0
    ) -> tuple[float, int, int] | None:
        """As `run`, of a plan whose decisions are these rows, and nothing is kept of them."""
        kept = self._block[_ROWS], self._block[_REGIONS]
        self._block[_ROWS], self._block[_REGIONS] = rows.ctypes.data, regions.ctypes.data
        try:
            return self._asked(array("q", range(len(rows))), curve, seconds)
        finally:
            self._block[_ROWS], self._block[_REGIONS] = kept

    def _asked(self, chosen: array[int], curve: int, seconds: int) -> tuple[float, int, int] | None:
        address, count = chosen.buffer_info()
        assert native.kernels is not None
        found = native.kernels.plan_score(self._address, address, count, curve, seconds)
        if isinstance(found, int) and found != _NO_PLAN:  # bytes of scratch; some more spare the next call
            self._scratch = self._reserve(_SCRATCH, np.zeros(found // 4, dtype=np.int64))
            self._block[_SCRATCH_BYTES] = self._scratch.nbytes
            found = native.kernels.plan_score(self._address, address, count, curve, seconds)
        return None if isinstance(found, int) else found

    def _learn(self, decisions: Decisions) -> None:
        """Rows for what is new; what was known goes where the table is full."""
        fresh = {id(d): d for d in decisions if id(d) not in self._known}
        if len(self._kept) + len(fresh) > len(self._rows):
            self._known.clear()
            self._kept.clear()
            self._used = 0
            fresh = {id(d): d for d in decisions}
            if len(fresh) > len(self._rows):
                self._rows = self._reserve(_ROWS, np.zeros((2 * len(fresh), _ROW), dtype=np.int64))
        first = len(self._kept)
        regions = [op for d in fresh.values() for op in d.region]
        if self._used + len(regions) > len(self._regions):
            grown = np.zeros(2 * (self._used + len(regions)), dtype=np.int64)
            grown[: self._used] = self._regions[: self._used]
            self._regions = self._reserve(_REGIONS, grown)
        self._regions[self._used : self._used + len(regions)] = regions
        rows = [self._row(d) for d in fresh.values()]
        self._rows[first : first + len(rows)] = rows
        self._kept += fresh.values()
        self._known.update(zip(fresh, range(first, first + len(rows))))

    def _row(self, d: Decision) -> tuple[int, ...]:
        """Its columns; an action of -1 is left to the reference, to do or to refuse."""
        does = ACTIONS.get(d.action)
        action, encoded, coding = does.score_number if does else -1, 0, 0
        if does and does.encodes:
            encoded, coding = d.encoded_bytes, self.coding(d.codec, d.storage, d.encoded_bytes)
        elif d.codec or d.encoded_bytes:
            action = -1
        if coding < 0 or (does and does.travels and (self._link is None or d.tier != self.tier)):
            action, coding = -1, 0
        at, length = self._used, len(d.region)
        self._used += length
        return (
            d.storage, action, d.after, d.free_before, d.fetch_before, d.before, encoded, coding, at, length
        )  # fmt: skip

    def coding(self, codec: str, storage: int, encoded: int) -> int:
        """The row of seconds of a storage in a codec's form, -1 where the codec has no rate."""
        key = (codec, storage, encoded)
        if (known := self._coded.get(key)) is not None:
            return known
        try:
            row = self._seconds(codec, storage, encoded)
        except (PlanError, ZeroDivisionError, IndexError):
            return self._coded.setdefault(key, -1)
        index = self._coded[key] = 1 + len(self._coded)
        if index >= len(self._codings):
            grown = np.zeros((2 * index, _CODED))
            grown[: len(self._codings)] = self._codings
            self._codings = self._reserve(_CODINGS, grown)
        self._codings[index] = row
        return index

    def _seconds(self, codec: str, storage: int, encoded: int) -> tuple[float, ...]:
        profile, size = self.model.profile, self.model.graph.storages[storage].nbytes
        rate, moved = codec_rate(profile, codec, storage), encoded or size
        codes = size / rate.encode_bytes_per_second, size / rate.decode_bytes_per_second
        if self._link is None:
            return (*codes, 0.0, 0.0, 0.0)
        drag = moved * self._link.drag_seconds_per_byte
        return (*codes, self._link.out_seconds(moved), self._link.in_seconds(moved), drag)
