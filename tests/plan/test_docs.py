"""The worked example of docs/planning.md runs and prints what it says."""

from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "planning.md"


def test_the_worked_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    text = PAGE.read_text()
    block = text.split("```python\n")[1].split("```")[0]
    exec(compile(block, str(PAGE), "exec"), {})
    assert capsys.readouterr().out.startswith("swap f0 100 B between f1 and b0 to disk")
