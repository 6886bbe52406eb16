"""The disk tier against raw O_DIRECT transfers of the same file system, measured beside it; see README.md."""

import argparse
import json
import mmap
import os
import statistics
import threading
import time
from collections.abc import Callable
from pathlib import Path

import torch

from outsize.device import allocator
from outsize.device.facts import facts
from outsize.runtime.tiers import DiskSettings, DiskTier

MIB = 2**20
HERE = Path(__file__).parent


def timed(*jobs: Callable[[], None]) -> float:
    """Seconds until all jobs, each on a thread, are done."""
    threads = [threading.Thread(target=job) for job in jobs]
    begin = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - begin


class Raw:
    """What the file system gives: aligned buffers, nothing else done.

    Args:
        huge: buffers on 2 MiB pages; the kernel then builds requests of few segments, which is up to three times
            faster here, so it is the fairer baseline.
        threads: each way.
    """

    def __init__(self, directory: Path, nbytes: int, piece: int, *, huge: bool, threads: int) -> None:
        self.fd = os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_DIRECT, 0o600)
        self.nbytes, self.piece, self.threads = nbytes, piece, threads
        os.posix_fallocate(self.fd, 0, 2 * nbytes)
        self.buffers = [self.buffer(huge) for _ in range(2 * threads)]
        self.write(0, 0, 1)
        self.write(0, nbytes, 1)

    def buffer(self, huge: bool) -> memoryview:
        area = mmap.mmap(-1, self.piece + 2 * MIB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        area.madvise(mmap.MADV_HUGEPAGE if huge else mmap.MADV_NOHUGEPAGE)
        start = -torch.frombuffer(area, dtype=torch.uint8).data_ptr() % (2 * MIB)
        view = memoryview(area)[start : start + self.piece]
        view[:] = os.urandom(self.piece)
        return view

    def write(self, which: int, base: int, step: int) -> None:
        for offset in range(base + which * self.piece, base + self.nbytes, step * self.piece):
            os.pwrite(self.fd, self.buffers[which], offset)

    def read(self, which: int, step: int) -> None:
        for offset in range(self.nbytes + which * self.piece, 2 * self.nbytes, step * self.piece):
            os.preadv(self.fd, [self.buffers[self.threads + which]], offset)

    def round(self) -> dict[str, float]:
        n = self.threads
        out: list[Callable[[], None]] = [lambda i=i: self.write(i, 0, n) for i in range(n)]  # type: ignore[misc]
        into: list[Callable[[], None]] = [lambda i=i: self.read(i, n) for i in range(n)]  # type: ignore[misc]
        return {"out": timed(*out), "in": timed(*into), "both": timed(*out, *into)}


class Tiered:
    """The same transfers through the tier, with checksums."""

    def __init__(self, directory: Path, nbytes: int, block: int, settings: DiskSettings) -> None:
        self.tier = DiskTier(directory, settings=settings)
        self.tier.reserve(3 * nbytes)
        self.source = torch.randint(0, 255, (block,), dtype=torch.uint8)
        self.target = torch.zeros(block, dtype=torch.uint8)
        self.count = nbytes // block
        self.held = [self.tier.write(self.source) for _ in range(self.count)]
        self.write()

    def write(self) -> None:
        blocks = [self.tier.write(self.source) for _ in range(self.count)]
        for block in blocks:
            block.settle()

    def read(self) -> None:
        for arrival in [self.tier.read(block, self.target) for block in self.held]:
            arrival.wait()

    def round(self) -> dict[str, float]:
        return {"out": timed(self.write), "in": timed(self.read), "both": timed(self.write, self.read)}


def write_readme(result: dict[str, dict[str, dict[str, float]]]) -> None:
    rows = ["| GB/s, median (ratio to raw: median of pairs) | out | in | both at once |", "|---|---|---|---|"]
    for who, rate in result["bytes_per_second_median"].items():
        ratio = result["tier_over_raw_median_of_pairs"].get(who)
        cells = [f"{r / 1e9:.2f}" + (f" ({ratio[way]:.2f})" if ratio else "") for way, r in rate.items()]
        rows.append(f"| {who} | " + " | ".join(cells) + " |")
    readme = HERE / "README.md"
    head, _, rest = readme.read_text().partition("<!-- result -->\n")
    _, _, tail = rest.partition("<!-- end -->")
    readme.write_text(f"{head}<!-- result -->\n" + "\n".join(rows) + f"\n<!-- end -->{tail}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--directory", type=Path, default=Path("/tmp"))
    parser.add_argument("--mib", type=int, default=512, help="MiB moved each way")
    parser.add_argument("--block", type=int, default=32, help="MiB of one block")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, default=HERE / "result.json")
    args = parser.parse_args()
    allocator.install()  # as in a training process: tensors start on a page
    nbytes, block = args.mib * MIB, args.block * MIB
    piece = DiskSettings().piece_bytes
    sides: dict[str, Raw | Tiered] = {
        "raw, 4 KiB pages": Raw(args.directory, nbytes, piece, huge=False, threads=1),
        "raw": Raw(args.directory, nbytes, piece, huge=True, threads=1),
        "raw, two threads each way": Raw(args.directory, nbytes, piece, huge=True, threads=2),
        "tier, one thread each way": Tiered(
            args.directory, nbytes, block, DiskSettings(writers=1, readers=1)
        ),
        "tier": Tiered(args.directory, nbytes, block, DiskSettings()),
    }
    rounds: list[dict[str, dict[str, float]]] = []
    for _ in range(args.rounds):
        rounds.append({name: side.round() for name, side in sides.items()})
        print({k: {way: round(s, 3) for way, s in v.items()} for k, v in rounds[-1].items()}, flush=True)
    moved = {"out": nbytes, "in": nbytes, "both": 2 * nbytes}
    rates = {
        who: {way: statistics.median(moved[way] / r[who][way] for r in rounds) for way in moved}
        for who in sides
    }
    pairs = [("tier, one thread each way", "raw"), ("tier", "raw, two threads each way")]
    ratios = {
        a: {way: statistics.median(r[b][way] / r[a][way] for r in rounds) for way in moved} for a, b in pairs
    }
    best = {
        a: {way: min(r[b][way] for r in rounds) / min(r[a][way] for r in rounds) for way in moved}
        for a, b in pairs
    }
    result = {
        "machine": dict(facts()),
        "settings": {"mib": args.mib, "block_mib": args.block, "rounds": args.rounds},
        "disk": dict(sides["tier"].tier.facts()),  # type: ignore[union-attr]
        "bytes_per_second_median": rates,
        "tier_over_raw_median_of_pairs": ratios,
        "tier_over_raw_fastest": best,
        "seconds": rounds,
    }
    args.out.write_text(json.dumps(result, indent=1) + "\n")
    if args.out.parent == HERE:
        write_readme(result)
    print(json.dumps({"rates": rates, "ratios": ratios, "fastest": best}, indent=1))


if __name__ == "__main__":
    main()
