"""Predicted against measured step time: plans of several networks, action sets and budgets, run on this machine.

Each network is captured and its operators timed once; then each plan's step runs a few times and the fastest counts:
over this machine's disk, and over one slowed down to the link below, where plans that move too much must wait.
Ranks are compared within each network, over all plans, and over all plans as slowdowns (each network's plain step = 1).

Plans are made with few walks: many plans are wanted, not the best.

python benchmarks/plan-predicted/run.py [--tiny] [NETWORK …]   # networks measured before are kept
"""

import json
import random
import sys
import time
from itertools import islice
from pathlib import Path

import torch
from scipy.stats import spearmanr

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.api.training import rebudget, smallest_budget

import outsize
from outsize import api, decide, links, zoo
from outsize.device.link import EmulatedLink
from outsize.plan import PlanSettings
from outsize.runtime.tiers import DiskTier
from outsize.runtime.tiers.disk import DiskSettings
from outsize.zoo import Workload
from plan_bench import save

TINY = "--tiny" in sys.argv
#: Name → batch and size at which activations dominate and a step takes a few tenths of a second on two cores.
NETWORKS = {
    "unet2d": (8, 96), "autoencoder": (256, 64), "vit": (16, 112), "unet3d": (1, 32),
}  # fmt: skip
#: Good plans and bad ones: where every plan costs 1 or 2 % of the step, ranks tell nothing but the noise of the runs.
PLANNERS = {
    "search, all": ("search", ("swap", "recompute", "encode")),
    "search, recompute": ("search", ("recompute",)),
    "units": ("units", ("swap", "recompute")),
    "slack": ("slack", ("swap",)),
    "distance": ("distance", ("swap",)),
}
PLACES = (0.0, 0.1, 0.3)
STEPS = 4
#: Name → link over the tier; None is the disk as it is.
LINKS = {"disk": None, "slow": EmulatedLink(bytes_per_second=150e6, latency_seconds=1e-3)}


def step(work: Workload, module: torch.nn.Module, count: int) -> tuple[float, float, int]:
    """Predicted and fastest measured seconds of the plan that the last steps ran with, and its decisions."""
    seconds = []
    for batch in islice(work.batches(), count):
        module.zero_grad(set_to_none=True)
        work.loss_fn(module(*batch.args), batch.target).backward()
        record = outsize.report(module, timelines=False)
        seconds.append(record.measured_step_seconds)
    return record.predicted_step_seconds, min(seconds[1:]), len(record.decisions)


def over(link: EmulatedLink | None) -> None:
    """Every disk tier from now on has this link, the one that link rates are measured on as well."""
    made = lambda directory=None, **_: DiskTier(directory, settings=DiskSettings(link=link))  # noqa: E731
    api.DiskTier = links.DiskTier = made  # type: ignore[assignment,misc]
    links.forget_links()


def measure(name: str, link: str) -> list[dict]:
    batch, size = (None, None) if TINY else NETWORKS[name]
    over(LINKS[link])
    work = zoo.load(name, seed=0, tiny=TINY, batch=batch, size=size)
    module = outsize.compile(work.module, 2**40)
    predicted, measured, _ = step(work, module, STEPS)
    rows = [
        {
            "network": name,
            "link": link,
            "planner": "plain",
            "place": 1.0,
            "predicted": predicted,
            "measured": measured,
        }
    ]
    plain, args = outsize.report(module).plain_peak_bytes, work.example().args
    planners = {n: (p, a) for n, (p, a) in PLANNERS.items() if link == "disk" or "swap" in a}
    cases = [(name, place) for name in planners for place in PLACES]
    lowest = {n: smallest_budget(module, args, planner=p, actions=a) for n, (p, a) in planners.items()}
    random.Random(0).shuffle(cases)
    for chosen, place in cases:
        planner, actions = PLANNERS[chosen]
        budget = int(lowest[chosen] + place * (plain - lowest[chosen]))
        rebudget(module, budget, planner=planner, actions=actions)
        predicted, measured, decisions = step(work, module, STEPS)
        rows.append({"network": name, "link": link, "planner": chosen, "place": place, "predicted": predicted,
                     "measured": measured, "decisions": decisions})  # fmt: skip
        print(rows[-1], f"{time.perf_counter() - BEGAN:.0f} s", flush=True)
    for row in rows:
        row |= {f"{k}_slowdown": row[k] / rows[0][k] for k in ("predicted", "measured")}
    return rows


def rank(rows: list[dict], suffix: str = "") -> float:
    return float(
        spearmanr([r[f"predicted{suffix}"] for r in rows], [r[f"measured{suffix}"] for r in rows])[0]
    )


decide.PlanSettings = lambda **asked: PlanSettings(moves=20, polished_ops=2_500, **asked)  # type: ignore[assignment,misc]
BEGAN = time.perf_counter()
path = Path(__file__).with_name("result.json")
known = json.loads(path.read_text())["rows"] if path.is_file() and not TINY else []
known = [row for row in known if row["network"] in NETWORKS and "link" in row]
for name in [a for a in sys.argv[1:] if a != "--tiny"] or NETWORKS:
    known = [r for r in known if r["network"] != name] + [r for link in LINKS for r in measure(name, link)]
    planned = [r for r in known if r.get("decisions")]
    result = {
        "bar": 0.9, "plans": len(planned), "spearman": rank(planned),
        "spearman_of_slowdowns": rank(planned, "_slowdown"),
        "within_network": {
            n: rank([r for r in planned if r["network"] == n]) for n in dict.fromkeys(r["network"] for r in planned)
        },
        "threads": torch.get_num_threads(), "rows": known,
    }  # fmt: skip
    print({k: v for k, v in result.items() if k != "rows"}, flush=True)
    if not TINY:
        save(__file__, result)
