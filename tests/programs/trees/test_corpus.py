"""Copies are found as a brute-force search finds them, splits do not leak, and the list builds the same
corpus twice.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from outsize.cli.main import app
from outsize.errors import TreesError
from outsize.programs.trees import corpus
from outsize.programs.trees.dedup import SIMILAR, exact_keys, near_duplicates, normalised_keys, shingles
from outsize.programs.trees.functions import Functions, concatenate
from outsize.programs.trees.python_front import python_functions

from .samples import module

LONG = "def f(items, limit):\n" + "".join(
    f"    if items[{i}] > limit:\n        items[{i}] = limit\n" for i in range(6)
)


def keys(text: str) -> tuple[int, int]:
    found = python_functions(text)
    return int(exact_keys(found)[0]), int(normalised_keys(found)[0])


def test_exact_and_normalised_keys() -> None:
    exact, normal = keys("def f(a, b):\n    return a + b\n")
    assert keys("def f(a, b):  # said\n    'Doc.'\n    return (a +\n        b)\n") == (exact, normal)
    renamed = keys("def g(x, y):\n    return x + y\n")
    assert renamed[0] != exact
    assert renamed[1] == normal
    for other in ("def f(a, b):\n    return b + a\n", "def f(a, b):\n    return a - b\n"):
        assert keys(other)[1] != normal


def test_near_duplicates_equal_brute_force() -> None:
    variants = [LONG.replace("limit", f"limit{i}", 1 + i) for i in range(3)]
    texts = [
        LONG,
        *variants,
        *(f"def g{i}(a):\n    return [a * {i}, a, {{}}, a.b{i}]\n" for i in range(5)),
        LONG,
    ]
    parts = [python_functions(text) for text in texts] + [python_functions(module("textwrap"))]
    found = concatenate(parts)
    grams, ptr = shingles(found)
    sets = [set(grams[low:high].tolist()) for low, high in itertools.pairwise(ptr)]
    kept: list[int] = []
    for index, own in enumerate(sets):
        if not any(own and len(own & sets[k]) / len(own | sets[k]) >= SIMILAR for k in kept):
            kept.append(index)
    assert np.flatnonzero(~near_duplicates(found)).tolist() == kept
    assert len(kept) < found.count


def wheel(folder: Path, name: str, modules: dict[str, str]) -> corpus.Pin:
    path = folder / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for module_name, text in modules.items():
            archive.writestr(module_name, text)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return corpus.Pin(name=name, version="1.0", licence="MIT", split="train", source="wheel", sha256=digest)


def body(i: int, name: str = "value") -> str:
    rows = "".join(f"    {name} = {name} * {i} + {j}\n    g{i}_{j}({name})\n" for j in range(4))
    return f"def f{i}({name}):\n{rows}    return {name}\n"


def test_build_splits_by_distribution_without_leaks(tmp_path: Path) -> None:
    import dataclasses

    one = wheel(
        tmp_path, "one", {"one/a.py": body(1) + body(2), "one/tests/t.py": body(8), "one/bad.py": "def (:"}
    )
    two = wheel(tmp_path, "two", {"two.py": body(2) + body(3) + body(1, "renamed").replace("g1_", "h1_")})
    pins = [one, dataclasses.replace(two, split="test")]
    report = corpus.build(tmp_path / "out", tmp_path, pins=pins)
    totals = report["totals"]
    # f2 is a copy; f1 with another name and other callees is the same function once identifiers are dropped.
    assert (totals["functions"], totals["distinct"], totals["train"], totals["test"]) == (5, 4, 2, 1)
    assert totals["test_functions_seen_renamed_in_training"] == 1
    assert report["distributions"][0]["unreadable"] == 1
    test = Functions.load(tmp_path / "out" / "test.forest")
    assert set(test["distribution"]) == {1}
    assert "f3" in test.forest.tokens
    first = (tmp_path / "out" / "train.forest").read_bytes()
    corpus.build(tmp_path / "again", tmp_path, pins=pins)
    assert (tmp_path / "again" / "train.forest").read_bytes() == first


def test_pins_are_held_to(tmp_path: Path) -> None:
    import dataclasses

    pin = wheel(tmp_path, "one", {"a.py": body(1)})
    with pytest.raises(TreesError, match="not the pinned file"):
        list(corpus.read_texts(dataclasses.replace(pin, sha256="0"), tmp_path))
    with pytest.raises(TreesError, match=r"no wheel of one==2\.0.*\n.*pip download"):
        list(corpus.read_texts(dataclasses.replace(pin, version="2.0"), tmp_path))
    with pytest.raises(TreesError, match="is in the corpus and not installed"):
        list(corpus.read_texts(dataclasses.replace(pin, source="installed", name="no-such-thing"), tmp_path))
    with pytest.raises(TreesError, match="is installed"):
        list(corpus.read_texts(dataclasses.replace(pin, source="installed", name="numpy"), tmp_path))
    with pytest.raises(TreesError, match="pinned to the standard library"):
        list(corpus.read_texts(dataclasses.replace(pin, source="stdlib", version="2.7"), tmp_path))
    bad = tmp_path / "list.json"
    bad.write_text(json.dumps({"distributions": [dataclasses.asdict(dataclasses.replace(pin, split="x"))]}))
    with pytest.raises(TreesError, match="none of"):
        corpus.read_pins(bad)
    bad.write_text("[")
    with pytest.raises(TreesError, match="cannot read the list"):
        corpus.read_pins(bad)


def test_the_shipped_list() -> None:
    pins = corpus.read_pins()
    assert len({pin.name for pin in pins}) == len(pins)
    assert {pin.split for pin in pins} == set(corpus.SPLITS)
    assert all(pin.licence and pin.licence != "?" and "GPL" not in pin.licence for pin in pins)
    assert all(bool(pin.sha256) == (pin.source == "wheel") for pin in pins)
    shown = CliRunner().invoke(app, ["trees", "corpus", "--requirements"])
    assert shown.exit_code == 0
    assert shown.output.count("--hash=sha256:") == sum(pin.source == "wheel" for pin in pins)
