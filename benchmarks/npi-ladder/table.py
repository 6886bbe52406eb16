"""Print the measured section of docs/npi.md from the committed results. A number typed by hand is a defect."""

import json
from pathlib import Path

HERE = Path(__file__).parent


def read(claim):
    path = HERE.parent / claim / "result.json"
    return json.loads(path.read_text()) if path.exists() else None


def ladder():
    runs_ = read("npi-ladder")["runs"]
    print(
        "| template | traces | verification set | least margin | primitive inputs | train + verify, CPU s | exact |"
    )
    print("|---|--:|--:|--:|--:|--:|---|")
    for name in dict.fromkeys(run["template"] for run in runs_):
        runs = [run for run in runs_ if run["template"] == name]
        first = runs[0]
        worst = {}
        for run in runs:
            for s in run["scores"]:
                key = (s["engine"], s["length"])
                worst[key] = min(worst.get(key, 1.0), s["right"] / s["of"])
        native = [f"{n:,}" for (engine, n), share in worst.items() if engine == "native" and share == 1.0]
        network = [f"{n:,}" for (engine, n), share in worst.items() if engine == "network" and share == 1.0]
        failed = [f"{n:,}: {share:.0%}" for (_, n), share in worst.items() if share < 1.0]
        exact = f"{len(runs)} seeds: {', '.join(native)}; network {', '.join(network)}"
        exact += f"; NOT: {', '.join(failed)}" if failed else ""
        seconds = max(r["train_cpu_s"] + r["verify_cpu_s"] for r in runs)
        held = all(r["holds"] for r in runs)
        print(
            f"| {name} | {first['traces']} | {first['sequences']}{'' if held else ' (NOT PROVED)'} "
            f"| {min(r['least_margin'] for r in runs):.2f} | {first['primitive_inputs']:,} | {seconds:.1f} | {exact} |"
        )


def speed():
    s = read("npi-speed")
    rate = {k: v["median"] for k, v in s["system_calls_per_s"].items()}
    print(
        f"\nSystem calls per second on one core, {s['batch']:,} additions at once, tapes included: network "
        f"{rate['network']:,.0f}, tables in numpy {rate['tables']:,.0f}, tables in C {rate['native']:,.0f}; "
        f"C over network at least {min(s['native_over_network']):.0f} times in {s['repetitions']} repetitions."
    )


def swap():
    s = read("npi-swap")
    total = sum(v["primitives"] for v in s["summary"].values())
    right = sum(v["all_right"] for v in s["summary"].values())
    print(
        f"\nSwapped primitives, controller frozen: {right} of {total} ({len(s['summary'])} templates, "
        f"{min(v['primitives'] for v in s['summary'].values())} each or more) exact on all {s['lists']} lists of "
        f"{s['length']:,} elements. Of {len(s['partial'])} trials with primitives that err, "
        f"{sum(p['holds'] for p in s['partial'])} are at or above (1 - e)^m."
    )


def controls():
    c = read("npi-controls")
    if c is None:
        return
    print(f"\nControls, worst of {c['seeds']} seeds, exact results:\n")
    first = next(iter(c["table"].values()))["worst"]
    columns = [(task, n) for task in ("addition", "sort") for n in first[task]]
    print("| model | " + " | ".join(f"{'add' if t == 'addition' else 'sort'} {n}" for t, n in columns) + " |")
    print("|---|" + "--:|" * len(columns))
    for name, entry in c["table"].items():
        cells = [entry["worst"].get(t, {}).get(n) for t, n in columns]
        print(f"| {name} | " + " | ".join("" if v is None else f"{v:.0%}" for v in cells) + " |")
    print()
    for name, s in c["random_sets"].items():
        print(
            f"* {name}: of {s['sets']} random sets of {s['executions']} executions, {s['whole_set_right']} teach the "
            f"whole set (they show {s['mean_share_of_rows_seen']:.0%} of it on average); the chosen set does."
        )


def training():
    r = read("npi-train")
    if r is None:
        return
    worst = r["worst"]
    print(
        f"\nTrain + verify on an idle machine of two cores, {r['templates']} templates, {r['seeds']} seeds: at most "
        f"{worst['wall_s']:.1f} s ({worst['template']})."
    )


def long_traces():
    r = read("npi-long")
    if r is None:
        return
    plain, segments, planned = r["runs"].values()
    mib = 2**20
    print(
        f"\nBack-propagation through one trace of {r['system_calls']:,} system calls, {r['hidden']} units: "
        f"`torch.nn.LSTM` adds {plain['resident_growth_bytes'] / mib:,.0f} MiB to the process; by segments the step's "
        f"peak is {segments['measured_peak_bytes'] / mib:.1f} MiB, under a budget of {r['budget']} "
        f"{planned['measured_peak_bytes'] / mib:.1f} MiB, loss and gradients of these two equal to the bit."
    )


if __name__ == "__main__":
    ladder()
    training()
    speed()
    swap()
    controls()
    long_traces()
