"""A training program for `test_namespaces`: started by torchrun on several pretended machines."""

from __future__ import annotations

import json
import os
import signal
import sys
import time

import torch

from outsize.parallel import RankFailure, Search, Settings, distribute
from tests.parallel.nets import batch, flat, loss_of, smooth


def main(out: str, victim: int) -> None:
    """Eight steps; the victim kills itself before the sixth. Each worker writes what it saw, and fails if a step did."""
    signal.signal(
        signal.SIGTERM, signal.SIG_IGN
    )  # torchrun ends the others of a dead worker; they are to write first
    rank = int(os.environ["RANK"])
    settings = Settings(search=Search(first_mb=0.004), staging_mb=0.05)
    model, optimizer = distribute(smooth(), torch.optim.AdamW, lr=1e-3, settings=settings, timeout=20)
    node = model._worker.node
    found = {"ranks": node.ranks, "nodes": node.count, "digest": "", "weights": [], "failure": None}
    for step in range(8):
        loss = loss_of(model(batch(step, rank)))
        if step == 5 and rank == victim:
            os.kill(os.getpid(), signal.SIGKILL)
        begin = time.monotonic()
        try:
            loss.backward()
            optimizer.step()
        except RankFailure as failure:
            found["failure"] = [failure.rank, failure.phase, time.monotonic() - begin]
            break
    else:
        found |= {"digest": optimizer.chunk_plan.digest, "weights": flat(model.module).tolist()}
    with open(f"{out}/{rank}.json", "w") as file:
        json.dump(found, file)
    if found[
        "failure"
    ]:  # as an uncaught RankFailure would: torchrun waits 300 s for machines that ended differently
        sys.exit(1)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
