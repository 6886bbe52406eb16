"""Sorting, merging and searching integers of any size: the shipped models, proved, and the default of `run`."""

import random

import pytest
from typer.testing import CliRunner

from outsize.cli.main import app
from outsize.errors import NpiError
from outsize.native import available
from outsize.programs import npi
from outsize.programs.npi.library import LIBRARY
from outsize.programs.npi.library.integers import spelled

WIDE = [name for name in LIBRARY if name.endswith("_integers")]
ENGINES = ("network", "tables", "native") if available() else ("network", "tables")


@pytest.mark.parametrize("name", ["merge_sort_integers", "binary_search_integers"])
def test_the_shipped_model_is_proved(name):
    certificate = npi.verify(npi.template_of(name), npi.shipped(name))
    assert certificate.holds, certificate.not_proved
    assert certificate.sequences < 30


@pytest.mark.parametrize("name", WIDE)
def test_any_size_and_sign(name):
    entry, model, source = LIBRARY[name], npi.shipped(name), random.Random(3)
    for engine in ENGINES:
        for n in (0, 1, 2, 9):
            problem = entry.sample(source, n)
            heads = entry.encode(*problem)
            npi.run(model, [heads], engine=engine)
            assert entry.decode(heads) == entry.oracle(*problem)


def test_numbers_are_spelled_from_the_least_digit():
    assert spelled(0) == [1, 16]
    assert spelled(-18) == [0, 2, 1, 16]


@pytest.mark.skipif(not available(), reason="needs the C module")
def test_twenty_thousand_integers_of_64_bits():
    entry, source = LIBRARY["merge_sort_integers"], random.Random(4)
    xs = [source.getrandbits(64) - (1 << 63) for _ in range(20_000)]
    heads = entry.encode(xs)
    npi.run(npi.shipped("merge_sort_integers"), [heads])
    assert entry.decode(heads) == sorted(xs)


def say(*words):
    result = CliRunner().invoke(app, ["npi", "run", *words])
    return result.exit_code, result.output.strip().splitlines()[-1]


def test_any_size_is_what_run_runs():
    assert say("merge_sort", "[300, 5]") == (0, "[5, 300]")
    assert say("quick_sort", "[-1, 5, -300]") == (0, "[-300, -1, 5]")
    large = "9" * 5_000
    assert say("insertion_sort", f"[{large}, 5]") == (0, f"[5, {large}]")
    assert say("merge", "[1, 300]", "[2]") == (0, "[1, 2, 300]")
    assert say("binary_search", "[1, 300, 5000]", "301") == (0, "2")


def test_a_list_out_of_order_is_refused():
    entry = LIBRARY["merge_integers"]
    with pytest.raises(NpiError, match="ascending order, and 300 comes before 5"):
        entry.check({}, ([300, 5], [1]))
