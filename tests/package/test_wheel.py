"""The wheel without a C module: built, unpacked elsewhere, and used as a new user would."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FIRST = """
import torch
from torch import nn
import outsize
from outsize import native

assert not native.available()
torch.manual_seed(0)
layers = [layer for _ in range(6) for layer in (nn.Linear(64, 64), nn.GELU())]
model = nn.Sequential(*layers, nn.Linear(64, 10))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
outsize.compile(model, budget="3 MiB", optimizer=optimizer, actions=("recompute",))
for _ in range(3):
    model(torch.randn(1024, 64)).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()
record = outsize.report(model)
assert record.budget_bytes < record.plain_peak_bytes, (record.budget_bytes, record.plain_peak_bytes)
print(record.measured_peak_bytes, record.budget_bytes)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    source, made = folder / "source", folder / "dist"
    source.mkdir()
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(ROOT / name, source)
    left_out = shutil.ignore_patterns("*.so", "*.egg-info", "__pycache__")
    shutil.copytree(ROOT / "src", source / "src", ignore=left_out)
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "."]
    environment = os.environ | {"OUTSIZE_PURE": "1"}
    subprocess.run([*build, "--wheel-dir", str(made)], cwd=source, env=environment, check=True)
    (found,) = made.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def installed(wheel: Path) -> Path:
    place = wheel.parent / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(place)
    return place


def run(installed: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *arguments], cwd=installed, env=environment, capture_output=True, text=True
    )


def test_it_is_for_any_platform_and_says_what_it_is(wheel: Path) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert wheel.name == f"outsize-{project['version']}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (metadata,) = [name for name in names if name.endswith("METADATA")]
        lines = archive.read(metadata).decode().splitlines()
    assert "outsize/py.typed" in names
    assert "Requires-Python: >=3.11" in lines
    assert {f"Classifier: Programming Language :: Python :: 3.{minor}" for minor in (11, 12, 13)} <= set(
        lines
    )
    extras = {line.removeprefix("Provides-Extra: ") for line in lines if line.startswith("Provides-Extra")}
    assert {"transformers", "lightning", "accelerate", "peft", "trl", "trees", "report"} <= extras


def test_the_version_and_the_doctor(installed: Path) -> None:
    assert run(installed, "-m", "outsize", "--version").stdout.strip() == "0.1.0"
    said = run(installed, "-m", "outsize", "doctor")
    assert said.returncode == 0, said.stderr
    assert "not built" in said.stdout


def test_a_first_planned_step_without_the_c_module(installed: Path) -> None:
    done = run(installed, "-c", FIRST)
    assert done.returncode == 0, done.stderr
    peak, budget = map(int, done.stdout.split())
    assert peak <= budget
