"""Masks in place of nonzeros: where they are enough, and that check names a reader that needs the values."""

from dataclasses import replace

import pytest

from outsize.errors import PlanError
from outsize.plan import check
from outsize.plan.schedule.lower import lower_decisions
from outsize.plan.schedule.masks import mask_bytes, with_masks
from outsize.values import CodecRate, Decision, Op, OpCost, Profile, StepGraph, Storage

RATE = CodecRate(encode_bytes_per_second=1e9, decode_bytes_per_second=1e9, ratio=0.5)


def step(mask_from: int) -> tuple[StepGraph, Profile]:
    """0 makes a storage, 1 reads it, 2 is the loss, 3 is its ReLU's backward."""

    def op(index: int, phase: str, reads: tuple[int, ...], writes: tuple[int, ...]) -> Op:
        return Op(index=index, name=f"op{index}", target="t", phase=phase, reads=reads, writes=writes)  # type: ignore[arg-type]

    ops = (
        op(0, "forward", (), (0,)),
        op(1, "forward", (0,), (1,)),
        op(2, "outside", (1,), (2,)),
        op(3, "backward", (0, 2), ()),
    )
    kinds = ("activation", "output", "activation")
    uses = ((1, 3), (2,), (3,))
    storages = tuple(
        Storage(index=i, name=f"s{i}", nbytes=4096, kind=kind, producer=i, uses=uses[i], zeros=i == 0,  # type: ignore[arg-type]
                mask_from=mask_from if i == 0 else -1)
        for i, kind in enumerate(kinds)
    )  # fmt: skip
    profile = Profile(ops=(OpCost(seconds=1.0),) * 4, codecs={"relu": RATE, "mask": RATE})
    return StepGraph(ops=ops, storages=storages), profile


KEEP = Decision(
    storage=0,
    action="encode",
    after=1,
    before=3,
    free_before=2,
    fetch_before=3,
    codec="relu",
    encoded_bytes=2048,
)


def test_a_mask_serves_a_sign_reader() -> None:
    graph, profile = step(mask_from=2)
    (decision,) = with_masks(graph, profile, [KEEP])
    assert (decision.codec, decision.encoded_bytes) == ("mask", 128)
    assert mask_bytes(graph, 0) == 4096 // 32
    check(graph, profile, lower_decisions(graph, (decision,)), 1 << 20)


@pytest.mark.parametrize("mask_from", [-1, 4])
def test_values_are_kept_where_they_are_read(mask_from: int) -> None:
    graph, profile = step(mask_from)
    assert with_masks(graph, profile, [KEEP]) == (KEEP,)


def test_check_names_a_reader_of_lost_values() -> None:
    graph, profile = step(mask_from=-1)
    wrong = replace(KEEP, codec="mask", encoded_bytes=128)
    with pytest.raises(PlanError, match="back as a mask"):
        check(graph, profile, lower_decisions(graph, (wrong,)), 1 << 20)


def test_a_region_that_runs_again_keeps_the_values() -> None:
    graph, profile = step(mask_from=2)
    again = replace(
        KEEP, storage=1, action="recompute", after=2, before=3, region=(1,), codec="", encoded_bytes=0
    )
    assert with_masks(graph, profile, [KEEP, again])[0].codec == "relu"
