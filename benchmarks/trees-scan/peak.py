"""The largest memory of a scan of a package's largest modules, which took 4.1 GB.

python benchmarks/trees-scan/peak.py --package sympy --files 40
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import resource
import time
from pathlib import Path

import torch

from outsize.programs.trees import scan, store


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--package", default="sympy")
    parser.add_argument("--files", type=int, default=40)
    args = parser.parse_args()
    torch.set_num_threads(1)
    found = importlib.util.find_spec(args.package)
    assert found is not None
    root = Path(str(found.origin)).parent
    config = scan.ScanConfig()
    files = [p for p in root.rglob("*.py") if "tests" not in p.parts and p.stat().st_size <= config.max_bytes]
    files = sorted(files, key=lambda p: -p.stat().st_size)[: args.files]
    detector, calibration, _ = store.load()
    functions, findings, used = [], 0, time.process_time()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in scan.scan(files, detector, calibration, config, warn=print, seen=functions.append):
        findings += 1
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    result = {
        "package": args.package, "files": len(files), "bytes": sum(p.stat().st_size for p in files),
        "functions": sum(functions), "findings": findings,
        "processor_seconds": round(time.process_time() - used, 1),
        "peak_mb_before": round(before / 1024), "peak_mb": round(peak / 1024),
    }  # fmt: skip
    Path(__file__).with_name("peak.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
