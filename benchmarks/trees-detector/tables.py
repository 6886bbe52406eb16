"""Writes the measured parts of docs/trees.md and docs/trees-model-card.md from the committed results.

python benchmarks/trees-detector/tables.py
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from outsize.programs.trees import store

ROOT = Path(__file__).parents[2]


def result(place: str) -> dict[str, Any]:
    return json.loads((ROOT / "benchmarks" / place).read_text())


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def table(header: list[str], rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def detector(r: dict[str, Any]) -> str:
    low, high = r["located_at_1_95"]
    sound = r["left_alone_95"]
    rates = [
        ["place found first, given a bug",
         f"{percent(r['located_at_1'])} (95 % by package: {percent(low)} to {percent(high)})"],
        ["place among the first five", percent(r["located_at_5"])],
        ["place and repair", percent(r["repaired_at_1"])],
        ["sound functions left alone at the threshold",
         f"{percent(r['left_alone'])} ({percent(sound[0])} to {percent(sound[1])})"],
        ["announced at that threshold, and the right place", percent(r["announced_and_located"])],
        ["a place at random", percent(r["random_place"])],
        ["calibration error", f"{r['calibration_error']:.3f}"],
    ]  # fmt: skip
    kinds = [
        [kind, f"{v['bugs']:,}", percent(v["located_at_1"]), percent(v["repaired_at_1"])]
        for kind, v in r["by_kind"].items()
    ]
    return (
        "The shipped detector on held-out packages, one injected bug per function, mean of the four kinds "
        "(`benchmarks/trees-detector/shipped.json`):\n\n" + table(["", ""], rates) + "\n\n"
        + table(["kind", "bugs", "place", "place and repair"], kinds)
    )  # fmt: skip


def comparison(r: dict[str, Any]) -> str:
    rows = [
        [name, str(m["seeds"]), percent(m["located_at_1"]),
         "{} to {}".format(*map(percent, m["located_at_1_95_by_package"])),
         percent(m["repaired_at_1"])]
        for name, m in sorted(r["models"].items(), key=lambda pair: -pair[1]["located_at_1"])
    ]  # fmt: skip
    return (
        f"Against baselines, each trained on the same {r['training_functions_seen']:,} functions only "
        f"(`result.json`; a much "
        "smaller budget than the shipped detector's):\n\n"
        + table(["model", "seeds", "place, given a bug", "95 % by package", "place and repair"], rows)
    )


def real(r: dict[str, Any]) -> str:
    rows = []
    for name in ("one token or an exchange", "any one line"):
        for where, words in (("in_the_file", "whole file"), ("in_its_function", "its function")):
            rates = r[name][where]
            cells = [
                f"{percent(rates[f'line_at_{k}'])} ({percent(rates[f'chance_at_{k}'])})" for k in (1, 3, 5)
            ]
            rows.append([f"{name}, {words}", str(r[name]["changes"]), *cells])
    return (
        "Real one-line changes between releases of packages that no training saw "
        "(`benchmarks/trees-real`; any purpose, not "
        "only bugs): the old line among the first k, and a line at random:\n\n"
        + table(["", "changes", "1", "3", "5"], rows)
    )


def speed(r: dict[str, Any], scan: dict[str, Any]) -> str:
    ways, kernel = r["pivots"]["ways"], r["kernel"]["times_the_best_other"]
    memory = scan["resident_mb_after_files"]
    return (
        f"Speed, one core (`benchmarks/trees-speed`): all pivots rerooted "
        f"{ways['all pivots rerooted']['ratio_median']:.0f} times as "
        f"fast as one full tree per pivot, windows {ways['windows']['ratio_median']:.1f} times "
        f"({r['pivots']['nodes_per_function']:.0f} nodes per function, {r['pivots']['layers']} layers); "
        f"the sum over children "
        f"{kernel['forward']:.1f} times as fast as the best of edge list, CSR and COO "
        f"({kernel['with_gradient']:.1f} with its "
        f"gradient).\n\nScan (`benchmarks/trees-scan`): {scan['functions_per_processor_second']} functions per "
        f"processor second, one core, over {scan['files']:,} modules of the standard library with their code "
        f"outside of functions; resident "
        "MB after so many files: " + ", ".join(f"{k}: {v}" for k, v in memory.items()) + "."
    )  # fmt: skip


def similar(r: dict[str, Any]) -> str:
    columns = {"recall@1": r["recall_at_1"]}
    if "recall_at_1_strongly_rewritten" in r:
        columns["four rewrites or more"] = r["recall_at_1_strongly_rewritten"]
    rows = [[name, *(percent(column[name]) for column in columns.values())] for name in r["recall_at_1"]]
    return (
        f"Similar functions (`benchmarks/trees-similar`), rewritten functions among {r['gallery']:,}; "
        f"rewrites applied to one function: {r['rewrites_at_most']}:\n\n" + table(["", *columns], rows)
    )


def card(r: dict[str, Any], matcher: dict[str, Any]) -> str:
    model, calibration, history = store.load()
    parameters = sum(p.numel() for p in model.parameters())
    size = store.SHIPPED.stat().st_size / 1e6
    return (
        f"**Detector.** `LocalizedTreeConv`, rerooted, {model.config.layers} layers of {model.config.width} channels, "
        f"{parameters:,} parameters in half precision ({size:.1f} MB). Trained by `outsize trees train` on "
        f"{history['functions']:,} function samples or a few more (the last count that was written) drawn from "
        f"{history['training_functions']:,} distinct functions, with one bug of five kinds in half of them.\n\n"
        f"**Calibration.** On the validation packages, where one function in two had a bug: slope "
        f"{calibration.slope:.3f}, shift "
        f"{calibration.shift:.3f}, threshold {calibration.threshold:.3f}.\n\n"
        f"**Held-out packages** (synthetic bugs, {r['functions']:,} functions): place "
        f"{percent(r['located_at_1'])}, place and "
        f"repair {percent(r['repaired_at_1'])}, sound functions left alone {percent(r['left_alone'])}.\n\n"
        f"**Matcher.** Trained on {matcher['training_pairs']:,} pairs of a function and a rewritten "
        f"copy; recall@1 among "
        f"{matcher['gallery']:,} held-out functions {percent(matcher['recall_at_1']['matcher'])}."
    )  # fmt: skip


def put(document: str, mark: str, text: str) -> None:
    path = ROOT / "docs" / document
    block = re.compile(f"<!-- {mark} -->.*?<!-- /{mark} -->", re.DOTALL)
    path.write_text(block.sub(lambda _: f"<!-- {mark} -->\n{text}\n<!-- /{mark} -->", path.read_text()))


def main() -> None:
    shipped, matcher = result("trees-detector/shipped.json"), result("trees-similar/result.json")
    parts = [detector(shipped), comparison(result("trees-detector/result.json"))]
    if (ROOT / "benchmarks/trees-real/result.json").exists():
        parts.append(real(result("trees-real/result.json")))
    parts += [speed(result("trees-speed/result.json"), result("trees-scan/result.json")), similar(matcher)]
    put("trees.md", "measured", "\n\n".join(parts))
    put("trees-model-card.md", "card", card(shipped, matcher))


if __name__ == "__main__":
    main()
