"""The envelope of the code: no long file, no long function, and short ones as a rule."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted(ROOT.glob("src/outsize/**/*.py"))
FILE_P90, FILE_CAP, FUNCTION_P90, FUNCTION_CAP = 300, 400, 35, 80


def p90(values: list[int]) -> int:
    return sorted(values)[int(0.9 * (len(values) - 1))]


def functions(path: Path) -> list[tuple[int, str]]:
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found.append(((node.end_lineno or 0) - node.lineno + 1, f"{path.relative_to(ROOT)}:{node.name}"))
    return found


def test_sources_are_found() -> None:
    assert len(SOURCES) > 10


@pytest.mark.parametrize("folder", ["src/outsize", "tests", "benchmarks"])
def test_no_file_over_the_cap(folder: str) -> None:
    lengths = {
        str(p.relative_to(ROOT)): len(p.read_text().splitlines()) for p in (ROOT / folder).rglob("*.py")
    }
    assert {name: n for name, n in lengths.items() if n > FILE_CAP} == {}


#: Files of C that are longer than the cap; the list only gets shorter.
OPEN = {"arena.c", "codec_x86.c"}


def test_no_file_of_c_over_the_cap() -> None:
    files = [*ROOT.glob("src/outsize/native/*.[ch]")]
    lengths = {p.name: len(p.read_text().splitlines()) for p in files if p.name not in OPEN}
    assert files
    assert {name: n for name, n in lengths.items() if n > FILE_CAP} == {}


def test_files_are_short_as_a_rule() -> None:
    assert p90([len(p.read_text().splitlines()) for p in SOURCES]) <= FILE_P90


def test_functions() -> None:
    sizes = [item for path in SOURCES for item in functions(path)]
    assert [item for item in sizes if item[0] > FUNCTION_CAP] == []
    assert p90([size for size, _ in sizes]) <= FUNCTION_P90
