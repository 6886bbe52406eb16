"""Start workers on this machine through torchrun's own interface.

    launch("outsize", ["train", "--size", "small"], workers=2)

runs `python -m outsize train --size small` twice, with RANK, WORLD_SIZE and a rendezvous on the loopback
interface set, watches the processes, ends all when one fails and restarts them if asked to. Several machines
use `torchrun` itself; the program is the same.
"""

from __future__ import annotations

import os
import sys
import uuid
from collections.abc import Sequence

from ..errors import ParallelError, RankFailure


def is_worker() -> bool:
    """Whether this process was started as one of several workers (by `launch` or `torchrun`)."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1 or "TORCHELASTIC_RUN_ID" in os.environ


def is_first() -> bool:
    """Whether this process is the one that talks to the user: rank 0, or the only one."""
    return int(os.environ.get("RANK", "0")) == 0


def launch(
    module: str,
    args: Sequence[str] = (),
    *,
    workers: int,
    max_restarts: int = 0,
    interval: float = 0.1,
) -> None:
    """Run a module (or a `.py` file) in `workers` processes and wait for them.

    Args:
        module: dotted name for `python -m`, or a path that ends in `.py`.
        args: its command-line arguments.
        workers: processes on this machine.
        max_restarts: how often all workers are started again after a failure; they then find
            `TORCHELASTIC_RESTART_COUNT` set and continue from their last checkpoint.
        interval: seconds between two looks at the processes.

    Raises:
        ParallelError: `workers` is not positive, or called from inside a worker.
        RankFailure: a worker failed and no restart was left; `phase` is `"launch"`.
    """
    if workers < 1:
        raise ParallelError(f"workers must be at least 1, got {workers}")
    if is_worker():
        raise ParallelError(
            "this process is a worker already: launch() belongs in the program that starts them"
        )
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=workers,
        run_id=str(uuid.uuid4()),
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=max_restarts,
        monitor_interval=interval,
        start_method="spawn",
        local_addr="localhost",
    )
    target = [module] if module.endswith(".py") else ["-m", module]
    try:
        elastic_launch(config, sys.executable)("-u", *target, *args)
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        raise RankFailure(
            f"rank {rank} (pid {failure.pid}) of {workers} ended with exit code {failure.exitcode} after "
            f"{max_restarts} restarts; its own message is above",
            rank=rank,
            pid=failure.pid,
            phase="launch",
        ) from None
