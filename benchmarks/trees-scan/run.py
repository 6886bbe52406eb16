"""Functions scanned per second on one core, and memory over the number of files.

flock /tmp/outsize.bench.lock nice -n -5 python benchmarks/trees-scan/run.py
"""

from __future__ import annotations

import argparse
import json
import platform
import sysconfig
import time
from pathlib import Path

import psutil
import torch

from outsize.programs.trees import scan, store

MARKS = (100, 250, 500, 1000)


def largest_modules(count: int) -> list[Path]:
    """The standard library's largest modules by bytes, in the order of their names (sizes mixed)."""
    root = Path(sysconfig.get_path("stdlib"))
    files = [p for p in root.rglob("*.py") if "site-packages" not in p.parts]
    return sorted(sorted(files, key=lambda p: -p.stat().st_size)[:count])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--files", type=int, default=1000)
    args = parser.parse_args()
    torch.set_num_threads(1)
    files = largest_modules(args.files)
    detector, calibration, _ = store.load()
    process = psutil.Process()
    functions, warnings, memory = 0, [], {}
    done = 0

    def seen(count: int) -> None:
        nonlocal functions
        functions += count

    def feed():
        nonlocal done
        for path in files:
            yield path
            done += 1
            if done in MARKS:
                memory[str(done)] = round(process.memory_info().rss / 1e6)

    config = scan.ScanConfig(min_probability=0.01)
    before = round(process.memory_info().rss / 1e6)
    wall, used = time.perf_counter(), time.process_time()
    findings = sum(
        1 for _ in scan.scan(feed(), detector, calibration, config, warn=warnings.append, seen=seen)
    )
    wall, used = time.perf_counter() - wall, time.process_time() - used
    result = {
        "machine": {"processor": platform.machine(), "torch": torch.__version__, "threads": 1},
        "files": len(files), "bytes": sum(p.stat().st_size for p in files), "functions": functions,
        "findings": findings, "warnings": len(warnings),
        "seconds": round(wall, 1), "processor_seconds": round(used, 1),
        "functions_per_second": round(functions / wall), "functions_per_processor_second": round(functions / used),
        "resident_mb_before": before, "resident_mb_after_files": memory,
    }  # fmt: skip
    Path(__file__).with_name("result.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
