"""Real one-line changes between releases of packages that no training saw: is the old line among the first?

python benchmarks/trees-real/run.py --wheels runs/releases --out benchmarks/trees-real/result.json
"""

from __future__ import annotations

import argparse
import ast
import collections
import copy
import difflib
import io
import json
import tempfile
import tokenize
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from outsize.errors import TreesError
from outsize.programs.trees import scan, store
from outsize.programs.trees.corpus import _LEFT_OUT, read_pins
from outsize.programs.trees.python_front import Source, outermost_functions, syntax_tree

#: The same replacement in more functions of one release than this is a renaming, not a repair.
MOST_ALIKE = 2


class Change(NamedTuple):
    """One line of one function that a release replaced; `line` in the old file, from 1; `first` and `last` of its
    function."""

    package: str
    path: str
    text: bytes
    line: int
    first: int
    last: int
    old: str
    new: str
    kind: str


def releases(folder: Path) -> Iterator[tuple[str, Path, Path]]:
    """`(package, older wheel, next newer wheel)`."""
    groups = collections.defaultdict(list)
    for wheel in folder.glob("*.whl"):
        name, version = wheel.name.split("-")[:2]
        groups[name.lower()].append((tuple(int(p) for p in version.split(".")), wheel))
    for name, found in sorted(groups.items()):
        for (_, old), (_, new) in zip(sorted(found), sorted(found)[1:]):
            yield name, old, new


def modules(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        names = [
            n for n in archive.namelist() if n.endswith(".py") and not any(p in f"/{n}" for p in _LEFT_OUT)
        ]
        return {name: archive.read(name) for name in names}


def functions(text: bytes) -> dict[str, ast.AST]:
    """Outermost functions by name and position among those of the same name."""
    found: dict[str, ast.AST] = {}
    count: collections.Counter[str] = collections.Counter()
    for node in outermost_functions(syntax_tree(Source(text))):
        count[node.name] += 1
        found[f"{node.name}:{count[node.name]}"] = node
    return found


def code_of(function: ast.AST) -> str:
    """What the function does: docstrings left out."""
    bare = copy.deepcopy(function)
    for node in ast.walk(bare):
        body = getattr(node, "body", None)
        if (
            isinstance(body, list)
            and body
            and isinstance(body[0], ast.Expr)
            and isinstance(body[0].value, ast.Constant)
        ):
            body[0].value = ast.Constant(None)
    return ast.dump(bare)


def words_of(line: str) -> list[str]:
    try:
        return [
            t.string for t in tokenize.generate_tokens(io.StringIO(line.strip()).readline) if t.string.strip()
        ]
    except (tokenize.TokenError, IndentationError, SyntaxError):
        return line.split()


def kind_of(old: str, new: str) -> str:
    """`token`: one operator, number or name for another; `swap`: two tokens exchanged; `line`: anything else."""
    a, b = words_of(old), words_of(new)
    if len(a) == len(b):
        differ = [i for i in range(len(a)) if a[i] != b[i]]
        if len(differ) == 1 and not a[differ[0]].startswith(("'", '"', "f'", 'f"', "#")):
            return "token"
        if len(differ) == 2 and a[differ[0]] == b[differ[1]] and a[differ[1]] == b[differ[0]]:
            return "swap"
    return "line"


def changes(package: str, old: Path, new: Path) -> Iterator[Change]:
    before, after = modules(old), modules(new)
    for path in sorted(before.keys() & after.keys()):
        if before[path] == after[path]:
            continue
        try:
            was, now = functions(before[path]), functions(after[path])
            lines, others = (t.decode("utf-8").splitlines() for t in (before[path], after[path]))
        except (TreesError, UnicodeDecodeError):
            continue
        for name in was.keys() & now.keys():
            one, two = was[name], now[name]
            if code_of(one) == code_of(two):
                continue
            left, right = lines[one.lineno - 1 : one.end_lineno], others[two.lineno - 1 : two.end_lineno]
            edits = [
                o
                for o in difflib.SequenceMatcher(None, left, right, autojunk=False).get_opcodes()
                if o[0] != "equal"
            ]
            if (
                len(edits) != 1
                or edits[0][0] != "replace"
                or edits[0][2] - edits[0][1] != 1
                or edits[0][4] - edits[0][3] != 1
            ):
                continue
            at = edits[0][1]
            yield Change(package, path, before[path], one.lineno + at, one.lineno, one.end_lineno, left[at].strip(),
                         right[edits[0][3]].strip(), kind_of(left[at], right[edits[0][3]]))  # fmt: skip


def collected(folder: Path) -> list[Change]:
    """All changes but renamings and definition lines, each once."""
    trained = {pin.name.replace("-", "_") for pin in read_pins() if pin.split == "train"}
    kept: dict[tuple[str, str, str, str], Change] = {}
    for package, old, new in releases(folder):
        if package in trained:
            continue
        found = [c for c in changes(package, old, new) if not c.old.startswith(("def ", "async def ", "@"))]
        edit = lambda c: tuple(sorted(set(words_of(c.old)) ^ set(words_of(c.new))))  # noqa: E731
        alike = collections.Counter(map(edit, found))
        for change in found:
            if alike[edit(change)] <= MOST_ALIKE:
                kept[package, change.path, change.old, change.new] = change
    return list(kept.values())


def code_lines(text: bytes, first: int, last: int) -> int:
    lines = text.decode("utf-8").splitlines()[first - 1 : last]
    return sum(1 for line in lines if line.strip() and not line.strip().startswith("#"))


def rank(change: Change, findings: list[scan.Finding], first: int, last: int) -> int:
    """Place of the line among the lines of the range by their most probable finding, from 1; 0 if not reported."""
    best: dict[int, float] = {}
    for finding in findings:
        # A finding over several lines stands for the line it begins in.
        if first <= finding.line <= last:
            best[finding.line] = max(best.get(finding.line, 0.0), finding.probability)
    if change.line not in best:
        return 0
    return 1 + sum(1 for value in best.values() if value > best[change.line])


def judged(found: list[Change], detector, calibration) -> list[dict]:
    rows, scanned = [], {}
    config = scan.ScanConfig(min_probability=0.0)
    with tempfile.TemporaryDirectory() as folder:
        for change in found:
            file = Path(folder, "module.py")
            file.write_bytes(change.text)
            if change.text not in scanned:
                scanned[change.text] = list(
                    scan.scan([file], detector, calibration, config, warn=lambda text: None)
                )
            findings = scanned[change.text]
            total = len(change.text.splitlines())
            rows.append({
                "package": change.package, "kind": change.kind,
                "in_file": rank(change, findings, 1, total),
                "in_function": rank(change, findings, change.first, change.last),
                "file_lines": code_lines(change.text, 1, total),
                "function_lines": code_lines(change.text, change.first, change.last),
            })  # fmt: skip
    return rows


def rates(rows: list[dict], where: str, lines: str) -> dict:
    ranks, sizes = np.array([r[where] for r in rows]), np.array([r[lines] for r in rows])
    out = {}
    for top in (1, 3, 5):
        hit = (ranks > 0) & (ranks <= top)
        out[f"line_at_{top}"] = round(float(hit.mean()), 4)
        out[f"chance_at_{top}"] = round(float(np.minimum(top / sizes, 1).mean()), 4)
    return out


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--wheels", type=Path, default=Path("runs/releases"))
    parser.add_argument("--model", type=Path, default=store.SHIPPED)
    parser.add_argument("--show", type=int, default=0)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    detector, calibration, _ = store.load(args.model)
    found = collected(args.wheels)
    for change in [c for c in found if c.kind != "line"][: args.show]:
        print(change.package, change.path, change.line, change.kind, "\n  -", change.old, "\n  +", change.new)
    rows = judged(found, detector, calibration)
    result: dict = {"wheels": sorted(p.name for p in args.wheels.glob("*.whl")), "changes": len(rows)}
    for name, kinds in (
        ("one token or an exchange", ("token", "swap")),
        ("any one line", ("token", "swap", "line")),
    ):
        some = [r for r in rows if r["kind"] in kinds]
        if some:
            result[name] = {
                "changes": len(some), "in_the_file": rates(some, "in_file", "file_lines"),
                "in_its_function": rates(some, "in_function", "function_lines"),
            }  # fmt: skip
    text = json.dumps(result, indent=1)
    if args.out:
        args.out.write_text(text + "\n")
    print(json.dumps({k: v for k, v in result.items() if k != "wheels"}, indent=1))


if __name__ == "__main__":
    main()
