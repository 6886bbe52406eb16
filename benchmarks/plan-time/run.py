"""Planning time against the size of the step, in seconds of CPU time of the one planning thread.

CPU time, so that what else runs on a shared machine does not count. The bars are about the default effort, 1.
"""

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.plan.families import _transformer, resnet
from tests.plan.nets import CPU, V100_PCIE3

from outsize.plan import PlanSettings
from plan_bench import Case, save

rows = []
for layers in (1, 8, 62, 250):
    case = Case(*_transformer(V100_PCIE3, layers, 512, 8, 512, 8, dropout=False, pre=True))
    budget = max(case.between(0.3), case.peak // 2)
    for planner, effort in (("slack", 1), ("distance", 1), ("search", 1), ("search", 4)):
        start = time.process_time()
        plan = case.plan(budget, planner, ("swap", "recompute", "encode"), PlanSettings(effort=effort))
        seconds = time.process_time() - start
        assert plan is not None
        rows.append({"ops": len(case.graph.ops), "planner": planner, "effort": effort, "seconds": seconds})
        print(rows[-1], flush=True)
case = Case(*resnet(CPU, 152, 16, 224))
for planner in ("slack", "distance"):
    start = time.process_time()
    case.plan(int(0.6 * case.peak), planner, ("swap",))
    rows.append({"ops": len(case.graph.ops), "model": "resnet152", "planner": planner,
                 "seconds": time.process_time() - start})  # fmt: skip
save(__file__, {"bars": {"50": 1, "2500": 10, "10000": 60}, "rows": rows})
