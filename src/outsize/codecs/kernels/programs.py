"""The codec's GPU programs in Triton: reduction, scan, copy, and their fusion into one reading of memory.

A program handles a tile of four blocks. `encode` is the whole of claim 1 in one launch: the tile is read
once, its bitmap and counts are written, and where its values start is learnt by decoupled look-back: every
tile publishes its count, then adds up the counts before it until it meets a tile that already knows its own
prefix (Merrill and Garland, "Single-pass parallel prefix scan with decoupled look-back", 2016). A state is
one 64-bit word, count · 4 + flag, so that a reader never sees one without the other. Tiles are numbered by an
atomic counter, in the order in which they start, so the tiles that one waits for are running.

`count`, `scan` and `copy` are the three steps apart, for when the buffer is allocated in between.

Elements are signed integers of the tensor's width. Whole tiles are read and written without a mask, which
keeps the accesses 16 bytes wide whatever the number of elements.
"""

# mypy: disable-error-code="untyped-decorator, no-untyped-def"
from __future__ import annotations

import triton
import triton.language as tl

BLOCKS: tl.constexpr = tl.constexpr(4)
BLOCK: tl.constexpr = tl.constexpr(1024)
TILE: tl.constexpr = tl.constexpr(4096)
WORDS: tl.constexpr = tl.constexpr(128)
WINDOW: tl.constexpr = tl.constexpr(128)
KEY: tl.constexpr = tl.constexpr(0x9E3779B1)
LOW: tl.constexpr = tl.constexpr(0xFFFFFFFF)
NONZERO: tl.constexpr = tl.constexpr(0)
RELU: tl.constexpr = tl.constexpr(1)


@triton.jit
def load_tile(x, tile, n):
    """The tile's elements, zero beyond the end."""
    i = tl.arange(0, TILE)
    at = x + tile * TILE
    if tile * TILE + TILE <= n:
        v = tl.load(at + i)
    else:
        v = tl.load(at + i, mask=i < n - tile * TILE, other=0)
    return v


@triton.jit
def store_tile(y, v, tile, n):
    i = tl.arange(0, TILE)
    at = y + tile * TILE
    if tile * TILE + TILE <= n:
        tl.store(at + i, v)
    else:
        tl.store(at + i, v, mask=i < n - tile * TILE)


@triton.jit
def marks(v, neg_inf, MARK: tl.constexpr, FLOAT: tl.constexpr):
    """`contract.Mark` on bit patterns: as signed numbers, negative NaNs lie between −inf's bits and zero."""
    if MARK == NONZERO:
        bits = v != 0
    else:
        bits = (v > 0) | ((v > neg_inf.to(v.dtype)) & (v < 0))
        if (MARK == RELU) and FLOAT:
            bits = bits | ((v < 0) & (v + v == 0))  # −0.0: only the sign bit
    return bits.to(tl.int32)


@triton.jit
def weigh(words, k):
    """Digest terms (uint64) of 32-bit words (uint32) at the positions k (uint32) of their buffer."""
    return words.to(tl.uint64) * ((k * KEY) | 1).to(tl.uint64)


@triton.jit
def digest_words(words, first):
    k = first.to(tl.uint32) + tl.arange(0, words.shape[0]).to(tl.uint32)
    return tl.sum(weigh(words.to(tl.uint32, bitcast=True), k), 0).to(tl.int64)


@triton.jit
def digest_values(v, keep, rank, byte, SIZE: tl.constexpr):
    """Digest terms of kept elements, the one of rank 0 at a `byte` of their buffer (int64; the rest is 32 bits wide)."""
    word = (byte >> 2).to(tl.uint32)
    v = tl.where(keep, v, 0).to(v.dtype)  # adds nothing, and narrower than its term
    if SIZE == 8:
        bits, k = v.to(tl.uint64, bitcast=True), word + 2 * rank.to(tl.uint32)
        terms = weigh((bits & LOW).to(tl.uint32), k) + weigh((bits >> 32).to(tl.uint32), k + 1)
    elif SIZE == 4:
        terms = weigh(v.to(tl.uint32, bitcast=True), word + rank.to(tl.uint32))
    elif SIZE == 2:
        place = rank.to(tl.uint32) + ((byte >> 1) & 1).to(tl.uint32)
        terms = weigh(v.to(tl.uint16, bitcast=True).to(tl.uint32) << ((place & 1) * 16), word + (place >> 1))
    else:
        place = rank.to(tl.uint32) + (byte & 3).to(tl.uint32)
        terms = weigh(v.to(tl.uint8, bitcast=True).to(tl.uint32) << ((place & 3) * 8), word + (place >> 2))
    return tl.sum(terms, 0).to(tl.int64)


@triton.jit
def to_words(bits):
    """One bit per element, least significant first."""
    return tl.sum(tl.reshape(bits, (WORDS, 32)) << tl.arange(0, 32)[None, :], 1)


@triton.jit
def from_words(words):
    return tl.reshape((words[:, None] >> tl.arange(0, 32)[None, :]) & 1, (TILE,))


@triton.jit
def write_head(bits, table, bitmap, facts, tile, n, first_word):
    """The tile's counts and bitmap, and their part of the digest. Returns the tile's number of nonzeros."""
    words = to_words(bits)
    w = tl.arange(0, WORDS)
    room = (n + 127) // 128 * 4 - tile * WORDS  # the region is padded to 16 bytes
    tl.store(bitmap + tile * WORDS + w, words, mask=w < room)
    counts = tl.sum(tl.reshape(bits, (BLOCKS, BLOCK)), 1)
    tl.store(
        table + tile * BLOCKS + tl.arange(0, BLOCKS), counts
    )  # four counts are 16 bytes: no padding left
    digest = digest_words(words, first_word + tile * WORDS) + digest_words(counts, tile * BLOCKS)
    tl.atomic_add(facts + 1, digest, sem="relaxed")
    return tl.sum(counts, 0).to(tl.int64)


@triton.jit
def note_negative(v, facts):
    if tl.min(v, 0) < 0:
        tl.atomic_max(facts + 2, 1, sem="relaxed")


@triton.jit
def look_back(state, tile, count):
    """The number of values before this tile; publishes first the tile's count, then its prefix."""
    tl.atomic_xchg(state + tile, count * 4 + 1, sem="release")
    before = count - count
    behind = tile - 1
    j = tl.arange(0, WINDOW)
    while behind >= 0:
        seen = tl.load(state + behind - j, mask=j <= behind, other=2, volatile=True)
        flag = seen & 3
        known = tl.min(tl.where(flag == 2, j, WINDOW), 0)
        if tl.max(tl.where((flag == 0) & (j <= known), 1, 0), 0) == 0:
            before += tl.sum(tl.where(j <= known, seen >> 2, 0), 0)
            behind = tl.where(known < WINDOW, -1, behind - WINDOW).to(behind.dtype)
    tl.atomic_xchg(state + tile, (before + count) * 4 + 2, sem="release")
    return before


@triton.jit
def within_tile(count):
    """A number of elements (int64), as far as one tile's ranks need it (int32)."""
    return tl.minimum(tl.maximum(count, 0), TILE).to(tl.int32)


@triton.jit
def write_values(v, bits, values, facts, before, room, head_bytes, SIZE: tl.constexpr):
    """The tile's nonzeros from the index `before` on, where they fit, and their part of the digest."""
    rank = tl.cumsum(bits, 0) - bits
    keep = (bits != 0) & (rank < within_tile(room - before))
    tl.store(values + before + rank, v, mask=keep)
    tl.atomic_add(facts + 1, digest_values(v, keep, rank, head_bytes + before * SIZE, SIZE), sem="relaxed")


@triton.jit
def encode(
    x, y, table, bitmap, values, state, counter, facts, n, room, head_bytes, table_words, neg_inf,
    FUSED: tl.constexpr, MARK: tl.constexpr, SIZE: tl.constexpr,
):  # fmt: skip
    """Claim 1 in one pass. With FUSED, y = relu(x) is written and encoded; MARK says whether it keeps −0.0."""
    tile = tl.atomic_add(counter, 1, sem="relaxed").to(tl.int64)
    v = load_tile(x, tile, n)
    if FUSED:
        v = tl.where(marks(v, neg_inf, MARK, True) != 0, v, 0).to(v.dtype)
        store_tile(y, v, tile, n)
    bits = marks(v, neg_inf, NONZERO, False)
    note_negative(v, facts)
    count = write_head(bits, table, bitmap, facts, tile, n, table_words)
    before = look_back(state, tile, count)
    write_values(v, bits, values, facts, before, room, head_bytes, SIZE)
    if tile * TILE + TILE >= n:
        tl.store(facts, before + count)


@triton.jit
def count(x, table, bitmap, facts, n, table_words):
    """Step 1 and 2: bitmap and number table."""
    tile = tl.program_id(0).to(tl.int64)
    v = load_tile(x, tile, n)
    bits = marks(v, 0, NONZERO, False)
    note_negative(v, facts)
    write_head(bits, table, bitmap, facts, tile, n, table_words)


@triton.jit
def scan(table, index, state, counter, facts, blocks):
    """Step 3: index[i] = Σ table[:i], for all blocks; the total into facts[0]."""
    tile = tl.atomic_add(counter, 1, sem="relaxed").to(tl.int64)
    i = tl.arange(0, BLOCK)
    inside = i < blocks - tile * BLOCK
    counts = tl.load(table + tile * BLOCK + i, mask=inside, other=0).to(tl.uint32, bitcast=True).to(tl.int64)
    total = tl.sum(counts, 0)
    before = look_back(state, tile, total)
    tl.store(index + tile * BLOCK + i, before + tl.cumsum(counts, 0) - counts, mask=inside)
    if tile * BLOCK + BLOCK >= blocks:
        tl.store(facts, before + total)


@triton.jit
def copy(x, values, index, facts, n, room, head_bytes, SIZE: tl.constexpr):
    """Step 5: the nonzeros to their places."""
    tile = tl.program_id(0).to(tl.int64)
    v = load_tile(x, tile, n)
    before = tl.load(index + tile * BLOCKS)
    write_values(v, marks(v, 0, NONZERO, False), values, facts, before, room, head_bytes, SIZE)


@triton.jit
def decode(
    table, bitmap, values, index, facts, y, n, room, head_bytes, table_words,
    SIZE: tl.constexpr, VERIFY: tl.constexpr,
):  # fmt: skip
    """Clears and scatters in one writing of y; facts = [–, digest, smallest bad block]."""
    tile = tl.program_id(0).to(tl.int64)
    w = tl.arange(0, WORDS)
    words = tl.load(bitmap + tile * WORDS + w, mask=w < (n + 127) // 128 * 4 - tile * WORDS, other=0)
    bits = from_words(words)
    before = tl.load(index + tile * BLOCKS)
    rank = tl.cumsum(bits, 0) - bits
    # A damaged table leads nowhere else.
    keep = (bits != 0) & (rank >= within_tile(-before)) & (rank < within_tile(room - before))
    v = tl.load(values + before + rank, mask=keep, other=0)
    store_tile(y, v, tile, n)
    if VERIFY:
        b = tl.arange(0, BLOCKS)
        counts = tl.load(table + tile * BLOCKS + b)
        beyond = tl.where(tl.arange(0, TILE) >= n - tile * TILE, bits, 0)
        wrong = (counts != tl.sum(tl.reshape(bits, (BLOCKS, BLOCK)), 1)) | (tl.max(beyond, 0) != 0)
        bad = tl.min(tl.where(wrong, tile * BLOCKS + b, (n + BLOCK - 1) // BLOCK), 0)
        tl.atomic_min(facts + 2, bad, sem="relaxed")
        digest = digest_words(words, table_words + tile * WORDS) + digest_words(counts, tile * BLOCKS)
        digest += digest_values(v, keep, rank, head_bytes + before * SIZE, SIZE)
        tl.atomic_add(facts + 1, digest, sem="relaxed")


@triton.jit
def mark(x, bitmap, facts, n, neg_inf, MARK: tl.constexpr, FLOAT: tl.constexpr):
    """One bit per element."""
    tile = tl.program_id(0).to(tl.int64)
    words = to_words(marks(load_tile(x, tile, n), neg_inf, MARK, FLOAT))
    w = tl.arange(0, WORDS)
    tl.store(bitmap + tile * WORDS + w, words, mask=w < (n + 127) // 128 * 4 - tile * WORDS)
    tl.atomic_add(facts + 1, digest_words(words, tile * WORDS), sem="relaxed")


@triton.jit
def select(x, one, bitmap, y, facts, n, CONSTANT: tl.constexpr):
    """y = x, or the bit pattern `one`, where the bit is set, else zero."""
    tile = tl.program_id(0).to(tl.int64)
    w = tl.arange(0, WORDS)
    words = tl.load(bitmap + tile * WORDS + w, mask=w < (n + 127) // 128 * 4 - tile * WORDS, other=0)
    if CONSTANT:
        v = (tl.zeros((TILE,), dtype=tl.int64) + one).to(
            y.dtype.element_ty
        )  # a one is a constant of the program
    else:
        v = load_tile(x, tile, n)
    store_tile(y, tl.where(from_words(words) != 0, v, 0).to(y.dtype.element_ty), tile, n)
    tl.atomic_add(facts + 1, digest_words(words, tile * WORDS), sem="relaxed")


@triton.jit
def digest(x, facts, n):
    """The digest of a buffer of n 32-bit words."""
    tile = tl.program_id(0).to(tl.int64)
    tl.atomic_add(facts + 1, digest_words(load_tile(x, tile, n), tile * TILE), sem="relaxed")
