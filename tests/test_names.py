"""The public names mean the calls, in whatever order the rooms of the same names are imported."""

import subprocess
import sys

import pytest

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
