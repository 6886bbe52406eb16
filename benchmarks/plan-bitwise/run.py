"""Every network of the zoo under every planner at five budgets: losses, gradients, buffers, random stream, bit for bit.

Budgets lie 0, 0.25, 0.5, 0.75 and 0.95 of the way from the smallest that the planner can hold to the plain peak. Each
plan trains three steps and is compared with the plain steps from the same seed.

python benchmarks/plan-bitwise/run.py [NETWORK …]
"""

import copy
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.api.training import rebudget, smallest_budget, train

import outsize
from outsize import zoo
from plan_bench import save

PLANNERS, SHARES = ("slack", "distance", "units", "search"), (0.0, 0.25, 0.5, 0.75, 0.95)


def rows_of(name: str) -> list[dict]:
    work = zoo.load(name, seed=0, tiny=True)
    state = copy.deepcopy(work.module.state_dict())
    expected = train(work, outsize.meter(copy.deepcopy(work.module)))
    module = outsize.compile(work.module, 2**40)
    assert expected.differing(train(work, module)) == []
    plain, rows = outsize.report(module).plain_peak_bytes, []
    for planner in PLANNERS:
        module.load_state_dict(state)
        smallest = smallest_budget(module, work.example().args, planner=planner)
        for share in SHARES:
            module.load_state_dict(state)
            budget = int(smallest + share * (plain - smallest))
            rebudget(module, budget, planner=planner)
            differing = expected.differing(train(work, module))
            report = outsize.report(module)
            actions = sorted({d.action for d in report.decisions})
            rows.append({
                "network": name, "planner": planner, "share": share, "budget_bytes": budget, "actions": actions,
                "differing": differing, "measured_over_budget": report.measured_peak_bytes / budget,
            })  # fmt: skip
            print(rows[-1], flush=True)
    return rows


rows = [row for name in sys.argv[1:] or zoo.names() for row in rows_of(name)]
summary = {
    "plans": len(rows), "plans_that_act": sum(bool(r["actions"]) for r in rows),
    "equal": sum(not r["differing"] for r in rows),
    "worst_measured_over_budget": max(r["measured_over_budget"] for r in rows),
    "actions": sorted({a for r in rows for a in r["actions"]}),
}  # fmt: skip
save(__file__, {"summary": summary, "rows": rows})
