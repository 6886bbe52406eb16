"""Compare allocators on plain and swapped ResNet-50 steps; see README.md."""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

from outsize.device.facts import facts

HERE = Path(__file__).parent
ALLOCATORS = ("arena", "one-heap", "glibc", "jemalloc", "arena-4k", "mapped")
JEMALLOC = (
    "narenas:1,dirty_decay_ms:1000,muzzy_decay_ms:0,thp:always,oversize_threshold:0,background_thread:true"
)


def child(name: str, share: float, args: argparse.Namespace) -> dict[str, object] | None:
    environment = dict(os.environ)
    if name == "jemalloc":
        if args.jemalloc is None:
            return None
        environment |= {"LD_PRELOAD": args.jemalloc, "MALLOC_CONF": JEMALLOC}
    command = [sys.executable, str(HERE / "step.py"), name, "--swap", str(share), "--steps", str(args.steps)]
    command += ["--batch", str(args.batch), "--threads", str(args.threads)]
    command = [*args.prefix.split(), *command]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def best(runs: list[dict[str, object]], key: str) -> float:
    return min(step[key] for run in runs for step in run["steps"])  # type: ignore[attr-defined]


def typical(runs: list[dict[str, object]], key: str) -> float:
    return statistics.median(step[key] for run in runs for step in run["steps"])  # type: ignore[attr-defined]


def summary(runs: dict[str, list[dict[str, object]]]) -> dict[str, object]:
    names = [name for name in ALLOCATORS if f"{name} plain" in runs and f"{name} swapped" in runs]
    fastest = min(names, key=lambda name: best(runs[f"{name} plain"], "cpu_seconds"))
    table: dict[str, object] = {"fastest_plain": fastest}
    for name in names:
        plain, swapped = runs[f"{name} plain"], runs[f"{name} swapped"]
        fall = typical(plain, "peak_bytes") - typical(swapped, "peak_bytes")
        rss_fall = typical(plain, "peak_rss_bytes") - typical(swapped, "peak_rss_bytes")
        table[name] = {
            kind: {
                "seconds_min": best(side, "seconds"),
                "seconds_median": typical(side, "seconds"),
                "cpu_seconds_min": best(side, "cpu_seconds"),
                "meter_share_of_a_core": max(
                    step["meter_seconds"] / step["seconds"]
                    for run in side
                    for step in run["steps"]  # type: ignore[attr-defined]
                ),
                "stall_seconds_median": typical(side, "stall_seconds"),
                "peak_bytes": typical(side, "peak_bytes"),
                "peak_rss_bytes": typical(side, "peak_rss_bytes"),
            }
            for kind, side in (("plain", plain), ("swapped", swapped))
        } | {
            "swapped_over_plain": best(swapped, "seconds") / best(plain, "seconds"),
            "swapped_over_plain_cpu": best(swapped, "cpu_seconds") / best(plain, "cpu_seconds"),
            "swapped_over_fastest_plain": best(swapped, "seconds")
            / best(runs[f"{fastest} plain"], "seconds"),
            "swapped_over_fastest_plain_cpu": best(swapped, "cpu_seconds")
            / best(runs[f"{fastest} plain"], "cpu_seconds"),
            "logical_fall_bytes": fall,
            "rss_fall_over_logical_fall": rss_fall / fall,
        }
    return table


def table(summary: dict[str, object]) -> str:
    """The README's table."""
    rows = [
        "| allocator | plain: CPU s/step, wall, peak RSS | swapped: CPU s/step, wall, peak RSS | swapped ÷ plain (CPU) "
        "| swapped ÷ fastest plain (CPU) | RSS fall ÷ logical fall |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in summary.items():
        if not isinstance(row, dict):
            continue
        sides = [
            f"{side['cpu_seconds_min']:.2f}, {side['seconds_min']:.2f}, {side['peak_rss_bytes'] / 1e6:,.0f} MB"
            for side in (row["plain"], row["swapped"])
        ]
        ratios = [row["swapped_over_plain_cpu"], row["swapped_over_fastest_plain_cpu"]]
        cells = [
            name,
            *sides,
            *(f"{ratio:.3f}" for ratio in ratios),
            f"{row['rss_fall_over_logical_fall']:.2f}",
        ]
        rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows)


def write_readme(text: str) -> None:
    readme = HERE / "README.md"
    head, _, rest = readme.read_text().partition("<!-- result -->\n")
    _, _, tail = rest.partition("<!-- end -->")
    readme.write_text(f"{head}<!-- result -->\n{text}\n<!-- end -->{tail}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--share", type=float, default=0.5, help="share of the saved bytes that go to disk")
    parser.add_argument("--only", nargs="*", default=ALLOCATORS)
    parser.add_argument("--jemalloc", help="path of libjemalloc.so.2")
    parser.add_argument("--add", action="store_true", help="add to the runs in the result file")
    parser.add_argument("--prefix", default="", help="command to run each child under, such as 'nice -n -5'")
    parser.add_argument("--out", type=Path, default=HERE / "result.json")
    args = parser.parse_args()
    runs: dict[str, list[dict[str, object]]] = {}
    if args.add and args.out.exists():
        runs = json.loads(args.out.read_text())["runs"]
    settings = {key: getattr(args, key) for key in ("batch", "share", "steps", "threads", "prefix")}
    for _ in range(args.rounds):  # interleaved, so that a slow minute hits all
        for name in args.only:
            for kind, share in (("plain", 0.0), ("swapped", args.share)):
                found = child(name, share, args)
                if found is None:
                    continue
                runs.setdefault(f"{name} {kind}", []).append(found)
                last = found["steps"][-1]  # type: ignore[index]
                print(name, kind, {k: round(v, 3) for k, v in last.items()}, flush=True)
                if f"{ALLOCATORS[0]} swapped" in runs:
                    result = {
                        "machine": dict(facts()),
                        "settings": settings,
                        "summary": summary(runs),
                        "runs": runs,
                    }
                    args.out.write_text(json.dumps(result, indent=1) + "\n")
                    if args.out.parent == HERE:
                        write_readme(table(summary(runs)))


if __name__ == "__main__":
    main()
