"""Compare one training step of several variants, paired: see README.md.

python benchmarks/parallel-step/main.py --workers 2 --net mlp --batch 16 --out result-mlp-2.json
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

HERE = Path(__file__).parent
VARIANTS = ["local", "local-arena", "bytes", "ddp", "ddp-arena", "ours"]


def start(variant: str, args: argparse.Namespace, port: int) -> subprocess.Popen[bytes]:
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(args.workers),
        str(HERE / "worker.py"), "--variant", variant, "--net", args.net, "--batch", str(args.batch),
        "--steps", str(args.warm + args.steps), "--port", str(port),
    ]  # fmt: skip
    if args.chunk_mb is not None:
        command += ["--chunk-mb", str(args.chunk_mb)]
    return subprocess.Popen(command)


def pss(pids: list[int]) -> int:
    """Bytes in use by these processes, shared pages counted once."""
    total = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1]) * 1024
    return total


class Watch:
    """The peak of `pss` while a variant works."""

    def __init__(self, pids: list[int]) -> None:
        self.peak, self._pids, self._on = 0, pids, True
        self._thread = threading.Thread(target=self._loop)
        self._thread.start()

    def _loop(self) -> None:
        while self._on:
            self.peak = max(self.peak, pss(self._pids))
            time.sleep(0.002)

    def stop(self) -> int:
        self._on = False
        self._thread.join()
        return self.peak


def take_turns(args: argparse.Namespace, store: dist.TCPStore) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {v: {"seconds": [], "cpu_seconds": []} for v in args.variants}
    pids = {v: [int(store.get(f"{v}/pid/{r}")) for r in range(args.workers)] for v in args.variants}
    for index in range(args.warm + args.steps):
        for variant in args.variants:
            store.set(f"{variant}/go/{index}", "1")
            seconds, cpu = json.loads(store.get(f"{variant}/done/{index}"))
            if index >= args.warm:
                found[variant]["seconds"].append(seconds)
                found[variant]["cpu_seconds"].append(cpu)
    return {v: {**times, "pids": pids[v]} for v, times in found.items()}


def watch_memory(args: argparse.Namespace, store: dist.TCPStore, found: dict[str, dict[str, Any]]) -> None:
    """A few more steps under a sampler, which would disturb the timing."""
    first = args.warm + args.steps
    for variant in args.variants:
        watch = Watch(found[variant].pop("pids"))
        for index in range(first, first + args.memory_steps):
            store.set(f"{variant}/go/{index}", "1")
            store.get(f"{variant}/done/{index}")
        found[variant]["peak_pss_bytes"] = watch.stop()


def ratios(found: dict[str, dict[str, Any]]) -> dict[str, Any]:
    ours, result = found["ours"], {}
    for variant, times in found.items():
        if not variant.startswith("ddp"):
            continue
        pairs = [a / b for a, b in zip(times["seconds"], ours["seconds"])]
        result[variant] = {
            "wall_min": min(times["seconds"]) / min(ours["seconds"]),
            "wall_median_of_pairs": statistics.median(pairs),
            "cpu_min": min(times["cpu_seconds"]) / min(ours["cpu_seconds"]),
            "peak_pss": times["peak_pss_bytes"] / ours["peak_pss_bytes"],
        }
        base = "local-arena" if "arena" in variant else "local"
        if base in found and "local-arena" in found:
            for key, kind in (("seconds", "wall"), ("cpu_seconds", "cpu")):
                theirs = min(times[key]) - min(found[base][key])
                mine = min(ours[key]) - min(found["local-arena"][key])
                result[variant][f"synchronise_and_update_{kind}"] = theirs / mine
                extra = [
                    statistics.median(a - b for a, b in zip(found[one][key], found[other][key]))
                    for one, other in ((variant, base), ("ours", "local-arena"))
                ]
                result[variant][f"synchronise_and_update_{kind}_median_of_pairs"] = extra[0] / extra[1]
    if "bytes" in found and "local-arena" in found:
        mine = [a - b for a, b in zip(ours["seconds"], found["local-arena"]["seconds"])]
        result["ours"] = {
            "synchronise_and_update_seconds": statistics.median(mine),
            "seconds_to_move_its_bytes": statistics.median(found["bytes"]["seconds"]),
        }
    return result


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--net", choices=["mlp", "mlp-2048", "conv"], default="mlp")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--warm", type=int, default=20)
    parser.add_argument("--memory-steps", type=int, default=2)
    parser.add_argument("--chunk-mb", type=float, default=None)
    parser.add_argument("--memory-only", action="store_true", help="keep no timings: the run was not alone")
    parser.add_argument("--out", default=None)
    parser.add_argument("--variants", nargs="+", default=VARIANTS)
    args = parser.parse_args()
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, timeout=timedelta(seconds=300))
    args.steps += args.memory_steps  # what the workers are told
    processes = [start(variant, args, store.port) for variant in args.variants]
    args.steps -= args.memory_steps
    try:
        found = take_turns(args, store)
        watch_memory(args, store, found)
        chunk_mb = float(store.get("ours/chunk_mb")) if "ours" in args.variants else None
        store.set("end", "1")
        for process in processes:
            process.wait(60)
    finally:
        for process in processes:
            process.terminate()
    result = {
        "command": " ".join(["python", "benchmarks/parallel-step/main.py", *sys.argv[1:]]),
        "machine": platform.processor() or platform.machine(),
        "torch": torch.__version__, "cores": len(__import__("os").sched_getaffinity(0)),
        "workers": args.workers, "net": args.net, "batch": args.batch, "chunk_mb": chunk_mb,
        "ratios": ratios(found), "variants": found,
    }  # fmt: skip
    if args.memory_only:
        kept = {n: r["peak_pss"] for n, r in result["ratios"].items() if "peak_pss" in r}
        result["ratios"] = {name: {"peak_pss": share} for name, share in kept.items()}
        result["variants"] = {n: {"peak_pss_bytes": t["peak_pss_bytes"]} for n, t in found.items()}
    print(json.dumps(result["ratios"], indent=1))
    if args.out:
        (HERE / args.out).write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
