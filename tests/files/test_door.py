"""The door of every reader: sizes before bytes, one error with file, problem and remedy, values within their ranges."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from outsize.errors import OutsizeError, UnitError
from outsize.files import Door, open_sealed, parse_json, save_sealed, seal, shown
from outsize.measure import load_hardware
from outsize.values import Decision, Plan, RunRecord, Timeline, build, from_json, to_json
from outsize.values.ranges import Range

DOOR = Door(kind="a thing", remedy="make it again", most_bytes=1000)


@pytest.mark.parametrize("what", ["missing", "folder", "pipe", "large", "device", "latin", "zero byte"])
def test_what_is_no_file_of_that_size_is_refused_unread(tmp_path: Path, what: str) -> None:
    path = tmp_path / "thing"
    problem = {
        "missing": "there is no such file", "folder": "not a regular file", "pipe": "not a regular file",
        "large": "has 2,000 bytes, at most 1,000", "device": "not a regular file", "latin": "byte 1 is not UTF-8",
        "zero byte": "null byte",
    }[what]  # fmt: skip
    if what == "folder":
        path.mkdir()
    elif what == "pipe":
        os.mkfifo(path)  # opening it would wait for a writer for ever
    elif what == "large":
        path.write_bytes(bytes(2000))
    elif what == "device":
        path = Path("/dev/zero")
    elif what == "latin":
        path.write_bytes(b"a\xe4")
    elif what == "zero byte":
        path = Path("a\0b")
    with pytest.raises(OutsizeError, match=f"cannot read a thing from .*{problem}.*; make it again"):
        DOOR.text(path)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        ('{"a": 1, "b": {"a": 1, "a": 2}}', "'a' stands twice"),
        ("[" * 10**5, "nested too deeply"),
        ("[" + "[]," * 2_500_000 + "[]]", "some 5,000,002 values"),
        ("9" * 5000, "integer"),
    ],
)  # fmt: skip
def test_json_is_bounded(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        parse_json(text)


def test_what_a_file_says_is_shown_short_and_escaped() -> None:
    assert shown("a\x1b[31m\nä" + "x" * 10**6).isascii()
    assert len(shown("x" * 10**6)) < 100
    assert len(shown(10**5000)) < 100
    assert len(shown([["x" * 100] * 100] * 100)) < 300


def record(**changes: Any) -> dict[str, Any]:
    whole = {
        "budget_bytes": 1, "plain_peak_bytes": 2, "predicted_peak_bytes": 3, "measured_peak_bytes": 4,
        "resident_bytes": 5, "swapped_out_bytes": 6, "swapped_in_bytes": 7, "stall_seconds": 0.5,
        "predicted_step_seconds": 1, "measured_step_seconds": 2.0, "decisions": [], "refusals": [],
    }  # fmt: skip
    return {**whole, **changes}


DECISION = {"storage": 1, "action": "swap", "after": 1, "before": 5, "free_before": 2, "fetch_before": 4}
TIMELINE = {"seconds": 1.0, "stall_seconds": 0.0, "residency": [1, 2], "starts": [0.0, 0.5]}


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"budget_bytes": True}, r"RunRecord.budget_bytes is True, not a whole number"),
        ({"budget_bytes": 1.0}, "budget_bytes is 1.0, not a whole number"),
        ({"budget_bytes": -1}, "budget_bytes is -1, not from 0 to"),
        ({"budget_bytes": 2**63}, "not from 0 to"),
        ({"stall_seconds": math.nan}, "stall_seconds is nan"),
        ({"stall_seconds": 10**400}, "digits, not from"),
        ({"stall_seconds": "1"}, "stall_seconds is '1', not a number"),
        ({"losses": [1.0, "x"]}, r"losses\[1\] is 'x'"),
        ({"planner": "\ud800"}, "not Unicode"),
        ({"planner": "x" * 200_000}, "200,000 characters"),
        ({"nonsense": 1}, "has 'nonsense', which a RunRecord does not have"),
        ({"decisions": {}}, "decisions is {}"),
        ({"decisions": [{**DECISION, "after": -1}]}, r"decisions\[0\].after is -1"),
        ({"decisions": [{**DECISION, "action": "fly"}]}, r"decisions\[0\].action is 'fly'"),
        ({"decisions": [{"storage": 1}]}, r"decisions\[0\] lacks action, after"),
        ({"timeline": {**TIMELINE, "starts": [0.0]}}, "timeline: 2 residencies at 1 starts"),
    ],
)  # fmt: skip
def test_each_misfit_is_named(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(OutsizeError, match=problem):
        from_json(RunRecord, json.dumps(record(**changes)))


def test_what_a_run_that_diverged_writes_is_read() -> None:
    text = json.dumps(record(losses=[1.0, math.nan, math.inf], validation_loss=math.nan))
    found = from_json(RunRecord, text)
    assert math.isnan(found.losses[1])
    assert math.isinf(found.losses[2])
    assert math.isnan(from_json(RunRecord, to_json(found)).validation_loss or 0.0)


def test_a_plan_saved_by_an_earlier_version_is_read() -> None:
    """Fields that came later have their defaults."""
    saved = {
        "budget_bytes": 650, "planner": "slack", "decisions": [{**DECISION, "tier": "disk"}], "refusals": [],
        "plain_peak_bytes": 900, "predicted_peak_bytes": 640, "plain_step_seconds": 18, "predicted_step_seconds": 19.5,
        "resident_bytes": 160,
    }  # fmt: skip
    plan = from_json(Plan, json.dumps(saved))
    assert plan.decisions == (Decision(**{**DECISION, "tier": "disk"}),)
    assert (plan.plain_step_seconds, plan.estimated) == (18.0, False)
    assert from_json(Plan, plan.to_json()) == plan


@dataclasses.dataclass(frozen=True)
class Odd:
    pair: tuple[int, str] = (1, "a")
    by_number: dict[int, float] = dataclasses.field(default_factory=dict)
    share: Annotated[float, Range(0.0, 1.0)] = 0.5
    line: Timeline | None = None


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        ({"pair": [1, "a", 2]}, "pair has 3 values, not 2"),
        ({"pair": [1]}, "pair has 1 values, not 2"),
        ({"by_number": {"one": 1.0}}, "key 'one', not a whole number"),
        ({"by_number": {"1": None}}, "by_number.'1' is None"),
        ({"by_number": {"9" * 4000: None}}, "by_number.'9{1,40}[.]{3}9{1,40}' is None"),
        ({"share": 1.5}, "share is 1.5, not from 0 to 1"),
        ({"line": 3}, "line is 3, not a Timeline"),
        (3, "Odd is 3, not a Odd"),
    ],
)  # fmt: skip
def test_other_types(data: Any, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        build(Odd, data)
    assert build(Odd, {"pair": [2, "b"], "by_number": {"7": 1}}) == Odd((2, "b"), {7: 1.0})


HARDWARE = (
    'name = "x"\nmemory_bytes = 10\nmemory_bytes_per_second = 1e9\n[flops_per_second]\nfloat32 = 1e12\n'
)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (HARDWARE.replace("float32", "bfloat16"), "needs float32"),
        (HARDWARE.replace("1e12", "0.0"), "flops_per_second.float32 is 0.0"),
        (HARDWARE.replace("1e12", "inf"), "float32 is inf"),
        (HARDWARE.replace("10", "true", 1), "memory_bytes is True"),
        (HARDWARE + "[links.disk]\nout_bytes_per_second = 1e9\n", "links.disk lacks in_bytes_per_second"),
        (HARDWARE + "[links.disk]\nout_bytes_per_second = 0\nin_bytes_per_second = 1\n", "out_bytes_per_second is 0"),
        ("allow_tf32 = true\n" + HARDWARE, "has no tf32"),
        ("a = [" * 3000, "nested too deeply|not TOML"),
        ("#" * 20_000, "at most 16,384"),
    ],
)  # fmt: skip
def test_hardware_is_held_against_what_an_estimate_needs(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(UnitError, match=f"hardware from .*mine.toml: .*({problem}).*; see the files in"):
        load_hardware(str(path))
    path.write_text(HARDWARE)
    assert load_hardware(str(path)).memory_bytes == 10


def saved(path: Path) -> bytes:
    arrays = {"a": np.arange(5, dtype=np.int32), "b": np.array(2.5), "c": np.zeros((0, 3), np.int64),
              "d": np.array([True, False])}  # fmt: skip
    save_sealed(path, arrays, format="test", version=3, about={"texts": ['\\"checksum\\": \\"' + "f" * 32]})
    return path.read_bytes()


BIG = Door(kind="a test's arrays", remedy="save them again")


def test_arrays_come_back_and_every_bit_counts(tmp_path: Path) -> None:
    path = tmp_path / "x.arrays"
    data = saved(path)
    found = open_sealed(path, BIG, format="test", version=3)
    assert found.arrays["a"].tolist() == [0, 1, 2, 3, 4]
    assert [found.arrays[n].shape for n in "abcd"] == [(5,), (), (0, 3), (2,)]
    assert path.stat().st_mode & 0o777 == 0o666 & ~_mask()
    assert [p.name for p in tmp_path.iterdir()] == ["x.arrays"]
    for bit in range(8 * len(data)):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        with pytest.raises(
            OutsizeError, match=r"cannot read a test's arrays from .*x\.arrays: .*; save them again"
        ):
            open_sealed(path, BIG, format="test", version=3)
    for end in range(len(data)):
        path.write_bytes(data[:end])
        with pytest.raises(OutsizeError, match="cannot read"):
            open_sealed(path, BIG, format="test", version=3)


def _mask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_other_safetensors_files_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "x"
    save_file({"a": np.zeros(3)}, str(path))
    with pytest.raises(OutsizeError, match="not a test's arrays: this package did not write it"):
        open_sealed(path, BIG, format="test", version=3)
    head = json.dumps({"format": "test", "version": 3, "content": "x"})
    save_file({"a": np.zeros(3)}, str(path), metadata={"outsize": head})
    with pytest.raises(OutsizeError, match="holds no checksum: an earlier version wrote it"):
        open_sealed(path, BIG, format="test", version=3)
    saved(path)
    with pytest.raises(OutsizeError, match="holds 'test', version 3; this version reads 'test', version 4"):
        open_sealed(path, BIG, format="test", version=4)


def header_changed(path: Path, change: Any) -> None:
    """A header that was written on purpose: container and checksum fit."""
    data = saved(path)
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])
    seal(path)


HEADERS = {
    "a dtype that is not read": (lambda h: h["a"].update(dtype="BF16"), "dtype 'BF16'"),
    "a dtype that is no text": (lambda h: h["a"].update(dtype=[]), "dtype"),
    "a shape of another size": (lambda h: h["a"].update(shape=[6]), "lies in other bytes"),
    "a shape that wraps": (lambda h: h["a"].update(shape=[2**61, 2**61]), "lies in other bytes"),
    "a shape below zero": (lambda h: h["a"].update(shape=[-5]), "no usable shape"),
    "a truth value for a size": (lambda h: h["d"].update(shape=[True, 2]), "no usable shape"),
    "a hole": (lambda h: h["a"].update(data_offsets=[x + 4 for x in h["a"]["data_offsets"]]), "begins at byte"),
    "two in one place": (lambda h: h.update(e=h["a"]), "begins at byte"),
    "one less": (lambda h: h.pop("d"), "are described"),
    "no entry": (lambda h: h.update(a=3), "not described"),
    "an entry with more": (lambda h: h["a"].update(more=1), "not described"),
}  # fmt: skip


@pytest.mark.parametrize("fault", HEADERS)
def test_a_header_that_lies_is_refused(tmp_path: Path, fault: str) -> None:
    change, problem = HEADERS[fault]
    header_changed(tmp_path / "x", change)
    with pytest.raises(OutsizeError, match=problem):
        open_sealed(tmp_path / "x", BIG, format="test", version=3)


def test_truth_values_are_zero_or_one(tmp_path: Path) -> None:
    path = tmp_path / "x"
    data = bytearray(saved(path))
    at = bytes(data).rindex(b"\x01\x00")
    data[at] = 7
    path.write_bytes(data)
    seal(path)
    with pytest.raises(OutsizeError, match="truth values other than 0 and 1"):
        open_sealed(path, BIG, format="test", version=3)


def test_what_could_not_be_read_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("outsize.files.door.MOST_VALUES", 100)
    with pytest.raises(OutsizeError, match="is not written, since it could not be read: it holds some"):
        save_sealed(
            tmp_path / "x", {"a": np.zeros(1)}, format="test", version=3, about={"texts": ["a"] * 200}
        )
    assert list(tmp_path.iterdir()) == []
