"""What goes out comes back, the source is let go at once, and what goes wrong is raised where it is waited for."""

import errno
import gc
import os
import queue
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from outsize.errors import ChecksumError, TierError, TierFullError
from outsize.runtime.tiers import DiskSettings, DiskTier
from outsize.runtime.tiers.file import SwapFile

MIB = 2**20
ONE_EACH_WAY = DiskSettings(writers=1, readers=1)


class Faulty:
    """A swap file with a fault in it."""

    def __init__(self, directory: Path) -> None:
        self.inner = SwapFile(directory)
        self.gate = threading.Event()
        self.gate.set()
        self.fail_write: OSError | None = None
        self.fail_read: OSError | None = None
        self.capacity = 2**62
        self.flip = False
        self.short = 0
        self.no_promise = ""
        self.memory_align, self.offset_align = self.inner.memory_align, self.inner.offset_align

    def write(self, buffers: Sequence[memoryview], offset: int) -> int:
        self.gate.wait()
        if self.fail_write:
            raise self.fail_write
        if self.short:  # one sector at a time
            return self.inner.write([buffers[0][: self.short]], offset)
        return self.inner.write(buffers, offset)

    def read(self, buffers: Sequence[memoryview], offset: int) -> int:
        if self.fail_read:
            raise self.fail_read
        done = self.inner.read([buffers[0][: self.short]] if self.short else buffers, offset)
        if self.flip:
            buffers[0][0] ^= 1
        return done

    def allocate(self, offset: int, nbytes: int) -> None:
        if offset + nbytes > self.capacity:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.inner.allocate(offset, nbytes)

    def free_bytes(self) -> int:
        return self.capacity

    def facts(self) -> Mapping[str, object]:
        return self.inner.facts()

    def close(self) -> None:
        self.inner.close()


def random_bytes(n: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 256, (n,), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


@given(
    st.lists(st.tuples(st.integers(0, 300_000), st.integers(0, 63)), min_size=1, max_size=8),
    st.permutations(range(8)),
)
@settings(max_examples=15, deadline=None)
def test_every_byte_comes_back(shapes: list[tuple[int, int]], order: list[int]) -> None:
    with DiskTier("/tmp", settings=DiskSettings(piece_bytes=64 * 1024, growth_bytes=MIB)) as tier:
        # Any length, any address: aligned pieces, partial sectors and bounced copies.
        sources = [random_bytes(n + shift, n)[shift:] for n, shift in shapes]
        blocks = [tier.write(source) for source in sources]
        arrivals = {i: tier.read(blocks[i]) for i in order if i < len(blocks)}
        for i, arrival in arrivals.items():
            assert torch.equal(arrival.wait(), sources[i])
        counters = tier.counters()
        assert counters.bytes_out == counters.bytes_in == sum(n for n, _ in shapes) == counters.held_bytes
        blocks.clear()
        gc.collect()
        assert tier.counters().held_bytes == 0


@pytest.mark.parametrize("direct", [True, False])
def test_aligned_and_not(tmp_path: Path, direct: bool) -> None:
    memory = random_bytes(3 * MIB + 4096)
    start = -memory.data_ptr() % 4096
    with DiskTier(file=SwapFile(tmp_path, direct=direct), settings=DiskSettings(piece_bytes=MIB)) as tier:
        for shift, length in [(0, 2 * MIB), (0, 2 * MIB + 513), (0, 100), (64, 2 * MIB), (1, 2 * MIB + 1)]:
            source = memory[start + shift : start + shift + length].clone()
            target = torch.zeros(length + 8192, dtype=torch.uint8)
            into = target[-target.data_ptr() % 4096 + shift :][:length]
            assert torch.equal(tier.read(tier.write(source), into).wait(), source)
            assert into.eq(source).all()
            assert target.count_nonzero() == source.count_nonzero()  # not a byte beside the destination


def test_whole_storages_and_dense_tensors(tmp_path: Path) -> None:
    tensor = torch.randn(64, 33)
    with DiskTier(tmp_path) as tier:
        storage = tensor.untyped_storage()
        back = tier.read(tier.write(storage), torch.empty_like(tensor).untyped_storage()).wait()
        assert torch.equal(back.view(torch.float32).view(64, 33), tensor)
        into = torch.empty_like(tensor)
        tier.read(tier.write(tensor), into).wait()
        assert torch.equal(into, tensor)
        with pytest.raises(TierError, match="untyped_storage"):
            tier.write(tensor.t())
        with pytest.raises(TierError, match=r"8448 bytes.*destination 10"):
            tier.read(tier.write(tensor), torch.empty(10, dtype=torch.uint8))


def test_the_source_lives_until_it_is_out_and_no_longer(tmp_path: Path) -> None:
    file = Faulty(tmp_path)
    file.gate.clear()
    with DiskTier(file=file) as tier:
        owner = torch.ones(1000)
        gone = weakref.ref(owner)
        block = tier.write(owner.untyped_storage(), owner)
        del owner
        assert gone() is not None
        assert not block.settled()
        file.gate.set()
        block.settle()
        assert gone() is None
        assert tier.read(block).wait().view(torch.float32).sum() == 1000


def test_writes_in_flight_are_bounded(tmp_path: Path) -> None:
    file = Faulty(tmp_path)
    file.gate.clear()
    with DiskTier(file=file, settings=DiskSettings(in_flight_bytes=2 * MIB)) as tier:
        blocks = [tier.write(random_bytes(MIB)) for _ in range(2)]
        third = threading.Thread(target=lambda: blocks.append(tier.write(random_bytes(MIB))))
        third.start()
        third.join(0.05)
        assert third.is_alive()
        file.gate.set()
        third.join()
        for block in blocks:
            block.settle()
        assert tier.counters().stall_seconds > 0


def test_space_is_reused(tmp_path: Path) -> None:
    with DiskTier(tmp_path, settings=DiskSettings(growth_bytes=4096)) as tier:
        for _ in range(5):
            blocks = [tier.write(random_bytes(n * 1000)) for n in range(1, 20)]
            for block in blocks:
                block.settle()
            size = tier.facts()["reserved_bytes"]
            for block in blocks:
                block.release()
                block.release()
        assert size == sum(-(-n * 1000 // 4096) * 4096 for n in range(1, 20))
        assert tier.counters().peak_held_bytes == sum(n * 1000 for n in range(1, 20))


def test_a_block_released_early_is_never_lost_to_another(tmp_path: Path) -> None:
    file = Faulty(tmp_path)
    with DiskTier(file=file, settings=DiskSettings(growth_bytes=4096)) as tier:
        first = tier.write(random_bytes(MIB, 1))
        arrival = tier.read(first)
        first.release()
        second = tier.write(random_bytes(MIB, 2))  # must not take the first's extent before it was read
        assert torch.equal(arrival.wait(), random_bytes(MIB, 1))
        assert torch.equal(tier.read(second).wait(), random_bytes(MIB, 2))
        with pytest.raises(TierError, match="released"):
            tier.read(first)


def test_a_write_that_nobody_wants_any_more_is_dropped(tmp_path: Path) -> None:
    file = Faulty(tmp_path)
    file.gate.clear()
    with DiskTier(file=file, settings=ONE_EACH_WAY) as tier:
        first, second, third = (tier.write(random_bytes(1000, n)) for n in range(3))
        second.release()
        arrival = tier.read(third)
        third.release()  # the read still wants it
        file.gate.set()
        first.settle()
        second.settle()
        assert torch.equal(arrival.wait(), random_bytes(1000, 2))
        assert tier.counters().bytes_out == 2000


def test_short_transfers_are_completed(tmp_path: Path) -> None:
    file = Faulty(tmp_path)
    file.short = 4096
    with DiskTier(file=file) as tier:
        source = random_bytes(50_000)
        assert torch.equal(tier.read(tier.write(source)).wait(), source)


def test_a_flipped_bit_is_noticed(tmp_path: Path) -> None:
    file = Faulty(tmp_path)
    with DiskTier(file=file) as tier:
        block = tier.write(random_bytes(10_000))
        file.flip = True
        with pytest.raises(ChecksumError, match="checksum"):
            tier.read(block).wait()
        file.flip = False
        assert torch.equal(tier.read(block).wait(), random_bytes(10_000))


def test_a_full_disk_shows_when_reserving(tmp_path: Path) -> None:
    file = Faulty(tmp_path)
    file.capacity = 8 * MIB
    with DiskTier(file=file, settings=DiskSettings(growth_bytes=MIB)) as tier:
        tier.reserve(6 * MIB)
        with pytest.raises(TierFullError, match=r"9\.00 MiB.*No space left.*8\.00 MiB free"):
            tier.reserve(9 * MIB)
        blocks = [tier.write(random_bytes(MIB)) for _ in range(8)]
        with pytest.raises(TierFullError, match="disk=DIR"):
            tier.write(random_bytes(MIB))
        blocks.pop().release()
        tier.write(random_bytes(MIB)).settle()


@pytest.mark.parametrize(("code", "kind"), [(errno.ENOSPC, TierFullError), (errno.EIO, TierError)])
def test_a_fault_in_the_middle_of_a_step(tmp_path: Path, code: int, kind: type[TierError]) -> None:
    file = Faulty(tmp_path)
    with DiskTier(file=file) as tier:
        good = tier.write(random_bytes(MIB))
        good.settle()
        file.fail_write = OSError(code, os.strerror(code))
        source = random_bytes(MIB)
        gone = weakref.ref(source)
        bad = tier.write(source)
        del source
        arrival = tier.read(bad)
        with pytest.raises(kind, match=r"write a block of 1\.00 MiB"):
            bad.settle()
        assert gone() is None
        with pytest.raises(kind, match="write a block"):
            arrival.wait()
        file.fail_write = None
        file.fail_read = OSError(code, os.strerror(code))
        with pytest.raises(kind, match="read a block"):
            tier.read(good).wait()
        file.fail_read = None  # the next step is possible
        assert torch.equal(tier.read(good).wait(), random_bytes(MIB))
        assert tier.read(tier.write(random_bytes(5))).wait().numel() == 5


def test_closing_ends_everything_under_way(tmp_path: Path) -> None:
    file = Faulty(tmp_path)
    file.gate.clear()
    tier = DiskTier(file=file, settings=ONE_EACH_WAY)
    blocks = [tier.write(random_bytes(1000)) for _ in range(3)]
    arrivals = [tier.read(block) for block in blocks]
    threading.Timer(0.05, file.gate.set).start()
    tier.close()
    tier.close()
    for block in blocks[1:]:
        with pytest.raises(TierError, match="closed"):
            block.settle()
    for arrival in arrivals[1:]:
        with pytest.raises(TierError, match="closed"):
            arrival.wait()
    with pytest.raises(TierError, match="closed"):
        tier.write(random_bytes(10))


def test_a_forgotten_tier_closes() -> None:
    def workers() -> set[threading.Thread]:
        return {thread for thread in threading.enumerate() if thread.name == "outsize-disk"}

    others = workers()
    tier = DiskTier("/tmp")
    block = tier.write(random_bytes(1000))
    block.settle()
    assert len(workers() - others) == DiskSettings().writers + DiskSettings().readers
    del tier, block
    gc.collect()
    assert not workers() - others


def test_a_kill_leaves_nothing(tmp_path: Path) -> None:
    script = (
        "import sys, torch\nfrom outsize.runtime.tiers import DiskTier\n"
        "t = DiskTier(sys.argv[1]); b = t.write(torch.ones(1000)); b.settle(); print('up', flush=True)\n"
        "sys.stdin.read()"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert child.stdout is not None
    assert child.stdin is not None
    assert child.stdout.readline() == b"up\n"
    child.kill()
    child.wait()
    child.stdout.close()
    child.stdin.close()
    assert list(tmp_path.iterdir()) == []


class _Slow:
    """A queue from which the next item is got late."""

    def __init__(self, inner: queue.SimpleQueue) -> None:
        self.put, self.get_nowait, self.inner = inner.put, inner.get_nowait, inner

    def get(self) -> object:
        time.sleep(0.3)
        return self.inner.get()


def test_whoever_is_told_of_a_failure_holds_the_last_reference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that is slow to look for its next transfer keeps neither the block nor, through its error, the step."""
    file = Faulty(tmp_path)
    with DiskTier(file=file) as tier:
        for name in ("writes", "reads"):
            monkeypatch.setattr(tier._engine, name, _Slow(getattr(tier._engine, name)))
        file.fail_write = OSError(errno.EIO, os.strerror(errno.EIO))
        block = tier.write(random_bytes(10))
        arrival = tier.read(block)
        with pytest.raises(TierError):
            arrival.wait()
        file.fail_write = None
        seen = weakref.ref(block)
        del block, arrival
        gc.collect()
        assert seen() is None


def test_a_fork_is_told(tmp_path: Path) -> None:
    tier = DiskTier(tmp_path)
    block = tier.write(random_bytes(10))
    block.settle()
    pid = os.fork()
    if pid == 0:
        try:
            tier.write(random_bytes(10))
        except TierError:
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0
    assert torch.equal(tier.read(block).wait(), random_bytes(10))
    tier.close()
