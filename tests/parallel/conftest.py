"""Tests of this folder that call `distribute` in the test process must leave its allocator as it was."""

from __future__ import annotations

import pytest

from outsize.device import allocator


@pytest.fixture(autouse=True)
def same_allocator(monkeypatch: pytest.MonkeyPatch) -> None:
    """The arena, once installed, stays for the life of a process; workers (processes of their own) do install it."""
    monkeypatch.setattr(allocator, "install", lambda *_: False)
