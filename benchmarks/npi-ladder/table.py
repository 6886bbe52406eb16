"""Print the table of docs/npi.md from the committed results. A number typed by hand is a defect."""

import json
from pathlib import Path

HERE = Path(__file__).parent


def read(path):
    return json.loads(path.read_text()) if path.exists() else None


def main():
    ladder, timing = read(HERE / "result.json"), read(HERE / "timing.json")
    seconds = {row["template"]: row["train_s"] + row["verify_s"] for row in timing["rows"]}
    print(
        "| template | traces | verification set | least margin | primitive inputs | train + verify | exact |"
    )
    print("|---|--:|--:|--:|--:|--:|---|")
    for name in dict.fromkeys(run["template"] for run in ladder["runs"]):
        runs = [run for run in ladder["runs"] if run["template"] == name]
        first = runs[0]
        worst = {}
        for run in runs:
            for s in run["scores"]:
                key = (s["engine"], s["length"])
                worst[key] = min(worst.get(key, 1.0), s["right"] / s["of"])
        native = [f"{n:,}" for (engine, n), share in worst.items() if engine == "native" and share == 1.0]
        network = [f"{n:,}" for (engine, n), share in worst.items() if engine == "network" and share == 1.0]
        failed = [f"{n:,}: {share:.0%}" for (_, n), share in worst.items() if share < 1.0]
        exact = f"{len(runs)} seeds, 100 % at {', '.join(native)}; network {', '.join(network)}"
        exact += f"; NOT: {', '.join(failed)}" if failed else ""
        print(
            f"| {name} | {first['traces']} | {first['sequences']} | {min(r['least_margin'] for r in runs):.2f} "
            f"| {first['primitive_inputs']:,} | {seconds[name]:.1f} s | {exact} |"
        )


if __name__ == "__main__":
    main()
