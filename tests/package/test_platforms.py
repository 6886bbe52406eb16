"""macOS and Windows: everything imports, and what needs Linux says so. The systems are stood in for by what they lack."""

from __future__ import annotations

import subprocess
import sys

import pytest

#: Runs after torch, which must be loaded as what the machine is.
ELSEWHERE = """
import ctypes, os, sys
import filelock, numpy, psutil, scipy.optimize, torch, torch._dynamo, torch._inductor, typer, rich.console
from torch import nn

torch.compile(nn.Linear(2, 2), backend="aot_eager")(torch.randn(2, 2)).sum().backward()
system = {system!r}
gone = {gone!r}
for name in ("memfd_create", "O_TMPFILE", "O_DIRECT", "sched_getaffinity", "posix_fallocate", "posix_fadvise"):
    if hasattr(os, name):
        delattr(os, name)
for name in gone:
    sys.modules[name] = None  # whose import is then an ImportError
sys.modules["outsize.native._native"] = None
import platform
platform.system = lambda: {{"darwin": "Darwin", "win32": "Windows"}}[system]
sys.platform = system
real = ctypes.CDLL
def load(name, *more, **options):
    if name is None:
        raise TypeError("LoadLibrary() argument 1 must be str, not None")
    return real(name, *more, **options)
if system == "win32":
    ctypes.CDLL = load

import outsize
from outsize import codecs, integrations, parallel, values
from outsize.errors import OutsizeError, ParallelError

assert {{"compile", "plan", "codecs"}} <= set(dir(outsize))
for call in (lambda: outsize.compile(nn.Linear(2, 2), "1 GiB"), lambda: outsize.meter(nn.Linear(2, 2))):
    try:
        call()
    except OutsizeError as error:
        assert platform.system() in str(error) and "need Linux" in str(error), error
    else:
        raise AssertionError("compiled")
plan = outsize.plan(nn.Linear(64, 64), (torch.randn(32, 64),), budget="1 GiB", hardware="rtx4090")
assert plan.predicted_peak_bytes > 0
kept = codecs.compress(torch.relu(torch.randn(64, 64)))
assert kept.decompress().shape == (64, 64)
from outsize.parallel.arena import Arena
try:
    Arena.create(None)
except ParallelError as error:
    assert "needs Linux" in str(error)
else:
    raise AssertionError("made an arena")
from typer.testing import CliRunner
from outsize.cli.main import app
said = CliRunner().invoke(app, ["doctor"])
assert said.exit_code == 1, said.output
assert "does not work here" in said.output
print("fine")
"""


@pytest.mark.parametrize(("system", "gone"), [("darwin", []), ("win32", ["fcntl", "resource"])])
def test_it_imports_and_refuses_what_is_linux_only(system: str, gone: list[str]) -> None:
    code = ELSEWHERE.format(system=system, gone=gone)
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "fine"
