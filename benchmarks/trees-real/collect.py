"""One-line fixes and functions that stayed as they were, from the releases of packages.

python benchmarks/trees-real/collect.py versions --out runs/real    # asks the index once for each project of the list
python benchmarks/trees-real/collect.py fetch --out runs/real       # the wheels of releases.json, by name and version
python benchmarks/trees-real/collect.py mine --out runs/real        # no network: fixes, sound functions, counts.json

Wheels are archives of text here: nothing of them is installed, built, imported or run, which is why source archives
are not taken (pip would have to run them to learn their names).
"""

from __future__ import annotations

import argparse
import concurrent.futures
import itertools
import json
import os
import random
import re
import shutil
import subprocess
import tempfile
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
from packaging.version import InvalidVersion, Version

from outsize.programs.trees import fixes, history
from outsize.programs.trees.corpus import SPLITS, without_copies
from outsize.programs.trees.functions import Functions, concatenate
from outsize.programs.trees.grammar import PLACES

HERE = Path(__file__).parent
PINS = HERE / "releases.json"
#: At most so many releases of a project, every one of the newest or up to every third of them.
MOST_RELEASES = 40
#: At most so many bytes of wheels of one project.
MOST_BYTES = 130_000_000
#: A function that stayed as it was over so many of the listed releases is taken to be sound.
STAYED = 10
#: Sound functions taken of one project, so that no project is most of them.
MOST_SOUND = 400
_PIP = ["--no-deps", "--only-binary=:all:", "--platform=any", "--ignore-requires-python"]
_ENVIRONMENT = {**os.environ, "PIP_CONSTRAINT": os.devnull}


def plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def versions(name: str) -> list[str]:
    """The final releases of one project that have a wheel for any platform, oldest first, thinned."""
    asked = ["pip", "index", "versions", name, *_PIP[1:]]
    said = subprocess.run(asked, capture_output=True, text=True, env=_ENVIRONMENT, check=False).stdout
    found = []
    for line in said.splitlines():
        for text in line.partition("Available versions: ")[2].split(", "):
            try:
                version = Version(text)
            except InvalidVersion:
                continue
            if not version.is_prerelease:
                found.append((version, text))
    newest = [text for _, text in sorted(found, reverse=True)]
    return newest[:: max(1, min(3, len(newest) // MOST_RELEASES))][:MOST_RELEASES][::-1]


def wheels(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.whl"), key=lambda path: Version(path.name.split("-")[1]))


def fetch(wanted: list[tuple[str, str]], out: Path) -> None:
    """Some wheels of different projects in one call; one by one where that fails."""
    folder = Path(tempfile.mkdtemp(dir=out))
    command = ["pip", "download", "-q", *_PIP, "-d", str(folder)]
    if subprocess.run(
        [*command, *(f"{n}=={v}" for n, v in wanted)], env=_ENVIRONMENT, check=False
    ).returncode:
        for name, version in wanted:
            subprocess.run([*command, f"{name}=={version}"], env=_ENVIRONMENT, check=False)
    names = {plain(name): name for name, _ in wanted}
    for path in folder.glob("*.whl"):
        target = out / "wheels" / names[plain(path.name.split("-")[0])]
        target.mkdir(parents=True, exist_ok=True)
        shutil.move(path, target / path.name)
    shutil.rmtree(folder)


def fetch_all(pins: list[dict], out: Path) -> None:
    """In rounds, the newest release of each project first, so that a run that is cut off has some of all."""
    (out / "wheels").mkdir(parents=True, exist_ok=True)
    for depth in range(max(len(pin["releases"]) for pin in pins)):
        wanted = []
        for pin in pins:
            there = wheels(out / "wheels" / pin["name"])
            if depth < len(pin["releases"]) and sum(p.stat().st_size for p in there) < MOST_BYTES:
                version = pin["releases"][-1 - depth]
                if version not in {path.name.split("-")[1] for path in there}:
                    wanted.append((pin["name"], version))
        random.Random(depth).shuffle(wanted)
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            parts = [wanted[at : at + 12] for at in range(0, len(wanted), 12)]
            list(pool.map(lambda part: fetch(part, out), parts))
        print(f"round {depth}: {len(wanted)} wheels", flush=True)


def mine(name: str, folder: Path) -> tuple[list[tuple], list[str], Counter]:
    """Fixes, texts of sound functions, and counts, of one project."""
    counts: Counter = Counter()
    releases = [history.Release(path) for path in wheels(folder)]
    counts["releases"] = len(releases)
    rows, seen = [], set()
    for old, new in itertools.pairwise(releases):
        found = []
        for change in history.changes(old, new):
            counts["functions that differ in one line"] += 1
            before, after = fixes.packed(change.before), fixes.packed(change.after)
            edit = fixes.edit_between(before, after) if before is not None and after is not None else None
            if edit is not None:
                found.append((change, before, after, edit))
        for index in fixes.without_renamings([row[3] for row in found]).tolist():
            change, before, after, edit = found[index]
            rows.append((change.path, change.name, change.before, change.after, (name, before, after, edit)))
        counts["rewrites, before renamings"] += len(found)
    # What was turned back later is no fix, whichever way was right.
    texts = {(path, function, before, after) for path, function, before, after, _ in rows}
    kept = [row for row in rows if (row[0], row[1], row[3], row[2]) not in texts]
    counts["fixes"] = len(kept)
    sound = []
    if len(releases) > STAYED:
        for _, _, text in history.unchanged(releases[-1 - STAYED], releases[-1]):
            if text not in seen:
                seen.add(text)
                sound.append(text)
        counts["functions that stayed"] = len(sound)
        sound = random.Random(0).sample(sound, min(len(sound), MOST_SOUND))
    for release in releases:
        release.close()
    return [row[4] for row in kept], sound, counts


def sound_functions(texts: list[str]) -> Functions | None:
    found = [one for one in map(fixes.packed, texts) if one is not None and one.forest.nodes <= 512]
    return concatenate(found) if found else None


def mine_all(pins: list[dict], out: Path) -> dict:
    """Write `fixes-SPLIT.*` and `sound-SPLIT.forest` and give the counts."""
    total: dict[str, Counter] = defaultdict(Counter)
    by_project = {}
    for split in SPLITS:
        rows, sound, owner = [], [], []
        mine_of = [pin for pin in pins if pin["split"] == split]
        for number, pin in enumerate(mine_of):
            found, texts, counts = mine(pin["name"], out / "wheels" / pin["name"])
            part = sound_functions(texts)
            if part is not None:
                sound.append(part)
                owner.append(np.full(part.count, number))
            rows += found
            by_project[pin["name"]] = {"split": split, **counts}
            total[split].update(counts)
            print(split, pin["name"], dict(counts), flush=True)
        labelled = fixes.Fixes.of(rows)
        labelled.save(out, f"fixes-{split}")
        whole, owners = concatenate(sound), np.concatenate(owner)
        chosen, _ = without_copies(whole)
        whole = whole.select(chosen)
        whole.columns["distribution"] = owners[chosen].astype(np.int32)
        whole.compact().save(out / f"sound-{split}.forest")
        total[split]["distinct fixes"] = labelled.count
        total[split]["distinct sound functions"] = whole.count
        for kind, count in Counter(labelled.kind.tolist()).items():
            total[split][PLACES[kind]] = count
    return {"splits": {k: dict(v) for k, v in total.items()}, "projects": by_project}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("step", choices=["versions", "fetch", "mine"])
    parser.add_argument("--out", type=Path, default=Path("runs/real"))
    args = parser.parse_args()
    pins = json.loads(PINS.read_text())["projects"]
    if args.step == "versions":
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            found = list(pool.map(versions, [pin["name"] for pin in pins]))
        pins = [{**pin, "releases": list(r)} for pin, r in zip(pins, found)]
        lines = ",\n".join(f" {json.dumps(pin)}" for pin in pins)
        PINS.write_text('{"projects": [\n' + lines + "\n]}\n")
    elif args.step == "fetch":
        fetch_all(pins, args.out)
    else:
        counts = mine_all(pins, args.out)
        (HERE / "counts.json").write_text(json.dumps(counts, indent=1) + "\n")


if __name__ == "__main__":
    main()
