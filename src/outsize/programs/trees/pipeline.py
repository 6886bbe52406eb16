"""Corpus to shipped detector, and detector to numbers: the two verbs `train` and `eval` as functions."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from . import calibrate, evaluate, store
from .forest import Ints
from .functions import Functions
from .inject import KINDS
from .model import Detector, DetectorConfig
from .train import Progress, TrainConfig, train
from .words import WordTable
from .workers import helped

#: Functions of the validation split that are looked at while training, evenly spread.
GLANCE = 1000
#: Seed of the bugs that the calibration sees; `outsize trees eval` uses another by default.
CALIBRATION_SEED = 7


def spread(count: int, limit: int) -> Ints:
    """Evenly spread indices, all of them where `limit` is 0 or larger than `count`."""
    if not limit or limit >= count:
        return np.arange(count)
    return np.linspace(0, count - 1, limit).astype(np.int64)


def train_detector(
    corpus: Path, out: Path, config: TrainConfig, *, sizes: DetectorConfig | None = None,
    start: Path | None = None, workers: int = 1, said: Callable[[str], None] = lambda text: None, every: int = 500,
) -> dict[str, Any]:  # fmt: skip
    """Train on `train.forest`, keep the averaged weights, calibrate on `valid.forest`, write `out`.

    Args:
        start: go on from this detector instead of fresh weights (`sizes` is then its own).
        workers: processes that train together (`workers`); the first one's average is kept.
        every: steps between two glances at the validation split; the averaged weights are then also written
            to `out` with the ending `.part`, so that a run that is cut off leaves something to go on from.

    Returns:
        The summary on the validation split.

    Raises:
        TreesError: no corpus there.
    """
    functions, valid = Functions.load(corpus / "train.forest"), Functions.load(corpus / "valid.forest")
    torch.manual_seed(config.seed)
    model, earlier = Detector(sizes), 0
    if start is not None:
        model, _, before = store.load(start)
        earlier = int(before.get("functions", 0))
        model.train()
    out.parent.mkdir(parents=True, exist_ok=True)
    history: dict[str, Any] = {"training_functions": functions.count, "config": dataclasses.asdict(config)}
    glance = valid.select(spread(valid.count, GLANCE))
    started = time.monotonic()

    def tell(progress: Progress, average: nn.Module) -> None:
        average.eval()
        rates = judge(average, glance, seed=CALIBRATION_SEED, resamples=0)
        average.train()
        history.update(dataclasses.asdict(progress) | {"functions": earlier + workers * progress.functions})
        if isinstance(average, Detector):
            store.save(average, out.with_suffix(".part"), history=history)
        said(
            f"step {progress.step}: {progress.functions:,} functions, {progress.seconds:.0f} s, losses "
            f"{progress.answer_loss:.3f} {progress.place_loss:.3f}, located {rates['located_at_1']:.1%}"
        )

    with helped(model, corpus, config, workers) if workers > 1 else nullcontext() as meeting:
        best = train(model, functions, config, said=tell, every=every, meet=meeting)
    history["workers"] = workers
    history["seconds"] = round(time.monotonic() - started, 1)
    assert isinstance(best, Detector)
    return calibrated(best, valid, out, history)


def calibrated(model: Detector, valid: Functions, out: Path, history: dict[str, Any]) -> dict[str, Any]:
    """Balance the kinds, fit the calibration, write the detector, and return the summary on the validation split."""
    words = WordTable(valid.forest.tokens, model.config.rows)
    history["kind_shifts"] = calibrate.balanced(model, valid, words, seed=CALIBRATION_SEED + 1)
    buggy, sound = _both(model, valid, CALIBRATION_SEED)
    calibration = calibrate.fit(buggy, sound)
    store.save(model, out, calibration=calibration, history=history)
    report = evaluate.summary(buggy, sound, evaluate.threshold_by_package(sound, 0.85), resamples=0)
    report["calibration_error"] = round(calibrate.expected_error(calibration, buggy, sound), 4)
    return report


def judge(
    model: evaluate.Scorer, functions: Functions, *, seed: int, resamples: int = 1000
) -> dict[str, Any]:
    """Summary at the threshold that leaves 85 % of these very functions alone."""
    buggy, sound = _both(model, functions, seed)
    return evaluate.summary(buggy, sound, evaluate.threshold_for(sound, 0.85), resamples=resamples)


def evaluate_detector(model: Path, split: Path, *, seed: int = 1, limit: int = 0) -> dict[str, Any]:
    """Judge a stored detector on a split, at the threshold that was fixed on the validation split.

    Raises:
        TreesError: no such detector or split.
    """
    detector, calibration, history = store.load(model)
    functions = Functions.load(split)
    functions = functions.select(spread(functions.count, limit))
    buggy, sound = _both(detector, functions, seed)
    # The stored threshold is a calibrated probability; the map is monotone, so compare calibrated with
    # calibrated.
    buggy, sound = (dataclasses.replace(o, top=calibrate.apply(calibration, o.top)) for o in (buggy, sound))
    report = evaluate.summary(buggy, sound, calibration.threshold)
    raw = store.Calibration()
    report["calibration_error"] = round(calibrate.expected_error(raw, buggy, sound), 4)
    report["trained_on"] = {
        k: history[k] for k in ("functions", "training_functions", "seconds") if k in history
    }
    return report


def _both(
    model: evaluate.Scorer, functions: Functions, seed: int
) -> tuple[evaluate.Outcome, evaluate.Outcome]:
    """The same functions with a bug each, and as they are. Functions that cannot have a bug are in
    neither.
    """
    rows = getattr(getattr(model, "config", None), "rows", 16384)
    words = WordTable(functions.forest.tokens, rows)
    buggy = evaluate.run(model, functions, seed=seed, share=1.0, kinds=KINDS, words=words)
    sound = evaluate.run(model, functions, seed=seed, share=0.0, kinds=KINDS, words=words)
    return buggy, sound
