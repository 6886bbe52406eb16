"""The C kernels alone, under the address and undefined-behaviour sanitizers, for a bounded time.

`check.c` draws tensors and damages their encodings; `fuzz.c` takes arbitrary bytes and runs under libFuzzer where
there is clang, and under `engine.c`, an engine of our own, with gcc alone. What never fails proves nothing, so both
must find faults that are put into a copy of the sources.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

HERE = Path(__file__).parent / "native"
NATIVE = Path(__file__).parents[2] / "src" / "outsize" / "native"
SOURCES = [p for p in sorted(NATIVE.glob("codec*.c")) if p.name != "codec_python.c"]
FLAGS = [
    "-O1",
    "-g",
    "-DSTREAM_BYTES=100000",
    "-std=c11",
    "-D_GNU_SOURCE",
    "-pthread",
    "-fno-sanitize-recover=undefined",
    f"-I{NATIVE}",
]
SANITIZERS = "-fsanitize=address,undefined"
SECONDS = 4


def compile_with(compiler: str, *arguments: str | Path) -> None:
    if shutil.which(compiler) is None:
        pytest.skip(f"{compiler} is not installed")
    done = subprocess.run([compiler, *FLAGS, *map(str, arguments)], capture_output=True, text=True)
    if "cannot find" in done.stderr:
        pytest.skip(f"{compiler} has no sanitizer libraries here")
    assert done.returncode == 0, done.stderr


def checker(out: Path, sources: Sequence[Path] = SOURCES) -> Path:
    """`check.c` with gcc and both sanitizers."""
    compile_with("gcc", SANITIZERS, HERE / "check.c", *sources, "-o", out / "check")
    return out / "check"


def fuzzer(out: Path, sources: Sequence[Path] = SOURCES) -> Path:
    """`fuzz.c` under our own engine, which is itself neither counted nor checked."""
    compile_with("gcc", "-c", HERE / "engine.c", "-o", out / "engine.o")
    counted = (SANITIZERS, "-fsanitize-coverage=trace-pc")
    compile_with("gcc", *counted, HERE / "fuzz.c", *sources, out / "engine.o", "-o", out / "fuzz")
    return out / "fuzz"


def run(*command: str | Path) -> str:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout + done.stderr


def test_levels_agree_under_sanitizers(tmp_path: Path) -> None:
    """Random tensors and damaged buffers in exact-sized heap blocks, every level against the portable one."""
    assert int(run(checker(tmp_path), str(SECONDS), "20").split()[0]) > 100


def test_arbitrary_bytes_under_sanitizers(tmp_path: Path) -> None:
    runs, kept = map(int, re.findall(r"\d+", run(fuzzer(tmp_path), str(SECONDS), "7")))
    assert runs > 500
    assert kept > 20  # it follows the branches


FAULTS = {
    "values are read past the buffer": (
        "if (values + bytes + SLACK > job->values + ((size_t)job->nnz << job->width)) {",
        "if (0) {",
    ),
    "a table is believed": ("count != (int64_t)job->table[block] || ", ""),
    "the table's sum is not compared": ("scan_table(&all) != (uint64_t)job->nnz", "(scan_table(&all), 0)"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found(fault: str, tmp_path: Path) -> None:
    right, wrong = FAULTS[fault]
    text = (NATIVE / "codec.c").read_text()
    assert text.count(right) == 1
    (tmp_path / "codec.c").write_text(text.replace(right, wrong))
    sources = [tmp_path / "codec.c", *(p for p in SOURCES if p.name != "codec.c")]
    program = fuzzer(tmp_path, sources)
    done = subprocess.run([program, "60", "7"], capture_output=True, text=True, timeout=120)
    assert done.returncode != 0, done.stdout
    assert re.search(r"AddressSanitizer|runtime error", done.stderr) or done.returncode < 0


def test_arbitrary_bytes_under_libfuzzer(tmp_path: Path) -> None:
    out = tmp_path / "fuzz"
    compile_with("clang", "-fsanitize=fuzzer,address,undefined", HERE / "fuzz.c", *SOURCES, "-o", out)
    assert "Done" in run(
        out, f"-max_total_time={SECONDS}", "-max_len=9000", "-seed=7", f"-artifact_prefix={tmp_path}/"
    )


def test_neon_under_an_emulator(tmp_path: Path) -> None:
    if shutil.which("qemu-aarch64-static") is None:
        pytest.skip("qemu-aarch64-static is not installed")
    out = tmp_path / "arm"
    compile_with("aarch64-linux-gnu-gcc", "-O2", "-static", HERE / "check.c", *SOURCES, "-o", out)
    assert "the last neon" in run("qemu-aarch64-static", out, str(SECONDS), "20")
