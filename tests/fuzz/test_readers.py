"""Every reader takes damaged files for a bounded time: an error of ours that names the file, or a value of use."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from outsize.files import sealed
from outsize.plan import check as checking
from outsize.programs.trees import forest, functions, wellformed
from outsize.values import json as values

from .campaign import Report, run
from .subjects import SUBJECTS

CASES = 150
#: A reader that believed one damaged length would ask for more.
MOST_GROWN_BYTES = 256 * 2**20


@pytest.mark.parametrize("name", SUBJECTS)
def test_damaged_files(name: str, tmp_path: Path) -> None:
    report = run(name, cases=CASES, seed=1, folder=tmp_path)
    assert report.failures == []
    assert report.cases == CASES
    assert report.grown_bytes < MOST_GROWN_BYTES
    assert (
        report.accepted + report.refused_in_use > 0
    )  # some come past the reader, so that the use is tried as well


def found(report: Report, words: str) -> bool:
    return any(words in failure for failure in report.failures[-1:])


#: What never fails proves nothing: a check taken away, the subject that has to notice, and how.
FAULTS = {
    "the checksum is not compared": (sealed, "_verify", lambda *a: None, "forest", "unnoticed"),
    "the tables are not held against the trees": (
        functions, "check_functions", lambda *a: None, "functions", "Error"),
    "indices into texts are believed": (forest, "_check_contents", lambda *a: None, "forest", "Error"),
    "places of operators and names are believed": (wellformed, "_places", lambda *a: None, "functions", "Error"),
    "numbers are not held against their ranges": (
        values, "_ranged", lambda kind, within, data, path: data, "hardware", "Error"),
    "a schedule names any op": (checking.__globals__, "_hold_to_the_step", lambda *a: None, "schedule", "IndexError"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_check_that_is_missing_is_found(
    fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    where, name, instead, subject, words = FAULTS[fault]
    (monkeypatch.setitem if isinstance(where, dict) else monkeypatch.setattr)(where, name, instead)
    with np.errstate(all="ignore"):
        report = run(subject, cases=600, seed=1, folder=tmp_path, until=lambda report: found(report, words))
    assert found(report, words)
