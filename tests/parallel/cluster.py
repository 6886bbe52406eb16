"""Real worker processes for tests, without paying torch's import for each: a fork server has it loaded."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import socket
import traceback
from collections.abc import Callable
from datetime import timedelta
from typing import Any

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["torch", "torch.distributed", "outsize.parallel", "tests.parallel.nets"])


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _enter(
    rank: int, world: int, port: int, body: Callable[..., Any], args: tuple[Any, ...], out: Any
) -> None:
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_RANK": str(rank)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo"}
    try:
        if world > 1:
            dist.init_process_group("gloo", timeout=timedelta(seconds=60))
        told = ("value", body(rank, *args))
    except BaseException as error:
        told = ("error", (type(error).__name__, vars(error), "".join(traceback.format_exception(error))))
    out.send_bytes(pickle.dumps(told))  # plain bytes: torch's own way shares memory that dies with us
    out.close()


class Failed(Exception):
    """A worker raised; carries the type's name and attributes."""

    def __init__(self, kind: str, fields: dict[str, Any], text: str) -> None:
        super().__init__(text)
        self.kind, self.fields = kind, fields


def start(world: int, body: Callable[..., Any], *args: Any) -> tuple[list[Any], list[Any]]:
    """Processes running `body(rank, *args)`, and the pipes their results come through."""
    port = free_port()
    processes, pipes = [], []
    for rank in range(world):
        receiver, sender = CONTEXT.Pipe(duplex=False)
        process = CONTEXT.Process(target=_enter, args=(rank, world, port, body, args, sender), daemon=True)
        process.start()
        sender.close()
        processes.append(process)
        pipes.append(receiver)
    return processes, pipes


def outcome(pipe: Any, seconds: float = 60) -> Any:
    """A worker's value, or `Failed`, or EOFError if it died without a word."""
    if not pipe.poll(seconds):
        raise TimeoutError(f"no result within {seconds} s")
    kind, value = pickle.loads(pipe.recv_bytes())
    return Failed(*value) if kind == "error" else value


def run(world: int, body: Callable[..., Any], *args: Any) -> list[Any]:
    """Every worker's result; raises the first failure."""
    processes, pipes = start(world, body, *args)
    try:
        results = [outcome(pipe) for pipe in pipes]
    finally:
        for process in processes:
            process.join(5)
            process.kill()
    for result in results:
        if isinstance(result, Failed):
            raise result
    return results
