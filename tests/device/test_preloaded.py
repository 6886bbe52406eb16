"""Another allocator in malloc's place: peaks are exact under one that counts, and the others are refused at the door."""

import ctypes.util
import os
import subprocess
import sys

import pytest
import torch

import outsize
from outsize.device import memory
from outsize.errors import OutsizeError

EXACT = """
import torch
from outsize.device import allocator, memory
assert memory.malloc_owner() == {name!r}, memory.malloc_owner()
assert allocator.install(), allocator.facts()
for nbytes in (100_000, 2_000_000, 40_000_000):
    meter = memory.PeakMeter(interval_seconds=3600.0).start()  # no sample comes to help
    before = meter.reset()
    block = torch.empty(nbytes, dtype=torch.uint8)
    del block
    over = meter.stop() - before - nbytes
    assert -70_000 < over < 70_000 + nbytes // 8, (nbytes, over)
before = memory.bytes_in_use()
kept = [torch.empty(700_000, dtype=torch.uint8) for _ in range(50)]
assert abs(memory.bytes_in_use() - before - 35_000_000) < 400_000
"""


@pytest.mark.parametrize(("name", "library"), [("jemalloc", "jemalloc"), ("tcmalloc", "tcmalloc_minimal")])
def test_peaks_are_exact(name: str, library: str) -> None:
    if (found := ctypes.util.find_library(library)) is None:
        pytest.skip(f"lib{library} is not on this machine")
    done = subprocess.run(
        [sys.executable, "-c", EXACT.format(name=name)],
        env={**os.environ, "LD_PRELOAD": found},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "call", [lambda m: outsize.compile(m, 2**30), outsize.meter], ids=["compile", "meter"]
)
@pytest.mark.parametrize(("owner", "said"), [("mimalloc", "mimalloc"), ("other", "another library")])
def test_one_that_does_not_count_is_refused(
    call, owner: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "malloc_owner", lambda: owner)
    with pytest.raises(OutsizeError, match=f"served by {said}.*env -u LD_PRELOAD.*jemalloc"):
        call(torch.nn.Linear(2, 2))
