"""Random modules and loops by the thousand: eager against plans, to the bit.

python benchmarks/differential/run.py --seeds 0 2000 --plans 9 --processes 2
python benchmarks/differential/run.py --case 17 --plans 9      one seed, told
python benchmarks/differential/run.py --shrink 17 --plans 9    the smallest case that fails as that seed does

Processes of their own take a few seeds each, so a crash or a hang is one row and not the end. What was done stands in
`progress.jsonl`: the same command goes on where it was stopped.
"""

import argparse
import collections
import contextlib
import json
import os
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
HERE, ROOT = Path(__file__).parent, Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))
#: Seeds of a process, and seconds of a seed after which it counts as hung: most take 2 to 10 of one core, a recurrent net
#: of 512 positions takes 240.
CHUNK, HUNG = 20, 2400
FAILED = ("wrong", "over", "broken", "crashed", "hung")


def work(first: int, last: int, plans: int, fresh: float, observed: float, quick: bool) -> None:
    """Print a line of JSON for each seed."""
    import torch
    from tests.differential.case import drawn
    from tests.differential.trial import Trial, hurried
    from tests.differential.verdict import plans_of

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    for seed in range(first, last):
        print(f"begins {seed}", flush=True)
        started, case = time.process_time(), drawn(seed)
        trial = Trial(case)
        with hurried() if quick else contextlib.nullcontext():
            chosen = plans_of(case, plans, fresh, observed)
            rows = [] if trial.invalid else [_row(o) for o in trial.outcomes(chosen)]
        torch._dynamo.reset()
        told = {
            "seed": seed, "invalid": trial.invalid, "rows": rows, "quick": quick,
            "seconds": time.process_time() - started,
            "case": str(case) if any(r["verdict"] in FAILED for r in rows) else "",
        }  # fmt: skip
        print(json.dumps(told), flush=True)


def _row(outcome) -> dict:
    row = {
        "verdict": outcome.verdict,
        "door": outcome.door,
        "plan": str(outcome.planned),
        "acted": list(outcome.acted),
    }
    if outcome.verdict != "equal":
        row["detail"] = outcome.detail[:600]
    if outcome.named:
        row["named"] = outcome.named
    return row


class Campaign:
    """Hands chunks of seeds to processes and writes down what they tell."""

    def __init__(self, seeds: list[int], asked: argparse.Namespace) -> None:
        self.seeds, self.asked, self.lock = seeds, asked, threading.Lock()
        #: What the rows are of: a campaign outlasts a mending, and only what failed is done again after it.
        asking = ["git", "describe", "--always", "--dirty"]
        self.code = subprocess.run(
            asking, cwd=ROOT, capture_output=True, text=True, check=False
        ).stdout.strip()

    def next(self) -> list[int]:
        with self.lock:
            chunk = []
            while self.seeds and len(chunk) < CHUNK and (not chunk or self.seeds[0] == chunk[-1] + 1):
                chunk.append(self.seeds.pop(0))
            return chunk

    def run(self) -> None:
        threads = [threading.Thread(target=self._serve) for _ in range(self.asked.processes)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _serve(self) -> None:
        while chunk := self.next():
            while chunk:
                chunk = self._process(chunk)

    def _process(self, chunk: list[int]) -> list[int]:
        """Let a process do a chunk; the seeds behind the one at which it ended too soon are left."""
        command = [sys.executable, __file__, "--worker", str(chunk[0]), str(chunk[-1] + 1)]
        command += ["--plans", str(self.asked.plans), "--fresh", str(self.asked.fresh)]
        command += ["--observed", str(self.asked.observed)]
        command += ["--quick"] if self.asked.quick else []
        worker = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
        )
        timer = self._timed(worker)
        begun, done, errors = chunk[0], set(), []
        reader = threading.Thread(target=lambda: errors.extend(worker.stderr.readlines()[-5:]))
        reader.start()
        for line in worker.stdout:
            if line.startswith("begins "):
                timer.cancel()
                begun, timer = int(line.split()[1]), self._timed(worker)
            elif line.startswith("{"):
                self._keep(line)
                done.add(begun)
        worker.wait()
        reader.join()
        hung = timer.finished.is_set()  # by itself: nobody has cancelled the last one
        timer.cancel()
        if set(chunk) <= done:
            return []
        verdict = "hung" if hung else "crashed"
        row = {
            "verdict": verdict,
            "door": "?",
            "plan": "?",
            "acted": [],
            "detail": f"exit {worker.returncode}: {''.join(errors)[-600:]}",
        }
        self._keep(json.dumps({"seed": begun, "invalid": "", "rows": [row], "seconds": 0, "case": ""}))
        return [s for s in chunk if s > begun]

    def _timed(self, worker: subprocess.Popen) -> threading.Timer:
        timer = threading.Timer(HUNG, worker.kill)
        timer.start()
        return timer

    def _keep(self, line: str) -> None:
        told = {**json.loads(line), "code": self.code}
        with self.lock, self.asked.progress.open("a") as file:
            file.write(json.dumps(told) + "\n")
        for row in told["rows"]:
            if row["verdict"] in FAILED:
                print(
                    told["case"] or told["seed"],
                    "|",
                    row["plan"],
                    row["verdict"],
                    row["detail"][:300],
                    flush=True,
                )


def summarize(told: list[dict]) -> dict:
    """Counts, and every row that failed."""
    rows = [row for one in told for row in one["rows"]]
    planned = [row for row in rows if row["plan"] != "None"]
    acted = collections.Counter(action for row in planned for action in row["acted"])
    failures = [
        {"seed": one["seed"], "case": one["case"], **row}
        for one in told
        for row in one["rows"]
        if row["verdict"] in FAILED
    ]
    refusals = collections.Counter(row["detail"].split(":")[0] for row in rows if row["verdict"] == "refused")
    return {
        "seeds": len(told),
        "seeds_by_code": dict(collections.Counter(one.get("code", "") for one in told)),
        "with_a_quick_search": sum(one.get("quick", False) for one in told),
        "invalid": sum(bool(one["invalid"]) for one in told),
        "comparisons": len(rows),
        "verdicts": _verdicts(rows),
        "verdicts_observed": _verdicts([row for row in rows if row.get("door") == "observed"]),
        "refusals": dict(refusals),
        "planned": len(planned),
        "planned_that_act": sum(bool(row["acted"]) for row in planned),
        "acted": dict(sorted(acted.items())),
        "budget_named_anew": sum(bool(row.get("named")) for row in rows),
        "cpu_seconds": round(sum(one["seconds"] for one in told)),
        "failures": failures,
    }


def _verdicts(rows: list[dict]) -> dict[str, int]:
    return dict(sorted(collections.Counter(row["verdict"] for row in rows).items()))


def one_case(seed: int, plans: int, fresh: float, observed: float, shrink: bool) -> None:
    import torch
    from tests.differential.case import drawn
    from tests.differential.shrink import shrunk
    from tests.differential.trial import Trial
    from tests.differential.verdict import plans_of

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    case = drawn(seed)
    trial, chosen = Trial(case), plans_of(case, plans, fresh, observed)
    print(case, trial.invalid)
    outcomes = [] if trial.invalid else list(trial.outcomes(chosen))
    for outcome in outcomes:
        print(
            f"  {outcome.planned}: {outcome.verdict} {' '.join(outcome.acted)} {outcome.named or ''} {outcome.detail}"
        )
    failed = next((o for o in outcomes if o.verdict in FAILED), None)
    if shrink and failed is not None:
        case, outcome = shrunk(case, chosen if failed.planned else [], failed.verdict)
        print(f"{case}\n  {outcome and outcome.planned}: {outcome and outcome.detail}\n{case.json()}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs=2, default=(0, 100), metavar=("FIRST", "END"))
    parser.add_argument("--plans", type=int, default=9, help="of each case, beside the plain step")
    parser.add_argument("--fresh", type=float, default=0.1, help="share of plans in a session of their own")
    parser.add_argument("--observed", type=float, default=0.25, help="share of plans for the observed door")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--progress", type=Path, default=HERE / "progress.jsonl")
    parser.add_argument("--out", type=Path, default=HERE / "result.json")
    parser.add_argument(
        "--quick", action="store_true", help="a search that tries a tenth of what it usually does"
    )
    parser.add_argument("--case", type=int)
    parser.add_argument("--shrink", type=int)
    parser.add_argument("--worker", type=int, nargs=2, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.worker:
        work(*asked.worker, asked.plans, asked.fresh, asked.observed, asked.quick)
        return
    from tests.differential.trial import hurried

    if asked.case is not None or asked.shrink is not None:
        seed = asked.case if asked.shrink is None else asked.shrink
        with hurried() if asked.quick else contextlib.nullcontext():
            one_case(seed, asked.plans, asked.fresh, asked.observed, asked.shrink is not None)
        return
    told = [json.loads(line) for line in asked.progress.open()] if asked.progress.exists() else []
    done = {one["seed"] for one in told}
    Campaign([s for s in range(*asked.seeds) if s not in done], asked).run()
    told = sorted((json.loads(line) for line in asked.progress.open()), key=lambda one: one["seed"])
    summary = summarize(told)
    asked.out.write_text(json.dumps(summary, indent=1) + "\n")
    print(json.dumps({k: v for k, v in summary.items() if k != "failures"}, indent=1))


if __name__ == "__main__":
    main()
