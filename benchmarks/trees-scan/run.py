"""Functions scanned per second on one core, and memory over the number of files.

python benchmarks/trees-scan/run.py

The files are scanned in a mixed order, so that their sizes are alike from beginning to end, and the first quarter of
them a second time: what is lost per file would show in both.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import sysconfig
import time
from pathlib import Path

import psutil
import torch

from outsize.programs.trees import scan, store

MARKS = (50, 100, 200, 300, 400, 500, 600, 700, 800, 900, 1000)


def largest_modules(count: int) -> list[Path]:
    """The standard library's largest modules by bytes, shuffled with a fixed seed."""
    root = Path(sysconfig.get_path("stdlib"))
    files = [p for p in root.rglob("*.py") if "site-packages" not in p.parts]
    largest = sorted(sorted(files, key=lambda p: -p.stat().st_size)[:count])
    random.Random(0).shuffle(largest)
    return largest


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--files", type=int, default=1000)
    args = parser.parse_args()
    torch.set_num_threads(1)
    files, again = largest_modules(args.files), args.files // 4
    detector, calibration, _ = store.load()
    process = psutil.Process()
    functions, warnings, memory = 0, [], {}
    done = 0

    def seen(count: int) -> None:
        nonlocal functions
        functions += count

    def feed():
        nonlocal done
        for path in files[:again] if done else files:
            yield path
            done += 1
            if done in MARKS or done == args.files or done % args.files == again:
                memory[str(done)] = round(process.memory_info().rss / 1e6)
                print(done, functions, memory[str(done)], round(time.process_time(), 1), flush=True)

    config = scan.ScanConfig(min_probability=0.01)
    before = round(process.memory_info().rss / 1e6)
    wall, used = time.perf_counter(), time.process_time()
    findings = sum(
        1 for _ in scan.scan(feed(), detector, calibration, config, warn=warnings.append, seen=seen)
    )
    wall, used, scanned = time.perf_counter() - wall, time.process_time() - used, functions
    for _ in scan.scan(feed(), detector, calibration, config, warn=lambda text: None):
        pass
    result = {
        "machine": {"processor": platform.machine(), "torch": torch.__version__, "threads": 1},
        "files": len(files), "bytes": sum(p.stat().st_size for p in files), "functions": scanned,
        "findings": findings, "warnings": len(warnings),
        "seconds": round(wall, 1), "processor_seconds": round(used, 1),
        "functions_per_second": round(scanned / wall), "functions_per_processor_second": round(scanned / used),
        "resident_mb_before": before, "resident_mb_after_files": memory,
    }  # fmt: skip
    Path(__file__).with_name("result.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
