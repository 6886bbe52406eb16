"""The swap file: where it lies, that nobody sees it, and whether its space is promised."""

import os
import stat
from pathlib import Path

import pytest
import torch

from outsize.errors import TierError
from outsize.runtime.tiers import DiskTier
from outsize.runtime.tiers.file import choose_directory, file_system

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
