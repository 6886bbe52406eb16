"""Run torch's own DDP tests against our wrapper: see README.md.

    python benchmarks/parallel-ddp-suite/main.py [test names]

`torch.nn.parallel.DistributedDataParallel` is replaced by a class that is `synchronize` with DDP's arguments; the
upstream module ships in the wheel. Writes result.json: passed, skipped, expected failures and failures, with reasons.
"""

from __future__ import annotations

import ast
import io
import json
import os
import re
import sys
import time
import unittest
from multiprocessing import get_context
from pathlib import Path
from typing import Any

os.environ |= {"BACKEND": "gloo", "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
os.environ |= {"DISTRIBUTED_TESTS_DEFAULT_TIMEOUT": "90"}
os.environ.setdefault("TEMP_DIR", "/tmp")
os.environ.setdefault("INIT_METHOD", "env://")
os.environ.setdefault("MASTER_PORT", "29511")

import torch
from on_cpu import install
from torch import nn

from outsize.parallel import Distributed, ParallelError, Settings, synchronize

install()


def upstream() -> tuple[list[str], list[str]]:
    """Upstream's tests that use DDP, by themselves or through a helper: open to the CPU, and gated on GPUs."""
    import torch.testing._internal.distributed.distributed_test as module

    tree = ast.parse(Path(module.__file__).read_text())
    classes = {node.name: node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}
    methods = {n.name: n for n in classes["_DistTestBase"].body if isinstance(n, ast.FunctionDef)}

    def uses_ddp(method: ast.FunctionDef, seen: set[str]) -> bool:
        for node in ast.walk(method):
            name = node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")
            if name == "DistributedDataParallel":
                return True
            if isinstance(node, ast.Attribute) and name in methods and name not in seen:
                seen.add(name)
                if uses_ddp(methods[name], seen):
                    return True
        return False

    open_to_us, gated = [], []
    for name, method in methods.items():
        named = re.search("DDP|ddp|DistributedDataParallel", name)
        if name.startswith("test_") and (named or uses_ddp(method, set())):
            marks = [ast.unparse(mark) for mark in method.decorator_list]
            needs_gpu = any(mark.startswith(("skip_if_lt_x_gpu", "skip_if_no_gpu")) for mark in marks)
            (gated if needs_gpu else open_to_us).append(name)
    return open_to_us, gated


#: Why a test may fail, by what its error says: (pattern of the error, reason). Any other failure is one.
_MISSING = r"no attribute '({})'"
EXPECTED = [
    (_MISSING.format("register_comm_hook|_register_buffer_comm_hook"),
     "registers a communication hook: chunks hand out no buckets (shared_memory_hook is a hook for DDP itself)"),
    (_MISSING.format(
        "reducer|_build_params_for_reducer|_get_ddp_logging_data|_set_ddp_runtime_logging_sample_rate|device_mesh|"
        "_remove_autograd_hooks|bucket_bytes_cap_list|_set_ddp_sink_clone|_join_config|_update_process_group"),
     "looks into DDP's own reducer, logger or buckets, which chunks do not have"),
    (_MISSING.format("_set_params_and_buffers_to_ignore_for_model"),
     "leaves parameters out by a private list of DDP's: freeze them with requires_grad_(False) instead"),
    ("SyncBatchNorm expected input tensor to be on GPU|Cannot access accelerator device", "needs a GPU"),
    (r"torch\.float32 != torch\.float16", "DDP's private mixed precision: use autocast"),
    ("_apply_optimizer_in_backward", "refused with the reason: distribute() does what this private function does"),
]  # fmt: skip
EXPECTED_BY_NAME = {
    "test_static_graph_api_cpu": (
        "not raised",
        "wants a promise about the graph refused that chunks do not need",
    ),
    "test_invalid_static_graph": ("not raised", "wants a broken promise refused that chunks do not need"),
    "test_ddp_unused_params_rebuild_buckets_exception": (
        "not raised",
        "wants unused parameters refused; they work",
    ),
    "test_ddp_multiple_nested_unused_params_error": (
        "not raised",
        "wants unused parameters refused; they work",
    ),
    "test_ddp_device": ("None is not 1", "wants inputs moved to device_ids: the user's modules move theirs"),
    "test_ddp_profiling_torch_profiler": ("not equal", "counts DDP's all-reduces in a profile"),
    "test_ddp_broadcast_buffers_deprecation_warning": (
        "not greater than 0",
        "wants a warning of DDP's constructor",
    ),
}


def expected(name: str, error: str) -> str:
    """The reason why this error was to come, or nothing."""
    own = [EXPECTED_BY_NAME[name]] if name in EXPECTED_BY_NAME else []
    return next((reason for pattern, reason in [*own, *EXPECTED] if re.search(pattern, error)), "")


class Replacement(nn.Module):
    """DDP's constructor around `synchronize`."""

    def __init__(
        self, module: nn.Module, device_ids: Any = None, output_device: Any = None, **options: Any
    ) -> None:
        super().__init__()
        self.forward_sync_buffers = options.get(
            "forward_sync_buffers", options.get("broadcast_buffers", True)
        )
        self.process_group = options.get("process_group") or torch.distributed.group.WORLD
        settings = Settings(broadcast_buffers=self.forward_sync_buffers, reuse_pages=False)
        try:
            self._inner = [synchronize(module, chunk_mb=0.01, timeout=30, settings=settings)]
        except ParallelError as error:
            raise RuntimeError(str(error)) from error  # the class that upstream's tests name
        self.module = module

    def __reduce__(self) -> Any:
        return Replacement, (self.module,)  # as DDP's __setstate__: a copy is distributed anew

    #: For tests that hand them on to torch's own functions.
    broadcast_bucket_size, parameters_to_ignore = 250 << 20, frozenset[str]()

    @property
    def _authoritative_rank(self) -> int:
        return self.inner._turnstile._last

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
        self._start_processes(
            get_context("fork").Process
        )  # importing torch twice per test would take most of the time


def reason_of(text: str) -> str:
    lines = [line for line in text.strip().splitlines() if re.match(r"^\w*(Error|Exception|Failure)\b", line)]
    return (lines[-1] if lines else text.strip().splitlines()[-1])[:300]


def _write(found: dict[str, dict[str, str]]) -> None:
    if not sys.argv[1:]:
        counts = {kind: len(names) for kind, names in found.items()}
        text = json.dumps({"torch": torch.__version__, "counts": counts, **found}, indent=1)
        (Path(__file__).parent / "result.json").write_text(text + "\n")


def run(name: str) -> tuple[str, str]:
    """The kind of result and the reason."""
    result = unittest.TextTestRunner(stream=io.StringIO()).run(unittest.TestSuite([TestOurs(name)]))
    if result.skipped:
        return "skipped", result.skipped[0][1]
    if result.wasSuccessful():
        return "passed", ""
    error = reason_of([*result.errors, *result.failures][0][1])
    reason = expected(name, error)
    return ("expected_failures", reason) if reason else ("failed", error)


def main() -> None:
    found: dict[str, dict[str, str]] = {"passed": {}, "skipped": {}, "expected_failures": {}, "failed": {}}
    tests, gated = upstream()
    for name in sys.argv[1:] or [*tests, *gated]:
        begin = time.time()
        kind, why = run(name)
        found[kind][name] = why
        _write(found)
        print(f"{time.time() - begin:5.0f} s {kind:18} {name} {why}", flush=True)


if __name__ == "__main__":
    main()
