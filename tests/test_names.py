"""The public names mean the calls, in whatever order the rooms of the same names are imported."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("codecs", "errors", "measure", "parallel", "values", "zoo")

ORDERS = [
    "import outsize",
    "import outsize.plan, outsize.report",
    "import outsize.api",
    "from outsize.report import page",
    "import outsize\noutsize.compile",
    "import outsize.cli.main",
]


@pytest.mark.parametrize("first", ORDERS)
def test_calls_are_not_hidden_by_rooms(first: str) -> None:
    code = (
        f"{first}\nimport outsize\nfrom outsize import compile, meter, plan, report\n"
        "for call in (outsize.compile, outsize.meter, outsize.plan, outsize.report, compile, meter, plan, report):\n"
        "    assert callable(call), call\n"
        "from outsize.plan import make_plan\nfrom outsize.report import page\nassert callable(outsize.plan)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_names_that_the_package_tells_people_to_use_are_there() -> None:
    """Messages and docstrings say `outsize.measure.known_hardware()`: that has to work after `import outsize` alone."""
    source = "".join(path.read_text() for path in (ROOT / "src/outsize").rglob("*.py"))
    told = set(re.findall(rf"(?<![\w/.])outsize\.((?:{'|'.join(ROOMS)})\.[A-Za-z_]\w*)", source))
    assert {"measure.known_hardware", "measure.Hardware", "values.to_json"} <= told
    code = "import outsize\n" + "".join(f"outsize.{name}\n" for name in sorted(told))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
