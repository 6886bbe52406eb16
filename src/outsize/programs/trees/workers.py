"""Several processes train one detector: each on its own draws, meeting in a shared copy of the weights.

A processor that is shared with others gives each process a slice, and a step is too short to be split over threads
(two threads of a busy machine wait for each other: 6.7 s for a step that one does in 0.6). So every worker trains
alone, and every few steps it and the shared copy move half of the way towards each other (elastic averaging, Zhang,
Choromanska and LeCun 2015, with the largest stable step). Nobody waits for a slower one. As the learning rate falls
the workers draw together, and the first one's average is the result.
"""

from __future__ import annotations

import copy
import dataclasses
import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import TreesError
from .functions import Functions
from .model import Detector
from .train import TrainConfig, train


class Meeting:
    """The shared copy: call it with a model, and both move half of the way towards each other."""

    def __init__(self, model: nn.Module, lock: Any) -> None:
        self.lock = lock
        self.weights: Tensor = (
            nn.utils.parameters_to_vector(model.parameters()).detach().clone().share_memory_()
        )

    @torch.no_grad()
    def __call__(self, model: nn.Module) -> None:
        mine = nn.utils.parameters_to_vector(model.parameters())
        with self.lock:
            gap = (mine - self.weights) / 2
            self.weights += gap
        nn.utils.vector_to_parameters(mine - gap, model.parameters())


@contextmanager
def helped(
    model: Detector, corpus: Path, config: TrainConfig, workers: int
) -> Iterator[Callable[[nn.Module], None]]:
    """`workers - 1` further processes train while the block runs; gives what `train` is to meet.

    Raises:
        TreesError: a helper ended with an error.
    """
    context = multiprocessing.get_context("spawn")
    meeting = Meeting(model, context.Lock())
    helpers = []
    for rank in range(1, workers):
        own = dataclasses.replace(config, seed=config.seed + 1000 * rank)
        helpers.append(context.Process(target=_help, args=(copy.deepcopy(model), corpus, own, meeting)))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for helper in helpers:
            helper.start()
        yield meeting
    finally:
        torch.set_num_threads(threads)
        # They follow the same clock; one that has not begun its last step by now only costs time.
        for helper in helpers:
            helper.join(timeout=30)
            if helper.exitcode is None:
                helper.terminate()
                helper.join()
    failed = [helper.exitcode for helper in helpers if helper.exitcode not in (0, -15)]
    if failed:
        raise TreesError(f"{len(failed)} of {len(helpers)} training processes failed (exit codes {failed})")


def _help(model: Detector, corpus: Path, config: TrainConfig, meeting: Meeting) -> None:
    torch.set_num_threads(1)
    train(model.train(), Functions.load(corpus / "train.forest"), config, meet=meeting)
