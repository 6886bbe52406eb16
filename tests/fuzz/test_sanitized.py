"""The same damaged files with the C code compiled under the address and undefined-behaviour sanitizers."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from .subjects import SUBJECTS

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
NATIVE = ROOT / "src" / "outsize" / "native"
SOURCES = ("npi.c", "trees.c", "tree_layer.c")
FLAGS = (
    "-O0", "-g", "-std=c11", "-shared", "-fPIC", "-pthread", "-fvisibility=hidden", "-DPy_LIMITED_API=0x030B0000",
    "-D_GNU_SOURCE=1", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", f"-I{NATIVE}",
    f"-I{sysconfig.get_paths()['include']}",
)  # fmt: skip
#: Subjects whose values reach C.
REACH_C = tuple(
    name for name in ("forest", "functions", "detector", "matcher", "npi weights") if name in SUBJECTS
)
CASES = 60


def library(name: str) -> str:
    found = subprocess.run(["gcc", f"-print-file-name={name}"], capture_output=True, text=True).stdout.strip()
    if not os.path.isabs(found):
        pytest.skip(f"gcc has no {name} here")
    return found


def build(out: Path, sources: Path = NATIVE) -> Path:
    """The readers' part of the native module, sanitized."""
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed")
    library("libubsan.so")
    files = [
        HERE / "native.c",
        *(sources / name if (sources / name).exists() else NATIVE / name for name in SOURCES),
    ]
    done = subprocess.run(
        ["gcc", *FLAGS, *map(str, files), "-o", str(out), "-lm"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return out


def python(*arguments: str, seconds: float = 250) -> subprocess.CompletedProcess[str]:
    env = {
        **os.environ,
        "LD_PRELOAD": library("libasan.so"),
        "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=0",
        "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)]),
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=env, cwd=ROOT, timeout=seconds)


@pytest.fixture(scope="module")
def module(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("sound") / "_native.so")


def test_damaged_files_under_sanitizers(module: Path) -> None:
    given = ("--native", str(module), "--cases", str(CASES), "--seed", "2", *REACH_C)
    done = python("-m", "tests.fuzz.campaign", *given)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    reports = [json.loads(line) for line in done.stdout.splitlines()]
    assert [report["subject"] for report in reports] == list(REACH_C)
    assert all(report["cases"] == CASES for report in reports)


#: A forest whose children lie outside of it, past everything that Python checks.
BELIEVED = """
import dataclasses, sys, torch
from tests.fuzz.campaign import use_native
use_native(sys.argv[1])
from outsize.programs.trees import Topology, parse
shape = Topology.of(parse("f(1, 2)", "python"))
first = shape.first.clone()
first[0] = 10**5
dataclasses.replace(shape, first=first).mixed_sum(torch.randn(shape.nodes, 24), 8)
"""


def test_an_index_that_c_believes_is_found(module: Path, tmp_path: Path) -> None:
    """Past the checks in Python, C refuses; without its own as well, the sanitizer tells."""
    text = (NATIVE / "trees.c").read_text()
    check = "if (count[p] && (count[p] < 0 || first[p] < 0 || count[p] > rows || first[p] > rows - count[p])) return 0;"
    assert text.count(check) == 1
    sources = tmp_path / "sources"
    sources.mkdir()
    (sources / "trees.c").write_text(text.replace(check, ";"))
    believing = build(tmp_path / "_native.so", sources)
    for built, told in ((module, "lie outside"), (believing, "AddressSanitizer")):
        done = python("-c", BELIEVED, str(built))
        assert done.returncode != 0
        assert told in done.stderr, done.stderr[-3000:]
