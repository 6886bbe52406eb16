"""Imports point one way, from the bottom:

errors, units, native, files → values → device, codecs, fx → stages (siblings apart) → api, parallel →
integrations, programs, zoo → cli.

Read from the syntax trees, so an import inside a function counts as well.
"""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "src" / "outsize"
LEVEL = {
    "errors": 0, "units": 0, "native": 0, "files": 0,
    "values": 1,
    "device": 2, "codecs": 2, "fx": 2,
    "capture": 3, "measure": 3, "slack": 3, "plan": 3, "rewrite": 3, "runtime": 3, "report": 3,
    "observe": 4, "replay": 4, "asked": 4, "links": 4, "prepared": 4, "frozen": 4, "session": 4, "decide": 4, "api": 4,
    "parallel": 4,
    "programs": 5, "zoo": 5, "integrations": 5,
    "cli": 6,
    "__main__": 7,
}  # fmt: skip
STAGES = {name for name, level in LEVEL.items() if level == 3}
#: Rooms that must stay free of torch: they are pure, and import in milliseconds.
PURE = {"errors", "units", "files", "values", "slack", "plan", "report"}


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    """Absolute dotted names of everything the file imports, relative imports resolved."""
    parts = ("outsize", *path.relative_to(PACKAGE).with_suffix("").parts)
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(parts[: len(parts) - node.level]) if node.level else ""
            module = ".".join(filter(None, [base, node.module or ""]))
            names |= {f"{module}.{alias.name}" for alias in node.names}
    return names


FILES = [p for p in sorted(PACKAGE.rglob("*.py")) if p != PACKAGE / "__init__.py"]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_down(path: Path) -> None:
    here = room(path)
    for name in imported(path):
        if not name.startswith("outsize."):
            continue
        there = name.split(".")[1]
        if there not in LEVEL or there == here:
            continue
        assert LEVEL[there] <= LEVEL[here], f"{here} imports {there}, which is above it"
        if here in STAGES or here == "device":
            assert there not in STAGES, f"stage {here} imports its sibling {there}"


@pytest.mark.parametrize(
    "path", [p for p in FILES if room(p) in PURE], ids=lambda p: str(p.relative_to(PACKAGE))
)
def test_pure_rooms_do_not_import_torch(path: Path) -> None:
    assert not [name for name in imported(path) if name.split(".")[0] == "torch"]


def test_every_room_has_a_level() -> None:
    assert {room(p) for p in FILES} - LEVEL.keys() == set()
