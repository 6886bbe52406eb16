"""One of two processes under torchrun: the libraries' own DDP around modules under plan, beside the plain runs.

    torchrun --nproc-per-node 2 worker.py FOLDER

prints a line of JSON for each library.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "examples"
sys.path.insert(0, str(EXAMPLES))


def say(library: str, *, equal: bool, peaks) -> None:
    line = {"library": library, "rank": os.environ["RANK"], "equal": equal}
    told = json.dumps(line | {"peak": peaks.peak_bytes, "budget": peaks.budget_bytes})
    os.write(1, f"{told}\n".encode())  # at once: another process writes to the same pipe


def main(folder: Path) -> None:
    import with_accelerate
    import with_lightning
    import with_trainer

    losses, planned = with_trainer.train(folder / "trainer", "6.5 MB")
    plain, _ = with_trainer.train(folder / "trainer-plain")
    say("transformers", equal=losses == plain, peaks=planned.peaks)

    losses, peaks = with_accelerate.train(folder / "accelerate", "3.2 MB")
    plain, _ = with_accelerate.train(folder / "accelerate-plain")
    say("accelerate", equal=losses == plain, peaks=peaks)

    losses, planned = with_lightning.train(folder / "lightning", "3.2 MB", devices=2, strategy="ddp")
    plain, _ = with_lightning.train(folder / "lightning-plain", devices=2, strategy="ddp")
    say("lightning", equal=losses == plain, peaks=planned.peaks)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
