"""Every command and every piece of Python in these documents runs, and prints what the document says.

Models are trained at their tiny sizes for two steps; nothing else is changed. `make` itself is not run: its targets
are checked to be there, and what `make train` runs is run.
"""

import contextlib
import io
import re
import runpy
import shlex
import tomllib
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from outsize.cli.main import app

ROOT = Path(__file__).parents[2]
DOCUMENTS = (
    "README.md", "CONTRIBUTING.md", "docs/tour.md", "docs/training.md", "docs/example.md", "docs/vocabulary.md",
    "docs/tutorial.md", "docs/uses.md", "docs/integrations.md", "docs/limits.md", "docs/measured.md",
)  # fmt: skip
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
#: What makes a command quick. The 3D U-Net needs 32 voxels a side for a budget below its plain peak to bind.
SMALL = {
    "train": ["--tiny", "--steps", "2"],
    "plan": ["--tiny"],
    "report": [],
    "trees": [],
    "npi": [],
    "doctor": [],
}
SIZES = {"unet3d": ["--size", "32"]}


def blocks(document: str) -> list[tuple[str, str]]:
    return BLOCK.findall((ROOT / document).read_text())


def commands(text: str) -> list[list[str]]:
    found = [shlex.split(line, comments=True) for line in text.splitlines()]
    return [words for words in found if words]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    torch._dynamo.reset()
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)


SHELL = [
    pytest.param(commands(text), id=f"{document}:{number}")
    for document in DOCUMENTS
    for number, (language, text) in enumerate(blocks(document))
    if language == "sh"
]


@pytest.mark.parametrize("lines", SHELL)
def test_commands_run(lines: list[list[str]]) -> None:
    """The commands of one block, in order and in one folder: a later one may read what an earlier one wrote."""
    assert lines
    for words in lines:
        run(words)


def run(words: list[str]) -> None:
    match words:
        case ["make", target, *rest]:
            assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE), target
            assert all(word.startswith("ARGS=") for word in rest)
            if target == "train":
                run(["outsize", "train", *(shlex.split(rest[0].removeprefix("ARGS=")) if rest else [])])
        case ["pip", "install", "."]:
            assert (ROOT / "pyproject.toml").exists()
        case ["pip", "install", wanted] if extra := re.fullmatch(r"\.\[(\w+)\]", wanted):
            extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
            assert extra[1] in extras
        case ["outsize", verb, *rest]:
            outsize(verb, rest)
        case ["python", script]:
            runpy.run_path(str(ROOT / script), run_name="__main__")
        case _:
            pytest.fail(f"no way to run {words}")


def outsize(verb: str, rest: list[str]) -> None:
    torch._dynamo.reset()
    small = SMALL[verb] + SIZES.get(rest[0] if rest else "", [])
    if rest and ":" in rest[0]:
        small = ["--steps", "2"]
    if "--sweep" in rest:
        small = [*small, "--points", "3"]
    result = CliRunner().invoke(app, [verb, *rest, *small])
    fine = (0, 1) if verb == "trees" else (0,)  # 1: a scan that found something
    assert result.exit_code in fine, (verb, rest, result.output, result.exception)


@pytest.mark.parametrize("document", [d for d in DOCUMENTS if "python" in dict(blocks(d))])
def test_python_prints_what_is_shown(document: str) -> None:
    names: dict = {}
    printed = ""
    for language, text in blocks(document):
        if language == "python":
            out = io.StringIO()
            with contextlib.redirect_stdout(out):
                exec(compile(text, document, "exec"), names)
            printed = out.getvalue()
        elif language == "text":
            assert printed == text


def test_the_example_of_the_library_runs(capsys: pytest.CaptureFixture[str]) -> None:
    run(["python", "examples/library.py"])
    assert capsys.readouterr().out


def test_the_table_is_that_of_the_results() -> None:
    table = runpy.run_path(str(ROOT / "benchmarks/table.py"))
    for document, headlines in (("README.md", True), ("docs/measured.md", False)):
        text = (ROOT / document).read_text()
        assert table["updated"](text, headlines=headlines) == text, "run: python benchmarks/table.py --write"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_and_paths_lead_somewhere(document: str) -> None:
    text = (ROOT / document).read_text()
    folder = (ROOT / document).parent
    for target in re.findall(r"\]\(([^)#]+)", text):
        assert target.startswith("https://") or (folder / target).exists(), target
    for path in re.findall(r"`((?:src|docs|tests|benchmarks|examples)/[\w./]+)`", text):
        assert (ROOT / path.split(":")[0]).exists(), path


def test_vocabulary_places_exist() -> None:
    text = (ROOT / "docs/vocabulary.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| ") and "`" in line]
    for line in rows:
        for place in re.findall(r"`([\w./]+)`", line.rsplit("|", 2)[1]):
            assert (ROOT / "src/outsize" / place).exists(), place
