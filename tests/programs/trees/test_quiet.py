"""What keeps a scan readable and small: thresholds, comments, baselines, evidence, the cache, bounded votes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner, Result

from outsize.cli.main import app
from outsize.errors import TreesError
from outsize.programs.trees import known, scan, store
from outsize.programs.trees.cache import Cache, opened
from outsize.programs.trees.evidence import evidence, settled
from outsize.programs.trees.grammar import OPERATION, PLACES, SWAP, VARIABLE
from outsize.programs.trees.model import Detector, DetectorConfig
from outsize.programs.trees.python_front import Source, python_file, python_functions
from outsize.programs.trees.rewrites import candidates
from outsize.programs.trees.scoring import pointless, score, votes, with_places

CODE = """\
def clamp(value, low, high):
    if value < low:
        return low
    if value > high:
        return low
    return value


class Box:
    def fit(self, width, height):
        return self.scale(height, width) + self.scale(width, height)

    def scale(self, width, height):
        return width - height
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    sizes = DetectorConfig(width=16, layers=2, rows=512, inner=8, head=8)
    thresholds = (0.0, 1.0, 1.0, 1.0, 1.0)
    store.save(Detector(sizes), path, calibration=store.Calibration(threshold=0.999, thresholds=thresholds))
    return path


def invoke(*args: object) -> Result:
    return CliRunner().invoke(app, ["trees", "scan", *map(str, args)], catch_exceptions=True)


def rows(*args: object) -> list[dict]:
    result = invoke(*args, "--json", "-")
    assert result.exit_code in (0, 1), (result.output, result.exception)
    return json.loads(result.stdout)


def test_the_default_is_a_threshold_for_each_kind(tmp_path: Path, model: Path) -> None:
    (tmp_path / "a.py").write_text(CODE)
    chosen, everything = rows(tmp_path, "--model", model), rows(tmp_path, "--model", model, "--all")
    assert {row["kind"] for row in chosen} == {"variable-misuse"}
    assert chosen == [row for row in everything if row in chosen]
    assert {row["kind"] for row in everything} > {"variable-misuse"}
    assert invoke(tmp_path, "--model", model).exit_code == 1
    with pytest.raises(ValueError, match="2 thresholds for 5 kinds"):
        raise ValueError(store.Calibration(thresholds=(0.1, 0.2)).misfit())


def test_a_function_of_two_places_is_not_judged_by_default(tmp_path: Path, model: Path) -> None:
    (tmp_path / "a.py").write_text("def f(a, b):\n    return g(a) and g(b) \n")
    (tmp_path / "b.py").write_text("def f(a, b):\n    return a.x(b)\n")
    assert {Path(row["path"]).name for row in rows(tmp_path, "--model", model)} == {"a.py"}
    assert {Path(row["path"]).name for row in rows(tmp_path, "--model", model, "--all")} == {"a.py", "b.py"}


def test_a_comment_keeps_findings_away(tmp_path: Path, model: Path) -> None:
    file = tmp_path / "a.py"
    file.write_text(CODE)
    before = rows(file, "--model", model, "--all")
    for comment, gone in (
        ("# outsize: ignore", set(PLACES)),
        ("#outsize:ignore[wrong-operator, wrong-literal]", {"wrong-operator", "wrong-literal"}),
        ("# outsize: ignored by nobody, ignore[", set()),
    ):
        file.write_text(CODE.replace("value > high:", f"value > high:  {comment}"))
        after = rows(file, "--model", model, "--all")
        lost = [row for row in before if row["line"] == 4 and row["kind"] in gone]
        assert [(r["line"], r["kind"]) for r in before if r not in lost] == [
            (r["line"], r["kind"]) for r in after
        ]


def test_a_baseline_holds_until_the_line_changes(tmp_path: Path, model: Path) -> None:
    file, kept = tmp_path / "a.py", tmp_path / "baseline.json"
    file.write_text(CODE)
    assert invoke(file, "--model", model, "--write-baseline", kept).exit_code == 0
    assert rows(file, "--model", model, "--baseline", kept) == []
    file.write_text("import os\n\n\n" + CODE.replace("    def fit", "    x = 1\n\n    def fit"))
    assert rows(file, "--model", model, "--baseline", kept) == []
    file.write_text(CODE.replace("if value > high:", "if value > 2 * high:"))
    assert {row["line"] for row in rows(file, "--model", model, "--baseline", kept)} == {4}
    kept.write_text('{"version": 2, "findings": []}')
    with pytest.raises(TreesError, match="baseline"):
        known.read_baseline(kept)


def test_sarif_has_what_the_schema_requires(tmp_path: Path, model: Path) -> None:
    (tmp_path / "a.py").write_text(CODE)
    log = json.loads(invoke(tmp_path, "--model", model, "--all", "--sarif", "-").stdout)
    assert {"version", "runs"} <= log.keys()
    (run,) = log["runs"]
    driver = run["tool"]["driver"]
    assert driver["name"]
    for rule in driver["rules"]:
        assert rule["id"] in PLACES
        assert rule["defaultConfiguration"]["level"] in ("none", "note", "warning", "error")
        assert all(rule[name]["text"] for name in ("shortDescription", "fullDescription", "help"))
    marks = set()
    for result in run["results"]:
        assert result["message"]["text"]
        assert driver["rules"][result["ruleIndex"]]["id"] == result["ruleId"]
        assert result["level"] in ("note", "warning")
        assert 0 <= result["rank"] <= 100
        (mark,) = result["partialFingerprints"].values()
        marks.add(mark)
        for change in result["fixes"][0]["artifactChanges"]:
            assert change["artifactLocation"]["uri"]
            assert all(r["deletedRegion"]["startLine"] >= 1 for r in change["replacements"])
    places = [result["locations"][0]["physicalLocation"]["region"] for result in run["results"]]
    twice = [p["startLine"] for p in places].count(5)  # its text is that of line 3, in the same function
    assert len(marks) == len(run["results"]) - twice


def test_evidence_counts_what_is_there() -> None:
    file = python_file(Source(CODE))
    functions = file.functions
    assert file.signatures == {
        "clamp": ("value", "low", "high"), "fit": ("width", "height"), "scale": ("width", "height"),
    }  # fmt: skip
    table = candidates(functions)
    said = {
        evidence(functions, int(row), int(value), file.signatures)
        for row, value, current in zip(table.place, table.value, table.current)
        if not current
    }
    assert "`high` is read once in this function, `low` 2 times more" in said
    assert "the operator `<` stands once in this function, `>` nowhere else" in said
    assert not any("`==`" in sentence for sentence in said)
    assert "the parameters of `scale` are (width, height)" in said
    unread = python_functions("def f(a, b):\n    return a + a.x\n")
    table = candidates(unread)
    last = next(i for i in range(table.count) if table.kind[i] == VARIABLE and not table.current[i])
    assert evidence(unread, int(table.place[last]), int(table.value[last]), {}) == (
        "the parameter `b` is read nowhere in this function"
    )


def test_arguments_in_the_order_of_the_parameters_are_settled() -> None:
    file = python_file(Source(CODE))
    fine = settled(file.functions, file.signatures)
    swaps = np.flatnonzero(file.functions["place_kind"] == SWAP)
    assert fine[swaps].tolist() == [False, True]
    assert not settled(file.functions, {}).any()
    assert not np.delete(fine, swaps).any()


def test_a_name_is_not_compared_with_itself() -> None:
    functions = python_functions("def f(a, b, c):\n    a = b\n    return a < b, a + b, a - c, g(a)\n")
    table = candidates(functions, (VARIABLE,))
    never = pointless(functions, table.place, table.value) & ~table.current
    forest, names = functions.forest, functions["symbol_token"]
    said = {
        (forest.start[functions["place_node"][p]].item(), forest.tokens[names[v]])
        for p, v in zip(table.place[never], table.value[never])
    }
    text = "def f(a, b, c):\n    a = b\n    return a < b, a + b, a - c, g(a)\n"
    assert {(text[at], name) for at, name in said} == {("b", "a"), ("a", "b"), ("a", "c"), ("c", "a")}
    assert all(text[at - 4 : at] != "a + " for at, _ in said)


def test_votes_in_portions_score_the_same(model: Path) -> None:
    functions = python_functions(CODE)
    detector, _, _ = store.load(model)
    whole, parts = (score(functions, detector, (0, 1, 2, 3, 4), most_votes=most) for most in (10**6, 3))
    for found in (whole, parts):
        assert found.wrong.shape == (3,)
    one, two = (
        dict(zip(zip(found.place.tolist(), found.value.tolist()), found.share.tolist()))
        for found in (whole, parts)
    )
    assert one.keys() == two.keys()
    assert list(one.values()) == pytest.approx([two[key] for key in one], abs=1e-6)
    cost = votes(functions)
    assert (cost[functions["place_kind"] == OPERATION] == 0).all()
    # value, low, high: 3 names, 3 parameters and 7 reads.
    assert cost[(functions["place_kind"] == VARIABLE) & (functions.owner("place") == 0)].tolist() == [13] * 7
    few = with_places(functions, np.array([0, 3]))
    assert few["place_ptr"].tolist()[-1] == 2
    assert few["place_node"].tolist() == functions["place_node"][[0, 3]].tolist()


def test_the_votes_of_one_large_function_stay_within_memory(model: Path) -> None:
    code = "def f(" + ", ".join(f"a{i}" for i in range(40)) + "):\n"
    code += "".join(f"    a{i % 40} = a{(i * 7) % 40} + a{(i * 3) % 40}\n" for i in range(300))
    functions = python_functions(code)
    detector, _, _ = store.load(model)
    most = []
    inner = detector.judge
    detector.judge = lambda batch, *rest: most.append(len(batch.names.pair)) or inner(batch, *rest)
    score(functions, detector, (0, 1, 2, 3, 4), most_votes=20_000)
    assert sum(most) > 10 * 20_000
    assert max(most) <= 20_000


def test_the_cache_answers_by_content(tmp_path: Path, model: Path) -> None:
    file, kept = tmp_path / "a.py", tmp_path / "c" / "cache"
    file.write_text(CODE)
    fresh = rows(file, "--model", model, "--all")
    assert rows(file, "--model", model, "--all", "--cache", kept) == fresh
    size = kept.stat().st_size
    copy = tmp_path / "b.py"
    copy.write_text(CODE)
    again = rows(copy, "--model", model, "--all", "--cache", kept)
    assert again == [row | {"path": str(copy)} for row in fresh]
    assert kept.stat().st_size == size
    rows(copy, "--model", model, "--cache", kept)  # other settings
    assert kept.stat().st_size > size


def test_an_interrupted_scan_goes_on(tmp_path: Path, model: Path) -> None:
    files = [tmp_path / f"{i}.py" for i in range(4)]
    for index, file in enumerate(files):
        file.write_text(CODE + f"\n\ndef last(a, b):\n    return a < b + {index}\n")
    detector, calibration, _ = store.load(model)
    config = scan.ScanConfig(batch_nodes=1, min_probability=0.0)
    kept = tmp_path / "cache"
    with opened(kept, model, config) as cache:
        stream = scan.scan(files, detector, calibration, config, warn=print, cache=cache)
        for finding in stream:
            if finding.path == str(files[2]):
                break
        stream.close()
    scored: list[int] = []
    inner = detector.judge
    detector.judge = lambda batch, *rest: scored.append(batch.functions) or inner(batch, *rest)
    with opened(kept, model, config) as cache:
        rest = list(scan.scan(files, detector, calibration, config, warn=print, cache=cache))
    assert 0 < sum(scored) <= 8  # two of four files, of four functions each
    detector.judge = inner
    whole = list(scan.scan(files, detector, calibration, config, warn=print))
    assert sorted(map(repr, rest)) == sorted(map(repr, whole))


def test_a_damaged_cache_is_passed_over(tmp_path: Path) -> None:
    kept = tmp_path / "cache"
    for content in (b"", b"nonsense\n", b"\xff" * 100, b"0" * 16 + b" " + b"1" * 16 + b" {}\n"):
        kept.write_bytes(content)
        cache = Cache(kept, "s")
        assert cache.get(cache.key(b"x"), "p") is None
        cache.put(cache.key(b"x"), 3, [])
        cache.close()
        cache = Cache(kept, "s")
        assert cache.get(cache.key(b"x"), "p") == (3, [])
        cache.close()
    whole = kept.read_bytes()
    kept.write_bytes(whole[:-3])
    cache = Cache(kept, "s")
    assert cache.get(cache.key(b"x"), "p") is None
    cache.close()
    with pytest.raises(TreesError, match="cannot keep a cache"):
        Cache(tmp_path, "s")
