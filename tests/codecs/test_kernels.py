"""The Triton programs without a GPU: run by Triton's interpreter, and compiled ahead for three
architectures."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="triton is published for Linux only")

from outsize.codecs.kernels.ahead import CASES, TARGETS, compile_ahead
from outsize.codecs.kernels.backend import _interpreted

SUITE = [
    Path(__file__).with_name(f"test_{name}.py") for name in ("contract", "others", "properties", "traffic")
]
pytestmark = pytest.mark.skipif(_interpreted(), reason="this is the interpreter's own run")


def test_the_contract_in_the_interpreter() -> None:
    """The suite of the other back ends, in a process of its own: the interpreter is chosen when triton
    loads."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-k", "triton", *map(str, SUITE)],
        env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True, timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert " passed" in done.stdout


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("case", CASES)
def test_machine_code(case: str, target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    for size in (4, 2) if case not in ("scan", "digest") else (4,):
        made = compile_ahead(case, size, target)
        assert made.spilled == 0
        assert made.registers <= 128  # two programs of eight warps, or more, to a multiprocessor
        assert made.shared_bytes <= 32 << 10
        if case.startswith(("encode", "count", "copy", "mark", "select", "digest")):
            assert made.loads[0] == 16  # the dense input
        if case.startswith(("decode", "select", "encode, fused")):
            assert made.stores[0] == 16  # the dense output
