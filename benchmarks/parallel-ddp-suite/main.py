"""Run torch's own DDP tests, the ones that work on the CPU, against our wrapper: see README.md.

    python benchmarks/parallel-ddp-suite/main.py [test names]

`torch.nn.parallel.DistributedDataParallel` is replaced by a class that is `synchronize` with DDP's arguments; the
upstream module ships in the wheel. Writes result.json: passed, skipped (with upstream's reason), expected failures
(with ours) and failures.
"""

from __future__ import annotations

import io
import json
import os
import re
import sys
import time
import unittest
from pathlib import Path
from typing import Any

os.environ |= {"BACKEND": "gloo", "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
os.environ.setdefault("TEMP_DIR", "/tmp")
os.environ.setdefault("INIT_METHOD", "env://")
os.environ.setdefault("MASTER_PORT", "29511")

import torch
from torch import nn

from outsize.parallel import Distributed, ParallelError, Settings, synchronize


def upstream() -> tuple[list[str], list[str]]:
    """Upstream's DDP tests: those that run on the CPU, and those gated on GPUs (read from their decorators)."""
    import torch.testing._internal.distributed.distributed_test as module

    open_to_us, gated, decorators = [], [], []
    for line in Path(module.__file__).read_text().splitlines():
        if line.startswith("        @"):
            decorators.append(line)
        elif match := re.match(r"        def (test_\w*(?:DistributedDataParallel|ddp|DDP)\w*)\(", line):
            needs = any(
                d.strip().startswith(("@skip_if_lt_x_gpu", "@skip_if_no_gpu", "@nccl_skip"))
                for d in decorators
            )
            (gated if needs else open_to_us).append(match[1])
            decorators = []
        elif line.startswith("        def "):
            decorators = []
    return open_to_us, gated


_REDUCER = "asks for DDP's reducer, logger or communication hooks, which chunks do not have"
EXPECTED_FAILURES = {
    "test_ddp_python_error_logged": _REDUCER,
    "test_ddp_logging_data_cpu": _REDUCER,
    "test_ddp_buffer_hook_allreduce": _REDUCER,
    "test_ddp_update_process_group_new_group": _REDUCER,
    "test_ddp_remove_autograd_hooks": _REDUCER,
    "test_ddp_has_finalized": _REDUCER,
}


class Replacement(nn.Module):
    """DDP's constructor around `synchronize`."""

    def __init__(
        self, module: nn.Module, device_ids: Any = None, output_device: Any = None, **options: Any
    ) -> None:
        super().__init__()
        settings = Settings(
            broadcast_buffers=options.get("forward_sync_buffers", options.get("broadcast_buffers", True)),
            reuse_pages=False,
        )
        try:
            self._inner = [synchronize(module, chunk_mb=0.01, timeout=30, settings=settings)]
        except ParallelError as error:
            raise RuntimeError(str(error)) from error  # the class that upstream's tests name
        self.module = module

    def __reduce__(self) -> Any:
        return Replacement, (self.module,)  # as DDP's __setstate__: a copy is distributed anew

    @property
    def inner(self) -> Distributed:
        return self._inner[0]

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.inner(*args, **kwargs)

    def no_sync(self) -> Any:
        return self.inner.no_sync()

    def join(self, **options: Any) -> Any:
        return self.inner.join(**options)

    def _set_static_graph(self) -> None:
        """Chunks need no such promise."""


nn.parallel.DistributedDataParallel = Replacement  # type: ignore[misc,assignment]
torch.nn.parallel.distributed.DistributedDataParallel = Replacement  # type: ignore[misc,assignment]

from torch.testing._internal.distributed.distributed_test import DistributedTest, TestDistBackend  # noqa: E402


class TestOurs(TestDistBackend, DistributedTest._DistTestBase):  # type: ignore[misc]
    def setUp(self) -> None:
        super().setUp()
        self._spawn_processes()


def reason_of(text: str) -> str:
    lines = [line for line in text.strip().splitlines() if re.match(r"^\w*(Error|Exception|Failure)\b", line)]
    return (lines[-1] if lines else text.strip().splitlines()[-1])[:300]


def _write(found: dict[str, dict[str, str]]) -> None:
    if not sys.argv[1:]:
        counts = {kind: len(names) for kind, names in found.items()}
        text = json.dumps({"torch": torch.__version__, "counts": counts, **found}, indent=1)
        (Path(__file__).parent / "result.json").write_text(text + "\n")


def main() -> None:
    found: dict[str, dict[str, str]] = {"passed": {}, "skipped": {}, "expected_failures": {}, "failed": {}}
    tests, gated = upstream()
    found["skipped"] = dict.fromkeys(
        gated, "gated on GPUs upstream; tests/parallel/test_ported.py has what was ported"
    )
    for name in sys.argv[1:] or tests:
        begin = time.time()
        result = unittest.TextTestRunner(stream=io.StringIO()).run(unittest.TestSuite([TestOurs(name)]))
        if result.skipped:
            kind, why = "skipped", result.skipped[0][1]
        elif result.wasSuccessful():
            kind, why = "passed", ""
        else:
            kind, why = "failed", reason_of([*result.errors, *result.failures][0][1])
            if name in EXPECTED_FAILURES:
                kind, why = "expected_failures", EXPECTED_FAILURES[name]
        found[kind][name] = why
        _write(found)
        print(f"{time.time() - begin:5.0f} s {kind:18} {name} {why}", flush=True)


if __name__ == "__main__":
    main()
