"""Test processes that share a machine: one torch thread each, also in the processes that they start."""

import os

if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
