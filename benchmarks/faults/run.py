"""Everything that a swapping step is put through, at length; see README.md."""

from __future__ import annotations

import argparse
import collections
import gc
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.faults.campaign import (
    FILE_FAULTS,
    OPENING,
    RESERVING,
    STEPPING,
    Swapping,
    injected,
    left_behind,
    outcome,
    soon,
    strike,
    strike_file,
)
from tests.faults.interrupting import moments, struck
from tests.faults.test_campaign import LOOP

import outsize
from outsize.device.facts import facts
from outsize.device.link import EmulatedLink
from outsize.runtime.tiers import DiskTier

HERE = Path(__file__).parent
TRAIN = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from tests.faults.campaign import Swapping
swapping = Swapping(Path(sys.argv[1]))
print("up", flush=True)
while True:
    swapping.step()
"""


def calls(directory: Path, swapping: Swapping) -> dict[str, dict[str, int]]:
    """Each fault of each system call: what came of it."""
    came: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    for fault in OPENING:
        with injected(fault):
            error = outcome(lambda: DiskTier(directory).close())
        came["while a tier opens"][type(error).__name__ if error else "right"] += 1
    for fault in RESERVING:
        with DiskTier(directory) as tier, warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            with injected(fault):
                error = outcome(lambda: (tier.reserve(2**20), tier.reserve(200 * 2**20)))
            tier.reserve(210 * 2**20)
        came["while it reserves"][type(error).__name__ if error else "right"] += 1
    for fault in STEPPING:
        came["in a step"][strike(swapping, fault)] += 1
    for kind in FILE_FAULTS:
        came["of the file between forward and backward"][strike_file(swapping, kind)] += 1
    return {name: dict(counts) for name, counts in came.items()}


def interrupts(swapping: Swapping, stride: int) -> dict[str, int]:
    """At every `stride`-th line of a step, in whichever file of the package."""
    swapping.reopen()
    whole = lambda: swapping.step()  # noqa: E731
    first: dict[tuple[str, int], int] = {}
    for at, place in enumerate(moments(whole, instructions=False)):
        first.setdefault(place, at)
    came, engine = 0, swapping.tier._engine
    for at in list(first.values())[::stride]:
        came += struck(whole, at, instructions=False)
        assert soon(lambda: swapping.tier.counters().held_bytes == 0 or gc.collect() < 0), at
        assert soon(lambda: engine.in_flight == 0), at
        assert not engine.lock.locked()
        assert swapping.right(swapping.step()), at
    return {"lines": len(first), "tried": len(list(first.values())[::stride]), "came through": came}


def kills(count: int, script: str) -> dict[str, int]:
    """Kills at random moments: what is left in the directory of the swap file."""
    draw, left = random.Random(0), 0
    for _ in range(count):
        with tempfile.TemporaryDirectory(dir="/var/tmp") as directory:
            command = [sys.executable, "-c", script, directory, str(HERE.parents[1])]
            child = subprocess.Popen(command, stdout=subprocess.PIPE)
            assert child.stdout is not None
            assert child.stdout.readline() == b"up\n"
            time.sleep(draw.random() / 2)
            child.send_signal(signal.SIGKILL)
            child.wait()
            child.stdout.close()
            left += len(os.listdir(directory))
    return {"kills": count, "left behind": left}


def slow_disk(swapping: Swapping, bytes_per_second: float) -> dict[str, float]:
    """A step on a disk of that speed: what its transfers take at least, and what it took."""
    swapping.reopen(link=EmulatedLink(bytes_per_second=bytes_per_second))
    swapping.step()
    before, begin = swapping.tier.counters(), time.perf_counter()
    assert swapping.right(swapping.step())
    seconds, after = time.perf_counter() - begin, swapping.tier.counters()
    moved = [after.bytes_out - before.bytes_out, after.bytes_in - before.bytes_in]
    return {
        "bytes_per_second": bytes_per_second,
        "bytes_out": moved[0],
        "bytes_in": moved[1],
        "transfers_seconds": sum(moved) / bytes_per_second,
        "step_seconds": seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--training-kills", type=int, default=6)
    parser.add_argument("--stride", type=int, default=1)
    parser.add_argument("--out", type=Path, default=HERE / "result.json")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        directory = Path(name)
        swapping, before = Swapping(directory), left_behind()
        result = {
            "machine": dict(facts()),
            "outsize": outsize.__version__,
            "calls": calls(directory, swapping),
            "interrupts": interrupts(swapping, args.stride),
            "kills of a tier": kills(args.kills, LOOP),
            "kills of a training run": kills(args.training_kills, TRAIN),
            "slow disk": slow_disk(swapping, 1e7),
        }
        swapping.reopen()
        assert soon(lambda: left_behind() == before)
    args.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
