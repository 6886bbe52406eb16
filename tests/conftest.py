"""Test processes that share a machine: one torch thread each, also in the processes that they start."""

import os

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

#: Minutes of the suite in a few tests: begun first, so that no worker is left with them at the end.
_LONGEST = (
    "test_differential.py::test_equal_or_refused",
    "test_processes.py",
    "test_torchrun.py",
    "lstm_with_dropout",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: not any(name in item.nodeid for name in _LONGEST))
