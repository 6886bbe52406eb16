"""Two machines that share no network, no address and no shared memory: two network namespaces of this one.

Needs the right to make them (root, or CAP_NET_ADMIN) and `ip`; `test_manners` pretends nodes where that is missing.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from .nets import batch, flat, loss_of, smooth

ROOT = Path(__file__).parents[2]
PORT = 29517


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


@pytest.fixture(scope="module")
def machines() -> Iterator[list[str]]:
    """Names of two namespaces with 10.77.0.1 and 10.77.0.2, joined by one cable."""
    if shutil.which("ip") is None:
        pytest.skip("iproute2 is not installed, so no network namespace can be made")
    names = [f"outsize-{os.getpid()}-{index}" for index in range(2)]
    ends = [f"oz{os.getpid() % 100000}{end}" for end in "ab"]
    made = []
    try:
        try:
            for name in names:
                _ip("netns", "add", name)
                made.append(name)
            _ip(
                "link",
                "add",
                ends[0],
                "netns",
                names[0],
                "type",
                "veth",
                "peer",
                "name",
                ends[1],
                "netns",
                names[1],
            )
        except subprocess.CalledProcessError as error:
            pytest.skip(f"network namespaces are not permitted here: {error.stderr.strip()}")
        for index, (name, end) in enumerate(zip(names, ends)):
            _ip("-n", name, "address", "add", f"10.77.0.{index + 1}/24", "dev", end)
            _ip("-n", name, "link", "set", end, "up")
            _ip("-n", name, "link", "set", "lo", "up")
        yield names
    finally:
        for name in made:
            _ip("netns", "delete", name)


def _train(machines: list[str], out: Path, victim: int) -> list[dict]:
    """What the workers wrote, by rank; two on each machine, under torchrun."""
    out.mkdir()
    agents = []
    for index, name in enumerate(machines):
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join([f"{ROOT}/src", str(ROOT)]), "OMP_NUM_THREADS": "1",
            "GLOO_SOCKET_IFNAME": next(line for line in _links(name) if line != "lo"),
        }  # fmt: skip
        command = [
            "ip", "netns", "exec", name, sys.executable, "-m", "torch.distributed.run", "--nnodes", "2",
            "--node-rank", str(index), "--nproc-per-node", "2", "--master-addr", "10.77.0.1", "--master-port", str(PORT),
            str(ROOT / "tests/parallel/machine.py"), str(out), str(victim),
        ]  # fmt: skip
        agents.append(
            subprocess.Popen(
                command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            )
        )
    said = []
    try:
        said = [agent.communicate(timeout=120)[0] for agent in agents]
    finally:
        for agent in agents:
            with agent:
                agent.kill()
    ranks = [rank for rank in range(4) if rank != victim]
    assert all((out / f"{rank}.json").exists() for rank in ranks), "\n".join(said)[-4000:]
    return [json.loads((out / f"{rank}.json").read_text()) for rank in ranks]


def _links(name: str) -> list[str]:
    listed = subprocess.run(
        ["ip", "-n", name, "-j", "link"], check=True, capture_output=True, text=True
    ).stdout
    return [link["ifname"] for link in json.loads(listed)]


def test_two_machines_make_the_steps_of_one(machines: list[str], tmp_path: Path) -> None:
    found = _train(machines, tmp_path / "out", victim=-1)
    assert [worker["ranks"] for worker in found] == [[0, 1], [0, 1], [2, 3], [2, 3]]
    assert {worker["nodes"] for worker in found} == {2}
    assert len({worker["digest"] for worker in found}) == 1
    assert all(worker["weights"] == found[0]["weights"] for worker in found)
    model = smooth()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for step in range(8):
        optimizer.zero_grad()
        (sum(loss_of(model(batch(step, rank))) for rank in range(4)) / 4).backward()
        optimizer.step()
    apart = (flat(model) - torch.tensor(found[0]["weights"], dtype=torch.float64)).abs().max()
    assert apart <= 1e-6


def test_a_death_on_one_machine_ends_the_other(machines: list[str], tmp_path: Path) -> None:
    for worker in _train(machines, tmp_path / "out", victim=3):
        rank, phase, waited = worker["failure"]
        assert rank == 3  # also on the other machine, where only one worker had a link to it
        assert phase
        assert waited <= 2 + 20  # a machine away, only a broken link or the timeout tells
