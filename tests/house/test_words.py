"""One word per idea (docs/vocabulary.md) in the package's names and messages."""

import re
from pathlib import Path

import pytest

SOURCES = sorted((Path(__file__).parents[2] / "src" / "outsize").rglob("*.py"))
FORBIDDEN = re.compile(r"\b\w*(offload|paging|pagein|pageout)\w*\b", re.IGNORECASE)
#: An argument of FSDP's, which a refusal has to name.
THEIRS = "cpu_offload"


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: p.name)
def test_swap_is_never_called_otherwise(path: Path) -> None:
    assert FORBIDDEN.findall(path.read_text().replace(THEIRS, "")) == []
