"""The measurement of a disk: with what the plan needs, in bounded time, and not without a word."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from outsize import links
from outsize.device.link import EmulatedLink
from outsize.device.measure import measure_link
from outsize.runtime.tiers import DiskSettings, DiskTier
from tests.runtime.tiers.test_disk import Faulty

MIB = 2**20


@pytest.fixture(autouse=True)
def unmeasured() -> Iterator[None]:
    links.forget_links()
    yield
    links.forget_links()


class Moving:
    """A disk tier that counts what is asked of it."""

    moved = 0

    def __init__(self, *args: object, **kwargs: object) -> None:
        self.inner = DiskTier(*args, **kwargs)

    def write(self, data: torch.Tensor) -> object:
        Moving.moved += data.nbytes
        return self.inner.write(data)

    def __getattr__(self, name: str) -> object:
        return getattr(self.inner, name)

    def __enter__(self) -> "Moving":
        return self

    def __exit__(self, *_: object) -> None:
        self.inner.close()


def test_small_plans_move_little_and_larger_ones_are_measured_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(links, "DiskTier", Moving)
    seen = []
    for most in (2 * MIB, 6 * MIB, 20 * MIB, 4 * MIB):
        Moving.moved = 0
        links.disk_link(str(tmp_path), most)
        seen.append(Moving.moved)
    assert 2 * MIB < seen[0] <= 2 * 8 * MIB
    assert seen[1] == 0  # near enough
    assert seen[0] < seen[2] <= 8 * 20 * MIB
    assert seen[3] == 0


def test_a_nearly_full_disk_is_measured_with_what_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """25 MB of swap fit a disk with 168 MiB free, whatever the measurement would like to have."""
    file = Faulty(tmp_path)
    file.capacity = 3 * MIB
    monkeypatch.setattr(
        Faulty,
        "facts",
        lambda self: {"directory": str(tmp_path), "file_system": "ext4", "free_bytes": 3 * MIB},
    )
    monkeypatch.setattr(links, "DiskTier", lambda directory, settings: DiskTier(file=file, settings=settings))
    assert links.disk_link("there").out_bytes_per_second > 0


def test_a_slow_disk_is_measured_with_fewer_bytes_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    slow = DiskSettings(link=EmulatedLink(bytes_per_second=8e6))
    monkeypatch.setattr(links, "DiskTier", lambda directory, settings: DiskTier(directory, settings=slow))
    monkeypatch.setattr(links, "MOST_SECONDS", 1.0)
    monkeypatch.setattr(links, "SILENT_SECONDS", 0.1)
    moved: list[int] = []
    note = links._Progress.note
    monkeypatch.setattr(links._Progress, "note", lambda self, n: (moved.append(n), note(self, n)))
    rate = links.disk_link(str(tmp_path))
    assert rate.out_bytes_per_second <= 8e6
    assert moved[-1] < 24 * MIB  # of 960
    said = capsys.readouterr().err
    assert f"measuring the disk at {tmp_path}" in said
    assert "/s" in said


def test_a_quick_disk_is_measured_in_silence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with DiskTier(tmp_path) as tier:
        seen: list[int] = []
        measure_link(tier, nbytes=MIB, repeats=1, progress=seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == 6 * MIB
    assert capsys.readouterr().err == ""
