"""Who works where, and how the workers of one node come to map the same memory.

Problem: LOCAL_WORLD_SIZE says what a launcher believes, not which processes can share memory. Mechanism: the
workers exchange the kernel's boot id and their pid and network namespaces (JSON in byte tensors: nothing is
unpickled); equal keys make a node. The first worker of a node sends the arena's descriptor to the others over
a Unix socket whose name is not on any disk; both ends check the peer's user and process id.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from ..errors import ParallelError, RankFailure

_CARD = 512  # bytes of one worker's self-description


@dataclass(frozen=True, kw_only=True)
class Node:
    """One worker's place.

    Attributes:
        rank, world: of all workers.
        ranks: global ranks of this node's workers, ascending; `ranks[local_rank] == rank`.
        pids: their process ids.
        index, count: of the nodes, ordered by their lowest rank.
        local_rank: this worker's place in `ranks`.
        address: name of the node's socket, made by its first worker.
    """

    rank: int
    world: int
    ranks: tuple[int, ...]
    pids: tuple[int, ...]
    index: int
    count: int
    address: str

    @property
    def local_rank(self) -> int:
        return self.ranks.index(self.rank)

    @property
    def local_world(self) -> int:
        return len(self.ranks)

    @property
    def leads(self) -> bool:
        return self.local_rank == 0


@dataclass(frozen=True, kw_only=True)
class Groups:
    """Process groups, where there is more than one worker: all, and this worker's peers on other nodes."""

    everyone: dist.ProcessGroup | None = None
    peers: dist.ProcessGroup | None = None


def machine_key() -> str:
    """Equal for processes that can share memory, see each other's pids and reach each other's sockets."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    spaces = [os.stat(f"/proc/self/ns/{kind}").st_ino for kind in ("pid", "net", "ipc")]
    return f"{boot.read_text().strip()} {spaces} {os.geteuid()}"


def exchange(card: dict[str, Any], group: dist.ProcessGroup | None) -> list[dict[str, Any]]:
    """Every worker's card, by rank."""
    data = json.dumps(card).encode()
    if len(data) > _CARD:
        raise ParallelError(f"a worker's card has {len(data)} bytes, {_CARD} fit")
    mine = torch.zeros(_CARD, dtype=torch.uint8)
    mine[: len(data)] = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    cards = [torch.zeros_like(mine) for _ in range(dist.get_world_size(group))]
    dist.all_gather(cards, mine, group=group)
    return [json.loads(bytes(c.tolist()).rstrip(b"\0")) for c in cards]


def discover(group: dist.ProcessGroup | None, pretend_nodes: int | None = None) -> Node:
    """Find this worker's node. Without an initialised process group it is alone.

    Raises:
        ParallelError: nodes have different numbers of workers.
    """
    pid, address = os.getpid(), "\0outsize-" + secrets.token_hex(16)
    if group is None:
        return Node(rank=0, world=1, ranks=(0,), pids=(pid,), index=0, count=1, address=address)
    rank, world = dist.get_rank(group), dist.get_world_size(group)
    key = machine_key()
    if pretend_nodes is not None:
        key += f" pretended {rank * pretend_nodes // world}"
    cards = exchange({"key": key, "pid": pid, "address": address}, group)
    keys = list(dict.fromkeys(card["key"] for card in cards))
    members = {k: [r for r, card in enumerate(cards) if card["key"] == k] for k in keys}
    sizes = {len(ranks) for ranks in members.values()}
    if len(sizes) != 1:
        raise ParallelError(
            f"each node must run the same number of workers, got {[len(r) for r in members.values()]}: "
            "start torchrun with one --nproc-per-node everywhere"
        )
    ranks = members[key]
    return Node(
        rank=rank,
        world=world,
        ranks=tuple(ranks),
        pids=tuple(cards[r]["pid"] for r in ranks),
        index=keys.index(key),
        count=len(keys),
        address=cards[ranks[0]]["address"],
    )


def listen(node: Node) -> socket.socket | None:
    """The leader's socket; bound before anybody is told to connect."""
    if not node.leads or node.local_world == 1:
        return None
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    server.bind(node.address)
    server.listen(node.local_world)
    return server


def hand_out(
    server: socket.socket | None, descriptor: int, node: Node, timeout: float, check: Callable[[], None]
) -> None:
    """Give the arena to the node's other workers, and to nobody else.

    Raises:
        RankFailure: a worker did not fetch it within `timeout` seconds, or died first (from `check`).
    """
    if server is None:
        return
    waiting = set(node.pids) - {os.getpid()}
    deadline = time.monotonic() + timeout
    server.settimeout(0.1)
    with server:
        while waiting:
            try:
                connection, _ = server.accept()
            except TimeoutError:
                check()
                if time.monotonic() > deadline:
                    pid = min(waiting)
                    raise _late(node.ranks[node.pids.index(pid)], pid, timeout) from None
                continue
            with connection:
                pid, user = _peer(connection)
                if user == os.geteuid() and pid in waiting:
                    socket.send_fds(connection, [b"arena"], [descriptor])
                    waiting.discard(pid)


def fetch(node: Node, timeout: float) -> int:
    """The arena's descriptor, from the node's first worker.

    Raises:
        RankFailure: the leader did not answer within `timeout` seconds.
        ParallelError: another process answered in its place.
    """
    deadline = time.monotonic() + timeout
    while True:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.settimeout(timeout)
            try:
                client.connect(node.address)
                pid, user = _peer(client)
                if (pid, user) != (node.pids[0], os.geteuid()):
                    raise ParallelError(
                        f"process {pid} of user {user} answered instead of rank {node.ranks[0]}"
                    )
                _, descriptors, _, _ = socket.recv_fds(client, 16, 1)
                if descriptors:
                    return descriptors[0]
            except (ConnectionError, TimeoutError):
                time.sleep(0.01)
        if time.monotonic() > deadline:
            raise _late(node.ranks[0], node.pids[0], timeout)


def _peer(connection: socket.socket) -> tuple[int, int]:
    pid, user, _ = struct.unpack("iII", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return pid, user


def _late(rank: int, pid: int, timeout: float) -> RankFailure:
    return RankFailure(
        f"rank {rank} (pid {pid}) did not share memory within {timeout:g} s of startup",
        rank=rank,
        pid=pid,
        phase="startup",
    )
