"""The C kernels alone, under the address and undefined-behaviour sanitizers, for a bounded time."""

from __future__ import annotations

import platform
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent / "native"
NATIVE = Path(__file__).parents[2] / "src" / "outsize" / "native"
SOURCES = [str(p) for p in sorted(NATIVE.glob("codec*.c")) if p.name != "codec_python.c"]
FLAGS = [
    "-O1",
    "-g",
    "-DSTREAM_BYTES=100000",
    "-std=c11",
    "-D_GNU_SOURCE",
    "-pthread",
    "-fno-sanitize-recover=undefined",
]
SECONDS = 4


def build(compiler: str, out: Path, *arguments: str) -> Path:
    if shutil.which(compiler) is None:
        pytest.skip(f"{compiler} is not installed")
    done = subprocess.run([compiler, *FLAGS, *arguments, *SOURCES, "-o", out], capture_output=True, text=True)
    if "cannot find" in done.stderr:
        pytest.skip(f"{compiler} has no sanitizer libraries here")
    assert done.returncode == 0, done.stderr
    return out


def run(*command: str | Path) -> str:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout + done.stderr


def test_levels_agree_under_sanitizers(tmp_path: Path) -> None:
    """Random tensors and damaged buffers in exact-sized heap blocks, every level against the portable one."""
    program = build("gcc", tmp_path / "check", "-fsanitize=address,undefined", str(HERE / "check.c"))
    assert int(run(program, str(SECONDS), "20").split()[0]) > 100


def test_arbitrary_buffers_under_libfuzzer(tmp_path: Path) -> None:
    if platform.machine() != "x86_64":
        pytest.skip("fuzz.c names the x86 levels")
    fuzzer = "-fsanitize=fuzzer,address,undefined"
    program = build("clang", tmp_path / "fuzz", fuzzer, str(HERE / "fuzz.c"))
    assert "Done" in run(program, f"-max_total_time={SECONDS}", "-max_len=9000", "-seed=7")


def test_neon_under_an_emulator(tmp_path: Path) -> None:
    if shutil.which("qemu-aarch64-static") is None:
        pytest.skip("qemu-aarch64-static is not installed")
    program = build("aarch64-linux-gnu-gcc", tmp_path / "arm", "-O2", "-static", str(HERE / "check.c"))
    assert "the last neon" in run("qemu-aarch64-static", program, str(SECONDS), "20")
