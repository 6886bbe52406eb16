"""The worked examples of docs/memory.md run as they are written."""

import re
from pathlib import Path

DOCUMENT = Path(__file__).parents[2] / "docs" / "memory.md"


def test_the_examples_run() -> None:
    blocks = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    assert len(blocks) == 3
    scope: dict[str, object] = {}
    for block in blocks:  # in order, as a reader types them
        exec(compile(block, str(DOCUMENT), "exec"), scope)
