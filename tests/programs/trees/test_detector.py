"""The detector learns, its probabilities are a distribution, and its file says what it is."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from outsize.errors import TreesError
from outsize.files import seal
from outsize.programs.trees import calibrate, evaluate, pipeline, store
from outsize.programs.trees.batch import collate
from outsize.programs.trees.functions import Functions, concatenate
from outsize.programs.trees.inject import inject
from outsize.programs.trees.model import Detector, DetectorConfig, log_sum_exp
from outsize.programs.trees.train import Progress, TrainConfig, train
from outsize.programs.trees.words import WordTable, words

from .samples import MODULES, functions

TINY = DetectorConfig(width=16, layers=2, rows=512, inner=8, head=8)


def sample(count: int = 60) -> Functions:
    whole = concatenate([functions(name)[1] for name in MODULES])
    return whole.select(pipeline.spread(whole.count, count))


def test_words() -> None:
    assert words("maxRetry_count2") == ["=maxRetry_count2", "max", "retry", "count", "2"]
    assert words("HTTPServer") == ["=HTTPServer", "http", "server"]
    assert words("") == []
    assert words("é +") == ["=é +", "é", "+"]
    table = WordTable(["", "a_b", "b"], 64)
    rows, offsets = table.bags(np.array([0, 2, 1]))
    assert offsets.tolist() == [0, 0, 2]
    assert len(rows) == 5
    assert rows[1] == rows[4]  # the word b


def test_log_sum_exp_by_group() -> None:
    values, group = torch.tensor([1.0, 2.0, -50.0, 3.0]), torch.tensor([0, 0, 2, 2])
    got = log_sum_exp(values, group, 3, floor=-9.0)
    expected = [torch.tensor(v).logsumexp(0) for v in ([1.0, 2.0], [-9.0], [-50.0, 3.0])]
    torch.testing.assert_close(got, torch.stack(expected), rtol=1e-4, atol=1e-4)


def test_rewrites_and_nothing_are_one_distribution() -> None:
    drawn = sample()
    bugs = inject(drawn, np.random.default_rng(0))
    torch.manual_seed(0)
    model = Detector(TINY).eval()
    batch = collate(drawn, WordTable(drawn.forest.tokens, TINY.rows), bugs)
    with torch.no_grad():
        _, logits = model(batch)
        share, wrong = evaluate.rewrite_probabilities(batch, logits)
        answer, place = model.losses(batch)
    assert (share[batch.candidate_current.numpy()] == 0).all()
    owner = batch.place_function.numpy()[batch.candidate_place.numpy()]
    np.testing.assert_allclose(np.bincount(owner, share, minlength=batch.functions), wrong, atol=1e-9)
    assert (wrong < 1).all()
    right = np.where(bugs.kind >= 0, share[np.maximum(batch.repair.numpy(), 0)], 1 - wrong)
    assert float(answer) == pytest.approx(-np.log(right).mean(), rel=1e-4)
    assert float(place) > 0


def test_outcomes_against_a_scorer_that_knows() -> None:
    drawn = sample()
    bugs = inject(drawn, np.random.default_rng(1), share=1.0)
    batch = collate(drawn, WordTable(drawn.forest.tokens, 512), bugs)
    logits = torch.full((batch.table.count,), -3.0).masked_fill(batch.candidate_current, float("-inf"))
    logits[batch.repair[batch.repair >= 0]] = 5.0
    outcome = evaluate.outcomes(batch, logits, bugs.kind)
    buggy = outcome.kind >= 0
    assert buggy.sum() == (bugs.kind >= 0).sum() > 30
    assert outcome.located[buggy].all()
    assert outcome.repaired[buggy].all()
    assert set(outcome.rank[buggy]) == {1}
    spot = batch.place_node[batch.candidate_place]
    here = torch.isin(spot, spot[batch.repair[batch.repair >= 0]])
    blind = evaluate.outcomes(batch, logits.masked_fill(here, float("-inf")), bugs.kind)
    several = buggy & (blind.places > 1)
    assert not blind.located[several].any()
    assert (blind.rank[several] == blind.places[several]).all()


def test_training_learns_and_repeats() -> None:
    said: list[Progress] = []
    results = []
    for _ in range(2):
        torch.manual_seed(0)
        config = TrainConfig(steps=40, batch=16, warm=5, average=0.9, rate=5e-3, half=False)
        model = train(Detector(TINY), sample(), config, said=lambda p, m: said.append(p), every=10)
        results.append(torch.cat([p.flatten() for p in model.parameters()]))
    assert torch.equal(*results)
    assert said[3].answer_loss < 0.8 * said[0].answer_loss
    assert said[3].place_loss < said[0].place_loss
    with pytest.raises(TreesError, match="no functions to train on"):
        train(Detector(TINY), sample().select([]), TrainConfig())


def test_half_precision_products_change_little() -> None:
    drawn = sample(20)
    torch.manual_seed(0)
    model = Detector(TINY).eval()
    batch = collate(drawn, WordTable(drawn.forest.tokens, TINY.rows))
    with torch.no_grad():
        scores, _ = model(batch)
        with torch.autocast("cpu", torch.bfloat16):
            half, _ = model(batch)
    assert half.dtype == torch.float32
    assert (scores - half).abs().mean() < 0.05


def test_calibration_and_priors() -> None:
    rng = np.random.default_rng(0)
    raw = rng.random(40_000)
    true = 1 / (1 + np.exp(-(0.5 * calibrate.logit(raw) - 1)))
    hit = rng.random(len(raw)) < true
    blank = np.zeros(len(raw), np.int64)
    both = evaluate.Outcome(
        kind=blank, wrong=raw, top=raw, located=hit, rank=blank, repaired=hit, places=blank + 3, package=blank
    )
    whole = calibrate.fit(both, dataclasses.replace(both, **{n: v[:1] for n, v in vars(both).items()}))
    assert whole.slope == pytest.approx(0.5, abs=0.05)
    assert whole.shift == pytest.approx(-1, abs=0.05)
    p = np.array([0.1, 0.5, 0.9])
    np.testing.assert_allclose(calibrate.at_prior(p, 0.5, 0.5), p, atol=1e-5)
    assert (calibrate.at_prior(p, 0.5, 0.01) < p).all()


def test_a_file_round_trips_and_refuses_others(tmp_path: Path) -> None:
    torch.manual_seed(0)
    path = tmp_path / "d.safetensors"
    model = Detector(TINY)
    store.save(model, path, calibration=store.Calibration(slope=2.0), history={"steps": 3})
    back, calibration, history = store.load(path)
    assert (calibration.slope, history) == (2.0, {"steps": 3})
    for name, value in model.state_dict().items():
        torch.testing.assert_close(back.state_dict()[name], value.half().float(), rtol=0, atol=0)
    data = path.read_bytes()
    for cut in (0, 7, 100, len(data) - 1):
        path.write_bytes(data[:cut])
        with pytest.raises(TreesError, match="damaged"):
            store.load(path)
    path.write_bytes(data.replace(store.vocabulary().encode(), b"0" * 16))
    with pytest.raises(TreesError, match="checksum does not match"):
        store.load(path)
    seal(path)
    with pytest.raises(TreesError, match="another vocabulary"):
        store.load(path)
    path.write_bytes(data.replace(b'\\"layers\\": 2', b'\\"layers\\": 3'))
    seal(path)
    with pytest.raises(TreesError, match="does not fit its own description"):
        store.load(path)
    path.write_bytes(data)
    save_file(load_file(path), path)
    with pytest.raises(TreesError, match="not a detector"):
        store.load(path)
    with pytest.raises(TreesError, match="no trained detector"):
        store.load(tmp_path / "absent")


def test_pipeline_from_corpus_to_numbers(tmp_path: Path) -> None:
    whole = sample(120)
    parts = {"train": range(60), "valid": range(60, 90), "test": range(90, 120)}
    for name, rows in parts.items():
        part = whole.select(rows)
        columns = part.columns | {"distribution": np.arange(part.count) % 3}
        dataclasses.replace(part, columns=columns).save(tmp_path / f"{name}.forest")
    out = tmp_path / "runs" / "d.safetensors"
    lines: list[str] = []
    config = TrainConfig(steps=4, batch=8, warm=1, half=False)
    report = pipeline.train_detector(tmp_path, out, config, sizes=TINY, said=lines.append, every=2)
    assert 0 <= report["located_at_1"] <= 1
    assert len(lines) == 2
    tested = pipeline.evaluate_detector(out, tmp_path / "test.forest")
    assert tested == pipeline.evaluate_detector(out, tmp_path / "test.forest")
    assert tested["trained_on"]["training_functions"] == 60
    assert set(tested["by_kind"]) <= {"variable-misuse", "argument-swap", "wrong-operator", "wrong-literal"}
    assert tested["located_at_1_95"][0] <= tested["located_at_1"] <= tested["located_at_1_95"][1]
    assert len(pipeline.evaluate_detector(out, tmp_path / "test.forest", limit=5)["by_kind"]) >= 1
