"""Which gradients travel together.

Problem: one message per layer pays a latency per layer; one message per step hides nothing behind the
backward pass. Method 5 groups layers into *chunks*, "other than a last layer", and synchronises a chunk while
the backward pass of the next one runs.

Mechanism: parameters, in the order in which their gradients become ready, are laid into chunks of at most
`chunk_bytes`; a parameter larger than that is split. Our reading of "the last layer" is the layer whose
gradients come last, the network's first: nothing is left of the backward pass to hide behind, so it shares
no chunk with others (`ChunkPlan.tail`). Each worker of a node owns one slice of every chunk, and nothing in
here moves a byte: parameters keep their place in memory whatever the chunks are, so a plan can be
exchanged for another between two steps.

Offsets and lengths are in elements; slices and pieces start at multiples of `ALIGN` elements so that
two workers never write the same cache line. This file is pure: no torch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

#: Elements; 64 bytes of the narrowest element (one byte), so a slice begins on its own cache line.
ALIGN = 64


@dataclass(frozen=True, kw_only=True)
class Slot:
    """One trainable parameter: its place in the space of its element type.

    Attributes:
        name: fully qualified name (the first one, if tied).
        space: element type, such as `"float32"`; a chunk never mixes two.
        offset: first element in the space; a multiple of `ALIGN`.
        length: elements.
        itemsize: bytes per element.
        layer: name of the module that owns it.
    """

    name: str
    space: str
    offset: int
    length: int
    itemsize: int
    layer: str


@dataclass(frozen=True, kw_only=True)
class Piece:
    """A run of one slot inside a chunk: `length` elements from `start` in the slot, at `staged` in the chunk.

    Attributes:
        slot: index of the parameter among the slots.
        start: first element in the slot.
        length: in elements.
        staged: first element in the chunk.
    """

    slot: int
    start: int
    length: int
    staged: int


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """Parameters synchronised together.

    Attributes:
        space: element type, such as `"float32"`.
        itemsize: bytes of an element.
        pieces: the parameters' places in it.
        length: in elements, padding included.
    """

    space: str
    itemsize: int
    pieces: tuple[Piece, ...]
    length: int

    @property
    def n_bytes(self) -> int:
        """Size in bytes, padding included."""
        return self.length * self.itemsize

    def cut(self, worker: int, workers: int) -> tuple[int, int]:
        """The slice `[from, to)` of this chunk that `worker` of `workers` sums and updates.

        Args:
            worker: its index on this node.
            workers: how many there are.

        Returns:
            first element, and one past the last.
        """
        blocks = -(-self.length // ALIGN)
        first, last = blocks * worker // workers, blocks * (worker + 1) // workers
        return min(first * ALIGN, self.length), min(last * ALIGN, self.length)

    def runs(self, start: int, stop: int) -> list[tuple[int, int, int, int]]:
        """`(slot, from in the slot, from in the chunk, length)` of the part `[start, stop)` of this chunk.

        Args:
            start: first element in the chunk.
            stop: one past the last.

        Returns:
            one tuple a parameter, all in elements but the slot's index.
        """
        found = []
        for piece in self.pieces:
            low, high = max(start, piece.staged), min(stop, piece.staged + piece.length)
            if low < high:
                found.append((piece.slot, piece.start + low - piece.staged, low, high - low))
        return found


@dataclass(frozen=True, kw_only=True)
class ChunkPlan:
    """Chunks in the order in which they are synchronised.

    Attributes:
        chunk_bytes: the size they were formed with.
        chunks: every slot's elements exactly once.
        tail: index of the first chunk of the last layer (see the module's text).
    """

    chunk_bytes: int
    chunks: tuple[Chunk, ...]
    tail: int

    @property
    def digest(self) -> str:
        """Equal on all workers, or they would wait for each other for ever."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()

    def __len__(self) -> int:
        return len(self.chunks)


def lay_out(shapes: Sequence[tuple[str, str, int, int, str]]) -> tuple[Slot, ...]:
    """Slots from `(name, space, length, itemsize, layer)`, packed per space in the given order."""
    ends: dict[str, int] = {}
    slots = []
    for name, space, length, itemsize, layer in shapes:
        offset = ends.get(space, 0)
        slots.append(
            Slot(name=name, space=space, offset=offset, length=length, itemsize=itemsize, layer=layer)
        )
        ends[space] = offset + -(-length // ALIGN) * ALIGN
    return tuple(slots)


def form(slots: Sequence[Slot], order: Sequence[int], chunk_bytes: int) -> ChunkPlan:
    """Chunks of at most `chunk_bytes` (at least one block of `ALIGN` elements), in the order given.

    Args:
        slots: all parameters.
        order: indices of slots as their gradients become ready; a permutation.
        chunk_bytes: upper limit of a chunk, in bytes.

    Raises:
        ValueError: `order` is not a permutation of the slots, or `chunk_bytes` is not positive.
    """
    if sorted(order) != list(range(len(slots))):
        raise ValueError(f"order must name each of the {len(slots)} slots once, got {list(order)}")
    if chunk_bytes <= 0:
        raise ValueError(f"chunk_bytes must be positive, got {chunk_bytes}")
    last_layer = slots[order[-1]].layer if order else ""
    builder = _Builder(chunk_bytes)
    tail = None
    for index in order:
        slot = slots[index]
        if slot.layer == last_layer and tail is None:
            builder.close()
            tail = len(builder.chunks)
        elif slot.layer != last_layer and tail is not None:
            builder.close()  # a layer that becomes ready in several parts: only its last run is the tail
            tail = None
        builder.add(index, slot)
    builder.close()
    return ChunkPlan(
        chunk_bytes=chunk_bytes,
        chunks=tuple(builder.chunks),
        tail=len(builder.chunks) if tail is None else tail,
    )


class _Builder:
    """Fills one chunk at a time."""

    def __init__(self, chunk_bytes: int) -> None:
        self.chunk_bytes = chunk_bytes
        self.chunks: list[Chunk] = []
        self.pieces: list[Piece] = []
        self.space = ""
        self.itemsize = 1
        self.filled = 0

    def add(self, index: int, slot: Slot) -> None:
        if slot.space != self.space:
            self.close()
            self.space, self.itemsize = slot.space, slot.itemsize
        room = max(self.chunk_bytes // slot.itemsize // ALIGN, 1) * ALIGN
        start, chunks = 0, len(self.chunks)
        if slot.length <= room < self.filled + slot.length:
            self.close()  # whole parameters stay whole where they fit
        while start < slot.length:
            if self.filled >= room:
                self.close()
            length = min(slot.length - start, room - self.filled)
            self.pieces.append(Piece(slot=index, start=start, length=length, staged=self.filled))
            start += length
            self.filled += -(-length // ALIGN) * ALIGN
        if slot.length > room and len(self.chunks) > chunks:
            self.close()  # its end waits for no other parameter, or its whole gradient would be kept until then

    def close(self) -> None:
        if self.pieces:
            chunk = Chunk(
                space=self.space, itemsize=self.itemsize, pieces=tuple(self.pieces), length=self.filled
            )
            self.chunks.append(chunk)
        self.pieces, self.filled = [], 0
