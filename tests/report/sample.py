"""A small record with every part filled in, for the report's tests."""

from outsize.values import Decision, LaneSpan, Refusal, RunRecord, Timeline

MIB = 2**20


def timeline(residency: list[int], stall: float = 0.0) -> Timeline:
    """One entry per residency value, 10 ms each, a wait before the last one."""
    starts = [0.01 * i for i in range(len(residency))]
    starts[-1] += stall
    spans = [
        LaneSpan(lane="compute", start=s, end=s + 0.01, entry=i, label=f"op_{i}")
        for i, s in enumerate(starts)
    ]
    spans += [
        LaneSpan(lane="out", start=0.01, end=0.02, entry=1, label="swap_out relu_1"),
        LaneSpan(lane="in", start=0.02, end=0.02 + 0.01 + stall, entry=2, label="fetch relu_1"),
    ]
    return Timeline(
        seconds=starts[-1] + 0.01,
        stall_seconds=stall,
        residency=tuple(v * MIB for v in residency),
        starts=tuple(starts),
        spans=tuple(spans),
    )


def decision(storage: int, action: str, **more: object) -> Decision:
    return Decision(
        storage=storage, action=action, after=1, before=4, free_before=2, fetch_before=3, seconds=0.02, **more
    )


def record(**changes: object) -> RunRecord:
    fields: dict = {
        "budget_bytes": 60 * MIB,
        "plain_peak_bytes": 100 * MIB,
        "predicted_peak_bytes": 58 * MIB,
        "measured_peak_bytes": 57 * MIB,
        "resident_bytes": 20 * MIB,
        "swapped_out_bytes": 30 * MIB,
        "swapped_in_bytes": 30 * MIB,
        "stall_seconds": 0.004,
        "predicted_step_seconds": 0.054,
        "measured_step_seconds": 0.055,
        "plain_step_seconds": 0.05,
        "decisions": (
            decision(0, "swap", tier="disk", reason="slack 0.03 s"),
            decision(1, "recompute", region=(2,)),
            decision(2, "encode", codec="relu"),
        ),
        "refusals": (
            Refusal(storage=3, reason="TOO_SMALL", detail="4 KiB"),
            Refusal(storage=4, reason="RANDOM"),
        ),
        "planner": "search",
        "recomputed_flops": 10**9,
        "plain_flops": 10**10,
        "encoded_bytes": 5 * MIB,
        "rss_peak_bytes": 400 * MIB,
        "steps": 3,
        "planning_seconds": 0.2,
        "storage_names": ("relu_1", "gelu_<2>", "relu_3", "bias", "dropout"),
        "storage_bytes": (30 * MIB, 10 * MIB, 8 * MIB, 4096, MIB),
        "notes": ("a <note>",),
        "losses": (5.5, 4.0, 3.0),
        "validation_loss": 3.1,
        "validation_loss_before": 5.6,
        "plain_timeline": timeline([40, 70, 100, 80, 60]),
        "timeline": timeline([40, 58, 58, 50, 40], stall=0.004),
    }
    return RunRecord(**{**fields, **changes})
