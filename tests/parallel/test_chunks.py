"""Chunks cover every element exactly once, whatever the sizes; slices partition a chunk on cache lines."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outsize.parallel.chunks import ALIGN, ChunkPlan, Slot, form, lay_out

sizes = st.lists(
    st.tuples(st.integers(1, 900), st.sampled_from(["float32", "bfloat16"]), st.integers(0, 3)),
    min_size=1,
    max_size=14,
)


def slots_of(entries: list[tuple[int, str, int]]) -> tuple[Slot, ...]:
    return lay_out(
        [
            (f"p{i}", space, n, 4 if space == "float32" else 2, f"layer{layer}")
            for i, (n, space, layer) in enumerate(entries)
        ]
    )


@given(sizes, st.integers(1, 5000), st.randoms(use_true_random=False))
@settings(max_examples=150, deadline=None)
def test_every_element_once(entries, chunk_bytes, random) -> None:
    slots = slots_of(entries)
    order = list(range(len(slots)))
    random.shuffle(order)
    plan = form(slots, order, chunk_bytes)
    seen: dict[int, list[tuple[int, int]]] = {}
    for chunk in plan.chunks:
        assert chunk.n_bytes <= max(chunk_bytes, ALIGN * chunk.itemsize)
        end = 0
        for piece in chunk.pieces:
            assert slots[piece.slot].space == chunk.space
            assert piece.staged == end
            assert piece.staged % ALIGN == 0
            end = -(-(piece.staged + piece.length) // ALIGN) * ALIGN
            seen.setdefault(piece.slot, []).append((piece.start, piece.start + piece.length))
        assert chunk.length == end
    for index, slot in enumerate(slots):
        spans = sorted(seen[index])
        assert spans[0][0] == 0
        assert spans[-1][1] == slot.length
        assert all(a[1] == b[0] for a, b in itertools.pairwise(spans))


@given(sizes, st.integers(1, 5000), st.integers(1, 7))
@settings(max_examples=100, deadline=None)
def test_slices_partition_a_chunk(entries, chunk_bytes, workers) -> None:
    slots = slots_of(entries)
    for chunk in form(slots, range(len(slots)), chunk_bytes).chunks:
        cuts = [chunk.cut(w, workers) for w in range(workers)]
        assert cuts[0][0] == 0
        assert cuts[-1][1] == chunk.length
        assert all(a[1] == b[0] for a, b in itertools.pairwise(cuts))
        assert all(start % ALIGN == 0 for start, _ in cuts)
        covered = sum(length for cut in cuts for _, _, _, length in chunk.runs(*cut))
        assert covered == sum(piece.length for piece in chunk.pieces)


def test_the_last_layer_shares_no_chunk() -> None:
    """C5.1: chunks group layers other than the last, whose gradients have nothing left to hide behind."""
    slots = slots_of([(10, "float32", 2), (10, "float32", 1), (10, "float32", 0), (10, "float32", 0)])
    plan = form(slots, [0, 1, 2, 3], 1 << 20)
    assert [[piece.slot for piece in chunk.pieces] for chunk in plan.chunks] == [[0, 1], [2, 3]]
    assert plan.tail == 1


def test_slots_do_not_overlap() -> None:
    slots = slots_of([(3, "float32", 0), (70, "float32", 0), (5, "bfloat16", 0)])
    assert [slot.offset for slot in slots] == [0, ALIGN, 0]


def test_equal_plans_have_equal_digests_and_others_do_not() -> None:
    slots = slots_of([(300, "float32", 0), (200, "float32", 1)])
    plans: list[ChunkPlan] = [form(slots, [0, 1], 512), form(slots, [0, 1], 512), form(slots, [1, 0], 512)]
    assert plans[0].digest == plans[1].digest
    assert plans[0].digest != plans[2].digest


def test_bad_arguments_are_refused() -> None:
    slots = slots_of([(3, "float32", 0)])
    with pytest.raises(ValueError, match="each of the 1 slots once"):
        form(slots, [0, 0], 8)
    with pytest.raises(ValueError, match="positive"):
        form(slots, [0], 0)
