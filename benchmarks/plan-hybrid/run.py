"""Method 4's comparison: swap and recompute units against swapping alone, ResNets at high resolution, simulated."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.plan.families import resnet
from tests.plan.nets import MACHINES

from outsize.plan import PlanSettings
from plan_bench import Case, save

SETTINGS = PlanSettings()
rows = []
for machine in ("v100-pcie3", "v100-nvlink2"):
    for depth, size in ((50, 8000), (152, 7500)):
        case = Case(*resnet(MACHINES[machine], depth, 1, size))
        for share in (0.5, 0.4, 0.3):
            row: dict = {"machine": machine, "depth": depth, "size": size, "budget_share": share}
            row["peak_gb"] = case.peak / 1e9
            for name, planner, actions in (
                ("swap_only", "slack", ("swap",)),
                ("units", "units", ("swap", "recompute")),
                ("search", "search", ("swap", "recompute")),
            ):
                plan = case.plan(int(share * case.peak), planner, actions, SETTINGS)
                row[name] = plan.predicted_step_seconds / plan.plain_step_seconds if plan else None
            row["gain_units"] = row["swap_only"] / row["units"] if row["units"] else None
            row["gain_search"] = row["swap_only"] / row["search"] if row["search"] else None
            row["most_possible"] = row["swap_only"]
            print(row, flush=True)
            rows.append(row)
save(__file__, {"rows": rows})
