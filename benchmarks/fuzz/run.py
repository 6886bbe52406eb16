"""Damaged files against every reader, for longer than the tests have; see README.md."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1]))

from tests.fuzz.campaign import MOST_SECONDS, run  # noqa: E402
from tests.fuzz.subjects import SUBJECTS  # noqa: E402
from tests.fuzz.test_sanitized import REACH_C, build, python  # noqa: E402


def installed(cases: int, seed: int) -> dict[str, Any]:
    """Every reader, with the native module as it is installed."""
    found = {}
    for name in SUBJECTS:
        with tempfile.TemporaryDirectory() as folder:
            found[name] = asdict(run(name, cases=cases, seed=seed, folder=Path(folder)))
        print(name, {**found[name], "failures": len(found[name]["failures"])}, flush=True)
    return found


def sanitized(cases: int, seed: int) -> dict[str, Any]:
    """Those whose values reach C, with that C under the address and undefined-behaviour sanitizers."""
    with tempfile.TemporaryDirectory() as folder:
        module = build(Path(folder) / "_native.so")
        found = {}
        for name in REACH_C:
            given = ("--native", str(module), "--cases", str(cases), "--seed", str(seed), name)
            done = python("-m", "tests.fuzz.campaign", *given, seconds=7200)
            lines = done.stdout.splitlines()
            found[name] = json.loads(lines[-1]) if lines else {"cases": 0, "failures": [done.stderr[-2000:]]}
            found[name].pop("subject", None)
            if done.returncode and not found[name]["failures"]:
                found[name]["failures"] = [done.stderr[-2000:]]
            print("sanitized", name, found[name]["cases"], len(found[name]["failures"]), flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1000)
    given = parser.parse_args()
    torch.set_num_threads(1)
    plain, checked = installed(given.cases, given.seed), sanitized(given.cases // 10, given.seed + 1)
    reports = [*plain.values(), *checked.values()]
    result = {
        "cases": sum(report["cases"] for report in reports),
        "failures": sum(len(report["failures"]) for report in reports),
        "slowest_seconds": max(report.get("slowest_seconds", 0.0) for report in reports),
        "allowed_seconds": MOST_SECONDS,
        "most_grown_bytes": max(report["grown_bytes"] for report in plain.values()),
        "readers": plain,
        "readers_under_sanitizers": checked,
    }
    (HERE / "result.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
