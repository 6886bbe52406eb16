"""The arena counts every byte, never lets two blocks overlap, and gives back what is idle."""

import ctypes
import gc
import itertools
import os
import subprocess
import sys
import threading

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from outsize.device import allocator, memory

MIB = 2**20


@pytest.fixture(autouse=True)
def arena() -> None:
    """Installed for good, as `outsize.compile` does; refused where malloc is another's."""
    if not allocator.install():
        pytest.skip(str(allocator.facts()["refusal"]))
    gc.collect()


def stat(name: str) -> int:
    return int(str(allocator.facts()[name]))


def pages(nbytes: int) -> int:
    return -(-nbytes // 4096) * 4096


def glibc_count() -> int:
    """What any other tool sees."""
    info = memory._mallinfo2()()
    return int(info.uordblks + info.hblkhd)


def test_large_tensors_live_on_pages_of_the_arena() -> None:
    before = stat("in_use_bytes")
    large, small = torch.empty(300_000, dtype=torch.uint8), torch.empty(200_000, dtype=torch.uint8)
    assert large.data_ptr() % 4096 == 0
    assert stat("in_use_bytes") - before == pages(300_000)
    del large, small
    assert stat("in_use_bytes") == before


def test_operators_and_zeros_too() -> None:
    before = stat("in_use_bytes")
    a = torch.zeros(512, 512)
    b = a @ a + 1
    assert b.sum() == 512 * 512
    assert stat("in_use_bytes") - before == 2 * MIB
    del a, b
    assert stat("in_use_bytes") == before


def test_glibc_counts_them_within_one_percent() -> None:
    before = glibc_count()
    tensors = [torch.empty(n * MIB, dtype=torch.uint8) for n in range(1, 24)]
    assert glibc_count() - before == pytest.approx(sum(range(1, 24)) * MIB, rel=0.01)
    assert memory.bytes_in_use() == pytest.approx(glibc_count(), rel=0.01)
    del tensors
    assert glibc_count() - before == pytest.approx(0, abs=MIB)


def test_shadow_holds_no_memory() -> None:
    rss = memory.rss_bytes()
    tensor = torch.empty(512 * MIB, dtype=torch.uint8)  # never touched
    assert memory.rss_bytes() - rss < 32 * MIB
    del tensor


def test_peak_is_exact_between_two_readings() -> None:
    meter = memory.PeakMeter(interval_seconds=3600.0).start()  # no sample comes to help
    start, high = meter.reset(), 0
    for n in (3, 40, 7):
        tensor = torch.empty(n * MIB, dtype=torch.uint8)
        high = max(high, n * MIB)
        del tensor
    assert meter.stop() - memory.bytes_in_use() == pytest.approx(high, abs=64 * 1024)
    assert start > 0


@given(st.lists(st.tuples(st.integers(1, 3 * MIB), st.integers(0, 40)), max_size=60))
@settings(max_examples=30, deadline=None)
def test_blocks_never_overlap_and_keep_their_bytes(steps: list[tuple[int, int]]) -> None:
    before, alive = stat("in_use_bytes"), []
    for index, (nbytes, victim) in enumerate(steps):
        alive.append((index, torch.empty(nbytes, dtype=torch.uint8).fill_(index)))
        if victim < len(alive):
            alive.pop(victim)
        spans = sorted((t.data_ptr(), t.data_ptr() + t.numel()) for _, t in alive)
        assert all(low[1] <= high[0] for low, high in itertools.pairwise(spans))
    assert all(bool(t.eq(i % 256).all()) for i, t in alive)
    held = sum(pages(t.numel()) for _, t in alive if t.numel() >= 256 * 1024)
    assert stat("in_use_bytes") - before == held
    alive.clear()
    assert stat("in_use_bytes") == before


def test_freed_pages_are_used_again_and_idle_ones_returned() -> None:
    allocator.trim(everything=True)
    allocator.trim()
    fresh = stat("fresh_bytes")
    for _ in range(5):
        torch.ones(64 * MIB, dtype=torch.uint8)
    assert stat("fresh_bytes") - fresh <= 64 * MIB
    allocator.trim()  # the step used them: they stay for the next one
    assert stat("touched_bytes") - stat("in_use_bytes") >= 62 * MIB
    rss = memory.rss_bytes()
    assert allocator.trim() >= 62 * MIB  # a step went by without them
    assert rss - memory.rss_bytes() > 50 * MIB


def test_touched_pages_stay_near_the_peak_whatever_the_sizes() -> None:
    allocator.trim(everything=True)
    allocator.trim()
    high = 0
    for size in (96, 1, 2, 80, 3, 64, 5, 48):  # holes of one size, then larger blocks
        tensors = [torch.empty(size * MIB, dtype=torch.uint8) for _ in range(192 // size)]
        high = max(high, stat("in_use_bytes"))
        assert stat("touched_bytes") <= 1.08 * high + 32 * MIB
        del tensors[::2]
        other = torch.empty(100 * MIB, dtype=torch.uint8)
        high = max(high, stat("in_use_bytes"))
        assert stat("touched_bytes") <= 1.08 * high + 32 * MIB
        del other, tensors


def test_many_threads() -> None:
    before, errors = stat("in_use_bytes"), []

    def work(seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        kept: list[torch.Tensor] = []
        for i in range(150):
            n = int(torch.randint(1, 2 * MIB, (1,), generator=generator))
            kept.append(torch.full((n,), (seed * 31 + i) % 251, dtype=torch.uint8))
            if len(kept) > 5:
                gone = kept.pop(i % 5)
                if int(gone[0]) != int(gone[-1]):
                    errors.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    gc.collect()
    assert errors == []
    assert stat("in_use_bytes") == before


def test_a_forked_child_allocates() -> None:
    stop = threading.Event()

    def churn() -> None:
        while not stop.is_set():
            torch.empty(MIB, dtype=torch.uint8)

    thread = threading.Thread(target=churn)
    thread.start()
    try:
        for _ in range(5):
            pid = os.fork()
            if pid == 0:
                torch.empty(8 * MIB, dtype=torch.uint8)[:9].fill_(
                    1
                )  # no more: OpenMP does not survive a fork
                os._exit(0)
            assert os.waitpid(pid, 0)[1] == 0
    finally:
        stop.set()
        thread.join()


def test_storages_resize() -> None:
    tensor = torch.arange(MIB, dtype=torch.int32)
    tensor.untyped_storage().resize_(8 * MIB)
    assert torch.equal(tensor, torch.arange(MIB, dtype=torch.int32))
    tensor.untyped_storage().resize_(0)


def test_a_second_install_changes_nothing() -> None:
    assert allocator.install(allocator.ArenaSettings(threshold_bytes=1))
    settings_now = allocator.facts()["settings"]
    assert isinstance(settings_now, dict)
    assert settings_now["threshold_bytes"] == 256 * 1024


LIMIT = """
import resource, torch
from outsize.device import allocator, memory
MIB = 2**20

def limit(nbytes):
    resource.setrlimit(resource.RLIMIT_AS, (nbytes, nbytes))

def size():
    return int(open("/proc/self/statm").read().split()[0]) * 4096

def peak(nbytes):
    meter = memory.PeakMeter(interval_seconds=3600.0).start()  # no sample comes to help
    before = meter.reset()
    block = torch.empty(nbytes, dtype=torch.uint8)
    del block
    assert abs(meter.stop() - before - nbytes) < MIB // 8
"""
BEFORE = """
limit(64 << 30)
assert not allocator.install() and not allocator.installed() and allocator.trim() == 0
assert 'ulimit -v' in allocator.facts()['refusal'] and allocator.facts()['counted']
assert torch.ones(1 << 20).sum() == 1 << 20
peak(7 * MIB)
"""
LATER = """
assert allocator.install()
kept = [torch.full((MIB,), n, dtype=torch.uint8) for n in range(40)]
assert size() > 8 << 30
limit(4 << 30)  # below what is reserved: nobody gets a page until the arena gives way
del kept[::2]
torch.ones(MIB)
assert size() < 4 << 30
assert not allocator.installed() and 'limited' in allocator.facts()['refusal']
more = [torch.full((3 * MIB,), n, dtype=torch.uint8) for n in range(60)]  # where the arena was
peak(7 * MIB)
assert all(int(t[0]) == int(t[-1]) == 2 * n + 1 for n, t in enumerate(kept))
assert all(int(t[0]) == int(t[-1]) == n for n, t in enumerate(more))
before = memory.bytes_in_use()
del kept, more
assert abs(before - memory.bytes_in_use() - 200 * MIB) < MIB
tensor = torch.arange(MIB)
tensor.untyped_storage().resize_(16 * MIB)
assert tensor[-1] == MIB - 1
assert not allocator.install() and allocator.trim() == 0
"""


MEASURED = """
import time
assert allocator.install()
with memory.PeakMeter():
    limit(4 << 30)
    time.sleep(0.2)  # a step is measured, so the arena gives way without being asked for a block
    assert size() < 4 << 30
"""


@pytest.mark.parametrize("script", [BEFORE, LATER, MEASURED], ids=["before", "later", "measured"])
def test_it_steps_aside_where_address_space_is_limited(script: str) -> None:
    subprocess.run([sys.executable, "-c", LIMIT + script], check=True)


def test_foreign_pointers_pass() -> None:
    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    pointer = libc.malloc(ctypes.c_size_t(MIB))
    assert pointer
    libc.free(ctypes.c_void_p(pointer))
