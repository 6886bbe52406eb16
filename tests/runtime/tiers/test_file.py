"""The swap file: where it lies, that nobody sees it, and whether its space is promised."""

import errno
import os
import stat
import subprocess
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from outsize.errors import TierError, TierFullError
from outsize.runtime.tiers import DiskTier
from outsize.runtime.tiers import file as file_module
from outsize.runtime.tiers.file import SwapFile, choose_directory, file_system

from .test_disk import random_bytes


def test_bad_directories(tmp_path: Path) -> None:
    with pytest.raises(TierError, match="does not exist"):
        DiskTier(tmp_path / "missing")
    (tmp_path / "file").write_text("")
    with pytest.raises(TierError, match="not a directory"):
        DiskTier(tmp_path / "file")
    with pytest.raises(TierError, match=r"disk=DIR"):
        DiskTier("/proc")  # exists; nobody may create files in it


def test_the_file_is_private_and_nameless(tmp_path: Path) -> None:
    tier = DiskTier(tmp_path)
    tier.write(random_bytes(10)).settle()
    assert list(tmp_path.iterdir()) == []
    links = [os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if _is(fd, tmp_path)]
    assert len(links) == 1
    fd = next(fd for fd in os.listdir("/proc/self/fd") if _is(fd, tmp_path))
    assert stat.S_IMODE(os.stat(f"/proc/self/fd/{fd}").st_mode) == 0o600
    tier.close()


def _is(fd: str, directory: Path) -> bool:
    try:
        return os.readlink(f"/proc/self/fd/{fd}").startswith(str(directory))
    except OSError:
        return False


def test_without_o_tmpfile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "O_TMPFILE")
    with DiskTier(tmp_path) as tier:
        assert tier.facts()["o_tmpfile"] is False
        assert list(tmp_path.iterdir()) == []
        assert torch.equal(tier.read(tier.write(random_bytes(99))).wait(), random_bytes(99))


def test_choosing_a_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert file_system(choose_directory()) not in ("tmpfs", "ramfs")
    assert file_system("/dev/shm") == "tmpfs"
    from outsize.runtime.tiers import file

    monkeypatch.setattr(file, "file_system", lambda path: "tmpfs")
    with pytest.raises(TierError, match=r"real disk.*tmpfs.*disk=DIR"):
        choose_directory()


MIB = 2**20


def test_a_reservation_is_kept_without_a_word(tmp_path: Path) -> None:
    with DiskTier(tmp_path) as tier:
        tier.reserve(MIB)
        if tier.facts()["file_system"] in ("ext4", "xfs"):
            assert tier.facts()["no_promise"] == ""


@pytest.mark.parametrize("kind", ["btrfs", "zfs", "bcachefs"])
def test_where_writes_go_elsewhere_planning_says_so(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_module, "file_system", lambda path: kind)
    with DiskTier(tmp_path) as tier:
        with pytest.warns(
            RuntimeWarning, match=f"fill up in the middle.*3.00 MiB.*{kind} writes to new.*disk=DIR"
        ):
            tier.reserve(3 * MIB)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            tier.reserve(4 * MIB)  # once


@pytest.mark.parametrize("code", [errno.EOPNOTSUPP, errno.ENOSYS])
def test_where_nothing_can_be_reserved_planning_says_so(
    tmp_path: Path, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_module, "_fallocate", lambda fd, offset, nbytes: code)
    with DiskTier(tmp_path) as tier:
        with pytest.warns(RuntimeWarning, match="cannot reserve space"):
            tier.reserve(MIB)
        assert torch.equal(tier.read(tier.write(random_bytes(999))).wait(), random_bytes(999))
        monkeypatch.setattr(SwapFile, "free_bytes", lambda self: MIB)
        with pytest.raises(TierFullError, match="No space left"):  # at least what is free is known
            tier.reserve(2**40)


@pytest.fixture(params=["ext2", "ext4"])
def mounted(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A small file system of that kind; only where this process may mount one."""
    image, point = tmp_path / "image", tmp_path / "mounted"
    image.write_bytes(b"")
    os.truncate(image, 24 * MIB)
    point.mkdir()
    try:
        for command in (
            ["mkfs." + request.param, "-q", "-F", str(image)],
            ["mount", "-o", "loop", str(image), str(point)],
        ):
            subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("cannot mount a file system here")
    yield point
    subprocess.run(["umount", str(point)], check=True)


def test_on_real_file_systems(mounted: Path) -> None:
    with DiskTier(mounted) as tier, warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        tier.reserve(10 * MIB)
        assert bool(tier.facts()["no_promise"]) == (tier.facts()["file_system"] == "ext2")
        assert len(said) == (tier.facts()["file_system"] == "ext2")
        assert torch.equal(tier.read(tier.write(random_bytes(MIB))).wait(), random_bytes(MIB))
        with pytest.raises(TierFullError, match=r"60\.00 MiB.*disk=DIR"):
            tier.reserve(60 * MIB)
