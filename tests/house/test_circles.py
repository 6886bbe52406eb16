"""No import circles between modules, those that only type checkers see included; and the floors inside `plan/`.

Read from the syntax trees, so that an import inside a function or under `TYPE_CHECKING` counts like any other.
"""

from pathlib import Path

import pytest

from .test_layers import FILES, PACKAGE, imported

#: Rooms of `plan/`, from the bottom; those on one floor leave each other alone. `model`, `chains` and the like are the
#: ground, `make` is the roof.
FLOORS = {
    "schedule": 1,
    "evict": 2,
    "swaps": 2,
    "labels": 2,
    "search": 3,
    "planners": 4,
    "make": 5,
    "parameters": 5,
    "state": 5,
}


#: Circles that type hints still make, by their first module. The list only gets shorter.
OPEN = {"outsize.programs.npi.certificate", "outsize.programs.trees.functions", "outsize.runtime.frame"}


def module(path: Path) -> str:
    parts = ("outsize", *path.relative_to(PACKAGE).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module(path): path for path in FILES}
#: A package's own names (`outsize.plan`) stand for its `__init__`, which gathers what is below it.
GATHERS = {module(path) for path in FILES if path.name == "__init__.py"}


def within(path: Path) -> set[str]:
    """Modules of the package that a file imports: the longest name that is one."""
    found = set()
    for name in imported(path):
        while name and name not in MODULES:
            name = name.rpartition(".")[0]
        if name:
            found.add(name)
    return found - {module(path)}


def circles(edges: dict[str, set[str]]) -> list[list[str]]:
    """Groups of modules that reach each other."""
    reach: dict[str, set[str]] = {}
    for start in edges:
        seen, stack = set(), [start]
        while stack:
            for other in edges.get(stack.pop(), ()):
                if other not in seen:
                    seen.add(other)
                    stack.append(other)
        reach[start] = seen
    groups = {
        tuple(sorted({a, *(b for b in reach[a] if a in reach.get(b, ()))})) for a in edges if a in reach[a]
    }
    return [list(group) for group in sorted(groups)]


def test_no_module_imports_itself_on_a_way_round() -> None:
    edges = {name: within(path) for name, path in MODULES.items() if name not in GATHERS}
    assert [circle for circle in circles(edges) if circle[0] not in OPEN] == []


def test_a_circle_would_be_found() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": set()}) == [["b", "c"]]


@pytest.mark.parametrize(
    "path", [p for p in FILES if "plan" in p.relative_to(PACKAGE).parts[:1]], ids=lambda p: str(p.relative_to(PACKAGE))
)  # fmt: skip
def test_rooms_of_the_planner_import_downwards(path: Path) -> None:
    def room(name: str) -> str:
        parts = name.split(".")
        return parts[2] if len(parts) > 2 else ""

    here = room(module(path))
    for name in within(path) if module(path) != "outsize.plan" else ():
        if name.startswith("outsize.plan."):
            there = room(name)
            low, high = FLOORS.get(there, 0), FLOORS.get(here, 0)
            assert low < high or here == there or not low, (
                f"{here} imports {there}, which is beside or above it"
            )
