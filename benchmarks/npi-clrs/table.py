"""Prints the README's table from the committed results."""

import json
from pathlib import Path

HERE = Path(__file__).parent


def main() -> None:
    rows = json.loads((HERE / "result.json").read_text())
    print("| algorithm | proved | set | 16 | 64 | 1,000 |")
    print("|---|---|--:|--:|--:|--:|")
    for name, row in sorted(rows.items()):
        stops = " (*)" if row.get("stops") else ""
        cells = [
            name.replace("_", " "),
            ("yes" + stops) if row["proved"] else "no",
            str(row.get("sequences", "")),
            *(score(row.get("sizes", {}).get(size)) for size in ("16", "64", "1000")),
        ]
        print(f"| {' | '.join(cells)} |")
    proved = [r for r in rows.values() if r["proved"]]
    print(f"\n{len(rows)} attempted, {len(proved)} proved.\n")
    print(
        "(*) It stops with an error, and says so, where a sum is beyond what its tape holds; none of these runs does.\n"
    )
    for name, row in sorted(rows.items()):
        if not row["proved"]:
            print(f"* {name.replace('_', ' ')}: {row['why']}.")


def score(row: dict[str, int] | None) -> str:
    return "" if row is None else f"{100 * row['right'] / row['instances']:.0f} % of {row['instances']}"


if __name__ == "__main__":
    main()
