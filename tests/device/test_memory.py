"""The meter counts the bytes of other threads, catches peaks between readings, and ends clean."""

import os
import threading
import time

import pytest
import torch

from outsize.device import allocator, memory
from outsize.errors import OutsizeError

MIB = 2**20


def test_a_tensor_counts_from_birth_to_death() -> None:
    before = memory.bytes_in_use()
    tensor = torch.empty(64 * MIB, dtype=torch.uint8)
    assert memory.bytes_in_use() - before == pytest.approx(64 * MIB, abs=MIB)
    del tensor
    assert memory.bytes_in_use() - before == pytest.approx(0, abs=MIB)


def test_the_bytes_of_another_thread_count() -> None:
    before, born, done = memory.bytes_in_use(), threading.Event(), threading.Event()

    def hold() -> None:
        tensor = torch.empty(32 * MIB, dtype=torch.uint8)
        born.set()
        done.wait()
        del tensor

    thread = threading.Thread(target=hold)
    thread.start()
    born.wait()
    during = memory.bytes_in_use()
    done.set()
    thread.join()
    assert during - before == pytest.approx(32 * MIB, abs=MIB)


def test_peak_is_kept_after_the_bytes_are_gone() -> None:
    meter = memory.PeakMeter().start()
    start = memory.bytes_in_use()
    tensor = torch.empty(48 * MIB, dtype=torch.uint8)
    meter.mark()
    time.sleep(0.02)
    del tensor
    assert meter.peak() - start == pytest.approx(48 * MIB, abs=MIB)
    assert meter.reset() - start == pytest.approx(48 * MIB, abs=MIB)
    assert meter.stop() - start == pytest.approx(0, abs=MIB)


def test_the_sampler_sees_what_no_mark_sees() -> None:
    with memory.PeakMeter() as meter:
        start = memory.bytes_in_use()
        tensor = torch.empty(48 * MIB, dtype=torch.uint8)
        time.sleep(0.05)
        del tensor
        assert meter.peak() - start == pytest.approx(48 * MIB, abs=MIB)


def test_meters_nest() -> None:
    outer = memory.PeakMeter().start()
    start = memory.bytes_in_use()
    tensor = torch.empty(40 * MIB, dtype=torch.uint8)
    outer.mark()
    time.sleep(0.02)
    del tensor
    inner = memory.PeakMeter().start()
    assert inner.stop() - start == pytest.approx(0, abs=MIB)
    assert outer.stop() - start == pytest.approx(40 * MIB, abs=MIB)


def most_over(block: int) -> int:
    """Bytes by which the peak of one block at a time, read all the time, is above that block's at worst."""
    over = []
    with memory.PeakMeter(interval_seconds=1e-5, rest=1) as meter:
        for _ in range(300):
            start = memory.bytes_in_use()
            meter.reset()
            for _ in range(100):
                tensor = torch.empty(block, dtype=torch.uint8)
                del tensor
            over.append(meter.peak() - start - block)
    return max(over)


def test_a_block_counts_once_whenever_the_reading_comes() -> None:
    if not allocator.install():
        pytest.skip("without the arena there is no second count to agree with")
    block = 1_400_000
    tensor = torch.empty(2 * block, dtype=torch.uint8)  # every later block moves the arena's stand-in
    del tensor
    assert most_over(block) < block // 4


def test_small_tensors_after_a_peak_are_no_part_of_it() -> None:
    if not allocator.install():
        pytest.skip("without the arena every block is sampled")
    with memory.PeakMeter(interval_seconds=60.0) as meter:  # as on a machine too busy to sample
        start = memory.bytes_in_use()
        meter.reset()
        large = torch.empty(8 * MIB, dtype=torch.uint8)
        del large
        small = [torch.empty(200_000, dtype=torch.uint8) for _ in range(30)]
        assert meter.peak() - start == pytest.approx(8 * MIB, abs=MIB)
        large = torch.empty(8 * MIB, dtype=torch.uint8)
        del large, small
        assert meter.peak() - start == pytest.approx(8 * MIB + 6_000_000, abs=MIB)


def test_what_an_operator_works_in_for_a_moment_is_part_of_the_peak() -> None:
    if not allocator.install():
        pytest.skip("without the arena every block is sampled")
    x, weight, gradient = torch.randn(1, 256, 56, 56), torch.randn(8, 256, 1, 1), torch.randn(1, 8, 28, 28)
    columns = 256 * 28 * 28 * 4  # of `operator new`, for a fraction of a sampler's rest

    def backward() -> None:
        torch.ops.aten._slow_conv2d_backward.output_mask(
            gradient, x, weight, [1, 1], [2, 2], [0, 0], [True, False, False]
        )

    backward()
    peaks = []
    with memory.PeakMeter(interval_seconds=60.0) as meter:
        for _ in range(20):
            start = memory.bytes_in_use()
            meter.reset()
            backward()
            peaks.append(meter.peak() - start)
    assert min(peaks) >= x.nbytes + columns
    assert max(peaks) - min(peaks) < columns // 10


def test_small_blocks_count_once_whenever_the_reading_comes() -> None:
    if not allocator.install():
        pytest.skip("without the arena every block is sampled")
    assert most_over(200_000) < 50_000


def test_too_many_meters_is_an_error_and_harms_none() -> None:
    meters: list[memory.PeakMeter] = []
    with pytest.raises(RuntimeError, match="16"):  # a session elsewhere in the process may hold a few
        meters += iter(lambda: memory.PeakMeter().start(), None)
    assert 12 <= len(meters) <= 16
    assert all(meter.stop() > 0 for meter in meters)


def test_misuse_is_an_error() -> None:
    with pytest.raises(OutsizeError, match="start"):
        memory.PeakMeter().stop()
    with memory.PeakMeter() as meter, pytest.raises(OutsizeError, match="already"):
        meter.start()
    with pytest.raises(OutsizeError, match="meta"):
        memory.bytes_in_use("meta")


def test_a_fork_ends_the_childs_meters_only() -> None:
    meter = memory.PeakMeter().start()
    pid = os.fork()
    if pid == 0:
        try:
            memory.PeakMeter().start().stop()
            meter.mark()
            os._exit(0)
        except BaseException:
            os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0
    assert meter.stop() > 0


def test_resident_set() -> None:
    allocator.trim(everything=True)  # or the tensor below reuses pages that are in the resident set already
    if not memory.reset_peak_rss():
        pytest.skip("the kernel does not permit to reset the peak resident set")
    before = memory.peak_rss_bytes()
    tensor = torch.ones(64 * MIB, dtype=torch.uint8)
    assert memory.peak_rss_bytes() - before > 56 * MIB
    del tensor
    assert memory.rss_bytes() > 0
    assert 0 < memory.free_bytes() <= memory.total_bytes()


def test_without_the_c_module(monkeypatch: pytest.MonkeyPatch) -> None:
    if memory.malloc_owner() != "glibc":
        pytest.skip("the path without the C module reads glibc's count")
    native_count = memory.bytes_in_use()
    monkeypatch.setattr(memory.native, "kernels", None)
    assert memory.bytes_in_use() == pytest.approx(native_count, abs=4 * MIB)
    with memory.PeakMeter() as meter:
        start = memory.bytes_in_use()
        tensor = torch.empty(48 * MIB, dtype=torch.uint8)
        meter.mark()
        del tensor
        assert meter.peak() - start == pytest.approx(48 * MIB, abs=MIB)
