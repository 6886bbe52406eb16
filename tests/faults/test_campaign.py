"""Faults of the system calls and of the file: a clear error or the right bits, and a whole next step."""

import importlib.machinery
import os
import random
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
import warnings
from pathlib import Path

import pytest

from outsize.runtime.tiers import DiskTier

from .campaign import (
    FILE_FAULTS,
    OPENING,
    RESERVING,
    STEPPING,
    Fault,
    Swapping,
    injected,
    left_behind,
    outcome,
    soon,
    strike,
    strike_file,
)

NATIVE = Path(__file__).parents[2] / "src" / "outsize" / "native"


@pytest.fixture(scope="module")
def swapping(tmp_path_factory: pytest.TempPathFactory) -> Swapping:
    return Swapping(tmp_path_factory.mktemp("swap"))


def opened(directory: Path) -> None:
    with DiskTier(directory) as tier:
        tier.reserve(1000)


@pytest.mark.parametrize("fault", OPENING, ids=str)
def test_while_a_tier_opens(fault: Fault, tmp_path: Path) -> None:
    before = left_behind()
    with injected(fault) as faulty:
        error = outcome(lambda: opened(tmp_path))
    assert faulty.struck
    if error is not None:
        assert os.strerror(fault.code) in str(error)
        assert "disk=DIR" in str(error)
    assert soon(lambda: left_behind() == before)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("fault", RESERVING, ids=str)
def test_while_it_reserves(fault: Fault, tmp_path: Path) -> None:
    with DiskTier(tmp_path) as tier, warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of a reservation that is no promise
        tier.reserve(1000)
        with injected(fault):
            error = outcome(lambda: (tier.reserve(100 * 2**20), tier.reserve(200 * 2**20)))
        assert error is None or os.strerror(fault.code) in str(error)
        tier.reserve(210 * 2**20)


@pytest.mark.parametrize("fault", STEPPING[::2], ids=str)
def test_in_a_step(swapping: Swapping, fault: Fault) -> None:
    strike(swapping, fault)


@pytest.mark.parametrize("kind", FILE_FAULTS)
def test_of_the_file_itself_between_forward_and_backward(swapping: Swapping, kind: str) -> None:
    strike_file(swapping, kind)


LOOP = """
import sys, torch
from outsize.runtime.tiers import DiskTier
tier, source = DiskTier(sys.argv[1]), torch.ones(300_000)
print("up", flush=True)
while True:
    blocks = [tier.write(source) for _ in range(20)]
    for arrival in [tier.read(block) for block in blocks]:
        arrival.wait()
"""


def test_kills_at_random_moments_leave_nothing(tmp_path: Path) -> None:
    draw = random.Random(0)
    children = [
        subprocess.Popen([sys.executable, "-c", LOOP, str(tmp_path)], stdout=subprocess.PIPE)
        for _ in range(2)
    ]
    for child in children:
        assert child.stdout is not None
        assert child.stdout.readline() == b"up\n"
        time.sleep(draw.random() / 5)
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
    assert list(tmp_path.iterdir()) == []


CHECKED = """
import importlib.util, os, sys, threading
spec = importlib.util.spec_from_file_location("outsize.native._native", sys.argv[1])
module = sys.modules["outsize.native._native"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
import resource, torch
from outsize import native
from outsize.device import allocator, memory
assert native.kernels is module
assert allocator.install(), allocator.facts()
meters = [memory.PeakMeter(interval_seconds=1e-5, rest=1).start() for _ in range(4)]

def churn(seed):
    draw, kept = torch.Generator().manual_seed(seed), []
    for turn in range(120):
        n = int(torch.randint(1, 2_000_000, (1,), generator=draw))
        kept.append(torch.full((n,), turn % 251, dtype=torch.uint8))
        if len(kept) > 6:
            gone = kept.pop(turn % 6)
            assert int(gone[0]) == int(gone[-1])
        if turn % 20 == 0:
            allocator.trim(everything=turn % 40 == 0)
            meters[seed].reset()

def work():
    threads = [threading.Thread(target=churn, args=(seed,)) for seed in range(4)]
    [t.start() for t in threads], [t.join() for t in threads]

work()
child = os.fork()
if child == 0:
    torch.ones(900_000)
    memory.PeakMeter().start().stop()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
tensor = torch.arange(500_000)
tensor.untyped_storage().resize_(10_000_000)
resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
torch.empty(300_000, dtype=torch.uint8)  # and the arena gives way
work()
assert not allocator.installed() and all(meter.stop() > 0 for meter in meters)
print("whole")
"""


MEMORY_ONLY = """
#include "native.h"
static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_native", "", -1, NULL, NULL, NULL, NULL, NULL};
PyMODINIT_FUNC PyInit__native(void) {
    PyObject *module = PyModule_Create(&definition);
    PyModule_AddFunctions(module, outsize_memory_methods);
    PyModule_AddFunctions(module, outsize_arena_methods);
    return module;
}
"""


def test_the_memory_of_the_c_module_under_the_undefined_behaviour_sanitizer(tmp_path: Path) -> None:
    """The kernels of the codecs run under both sanitizers by themselves (tests/codecs/test_fuzz.py)."""
    if (compiler := shutil.which("gcc")) is None:
        pytest.skip("gcc is not installed")
    built = tmp_path / ("_native" + importlib.machinery.EXTENSION_SUFFIXES[0])
    flags = [
        "-O1",
        "-g",
        "-std=c11",
        "-fPIC",
        "-shared",
        "-pthread",
        "-D_GNU_SOURCE",
        "-DPy_LIMITED_API=0x030B0000",
    ]
    checks = [
        "-fsanitize=undefined",
        "-fno-sanitize-recover=undefined",
        f"-I{sysconfig.get_path('include')}",
        f"-I{NATIVE}",
    ]
    (tmp_path / "module.c").write_text(MEMORY_ONLY)
    sources = [str(NATIVE / f"{name}.c") for name in ("arena", "lanes", "memory", "redirect", "small")]
    made = subprocess.run(
        [compiler, *flags, *checks, str(tmp_path / "module.c"), *sources, "-ldl", "-o", str(built)],
        capture_output=True,
        text=True,
    )
    if "cannot find" in made.stderr:
        pytest.skip("gcc has no sanitizer libraries here")
    assert made.returncode == 0, made.stderr
    found = subprocess.run(
        [sys.executable, "-c", CHECKED, str(built)], capture_output=True, text=True, timeout=200
    )
    assert found.stdout.strip() == "whole", found.stderr[-3000:]
    assert "runtime error" not in found.stderr
