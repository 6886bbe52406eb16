"""Files in, ranked suspicions out.

Files are read one after the other and their functions packed until a batch is full, so memory depends on the
batch and not on the number of files. Nothing that is scanned is imported or executed. A file that cannot be
read is one warning, and the scan goes on.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import torch

from ...errors import TreesError
from .batch import collate
from .calibrate import apply, at_prior
from .evaluate import rewrite_probabilities
from .functions import Functions, concatenate
from .grammar import ATTRIBUTE, KIND, LITERAL, OPERATION, OPERATORS, PLACES, VARIABLE
from .model import Detector
from .parsing import ENDINGS, language_of
from .python_front import Source, python_file, python_functions
from .store import Calibration
from .words import WordTable

#: Folders that hold no code of the project itself.
_PASSED_OVER = frozenset({"__pycache__", "node_modules", "site-packages", "build", "dist"})
#: The odds of a place in a class body, against what the network says. It is calibrated on functions, which have 22.0
#: places on average, a class body 4.1: as many bugs per place are this many fewer per unit. Without it a quarter of the
#: sound class bodies was flagged (`benchmarks/trees-scan/outside.py`).
CLASS_ODDS = 0.19


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScanConfig:
    """What to report and how much to take at once.

    Attributes:
        min_probability: report places from this calibrated probability.
        prior: share of functions believed to have a bug; None takes the calibration's own (a half).
        batch_nodes: nodes in one pass of the network. 6,000 nodes keep a layer near the size of the
            second-level cache and the process at a few hundred MB.
        max_bytes: a larger file is a warning; Python's own parser needs about 100 times a file's size in
            memory.
        kinds: which kinds to look for.
    """

    min_probability: float = 0.001
    prior: float | None = None
    batch_nodes: int = 6000
    max_bytes: int = 4_000_000
    kinds: tuple[int, ...] = (0, 1, 2, 3, 4)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finding:
    """One suspicious place. Lines and columns count from 1; columns count characters; the end is exclusive.

    Attributes:
        kind: one of `grammar.PLACES`.
        repair: the text to put in place of the span.
        probability: calibrated, that this very place is wrong.
    """

    path: str
    line: int
    column: int
    end_line: int
    end_column: int
    kind: str
    repair: str
    probability: float


@dataclasses.dataclass(kw_only=True)
class _File:
    """A file's functions, or its code outside of them, waiting for a batch; `source` is kept until they are scored."""

    path: str
    source: Source
    functions: Functions
    outside: bool = False


Warn = Callable[[str], None]
#: Given the path and a first and last line: whether to look at the function or statement there.
Wanted = Callable[[str, int, int], bool]


def find_files(paths: Iterable[str | os.PathLike[str]], warn: Warn) -> Iterator[Path]:
    """Files given by name, and the Python files below folders, sorted, hidden ones left out."""
    for given in map(Path, paths):
        if given.is_dir():
            for folder, folders, names in os.walk(given):
                folders[:] = sorted(f for f in folders if not f.startswith(".") and f not in _PASSED_OVER)
                yield from (Path(folder, n) for n in sorted(names) if ENDINGS.get(Path(n).suffix) == "python")
        elif given.exists():
            yield given
        else:
            warn(f"{given}: no such file or folder")


def read_source(path: Path, config: ScanConfig) -> Source:
    """Raises:
    TreesError: another language than the detector knows, too large, unreadable.
    """
    language = language_of(path)
    if language != "python":
        raise TreesError(f"{path}: the detector was trained on python, this is {language}")
    size = path.stat().st_size
    if not path.is_file():
        raise TreesError(f"{path}: not a regular file")
    if size > config.max_bytes:
        raise TreesError(f"{path}: {size:,} bytes, more than the {config.max_bytes:,} that a scan takes")
    return Source(path.read_bytes())


def read_functions(path: Path, config: ScanConfig) -> tuple[Source, Functions]:
    """A file and its functions, without what stands outside of them; raises as `read_source`."""
    source = read_source(path, config)
    return source, python_functions(source.text.decode("utf-8", "surrogatepass"))


def scan(
    files: Iterable[Path], detector: Detector, calibration: Calibration, config: ScanConfig, *, warn: Warn,
    wanted: Wanted | None = None, seen: Callable[[int], None] = lambda functions: None,
) -> Iterator[Finding]:  # fmt: skip
    """Findings file by file, in the order of the batches; the caller sorts.

    Args:
        files: what to read.
        warn: told once for each file that cannot be read.
        wanted: see `Wanted`; None looks at everything.
        seen: told after each batch how many functions it had.
    """
    waiting: list[_File] = []
    nodes = 0
    for path in files:
        try:
            source = read_source(path, config)
            functions, outside, lines = python_file(source)
        except (TreesError, OSError) as error:
            warn(str(error) if str(path) in str(error) else f"{path}: {error}")
            continue
        if wanted is not None:
            functions = functions.select(_wanted(functions, source, str(path), wanted))
            outside = outside.select(
                [i for i, own in enumerate(lines) if any(wanted(str(path), *span) for span in own)]
            )
        for given in (functions, outside):
            for part in _portions(given, config.batch_nodes):
                waiting.append(_File(path=str(path), source=source, functions=part, outside=given is outside))
                nodes += part.forest.nodes
                if nodes >= config.batch_nodes:
                    yield from _score(waiting, detector, calibration, config)
                    seen(_functions(waiting))
                    waiting, nodes = [], 0
    if waiting:
        yield from _score(waiting, detector, calibration, config)
        seen(_functions(waiting))


def _functions(waiting: list[_File]) -> int:
    return sum(file.functions.count for file in waiting if not file.outside)


def _portions(functions: Functions, nodes: int) -> Iterator[Functions]:
    """Consecutive functions of about `nodes` nodes."""
    if not functions.count:
        return
    if functions.forest.nodes <= 2 * nodes:
        yield functions
        return
    part = np.asarray(functions.forest.ptr[1:] - 1) // nodes
    for number in np.unique(part):
        yield functions.select(np.flatnonzero(part == number)).compact()


def _wanted(functions: Functions, source: Source, path: str, wanted: Wanted) -> list[int]:
    if not functions.count:
        return []
    roots = np.asarray(functions.forest.ptr[:-1])
    # A function's own span begins at `def`, its decorators stand before that.
    first, last = np.minimum.reduceat(functions.forest.start, roots), functions.forest.end[roots]
    return [
        index
        for index, (low, high) in enumerate(zip(first.tolist(), last.tolist()))
        if wanted(path, bisect_right(source.lines, low), bisect_right(source.lines, max(high - 1, low)))
    ]


@torch.no_grad()
def _score(
    waiting: list[_File], detector: Detector, calibration: Calibration, config: ScanConfig
) -> Iterator[Finding]:
    whole = concatenate([file.functions for file in waiting])
    batch = collate(whole, WordTable(whole.forest.tokens, detector.config.rows), kinds=config.kinds)
    if not batch.table.count:
        return
    _, logits = detector(batch)
    share, _ = rewrite_probabilities(batch, logits)
    place = batch.candidate_place.numpy()
    spots, spot = np.unique(batch.place_node.numpy(), return_inverse=True)
    weight = np.bincount(spot[place], share, minlength=len(spots))
    probability = apply(calibration, weight)
    function = np.searchsorted(whole.forest.ptr, spots, side="right") - 1
    of_class = whole.forest.kind[whole.forest.ptr[function]] == KIND["ClassDef"]
    probability[of_class] = at_prior(probability[of_class], 0.5, CLASS_ODDS / (1 + CLASS_ODDS))
    if config.prior is not None:
        probability = at_prior(probability, calibration.prior, config.prior)
    best = np.full(len(spots), -1)
    order = np.argsort(share, kind="stable")
    best[spot[place[order]]] = order
    file_of = np.repeat(np.arange(len(waiting)), [file.functions.count for file in waiting])
    for index in np.flatnonzero(probability >= config.min_probability).tolist():
        file = waiting[int(file_of[function[index]])]
        row, value = int(batch.table.place[best[index]]), int(batch.table.value[best[index]])
        yield _finding(whole, file, int(function[index]), row, value, float(probability[index]))


def _finding(
    whole: Functions, file: _File, function: int, row: int, value: int, probability: float
) -> Finding:
    forest, text = whole.forest, file.source.text
    base = int(forest.ptr[function])
    node, kind = base + int(whole["place_node"][row]), int(whole["place_kind"][row])
    start, end = int(forest.start[node]), int(forest.end[node])
    if kind in (VARIABLE, ATTRIBUTE):
        repair = forest.tokens[int(whole["symbol_token"][value])]
        if kind == ATTRIBUTE:
            start = end - len(forest.tokens[int(forest.token[node])].encode("utf-8", "surrogatepass"))
    elif kind == OPERATION:
        augmented = int(forest.kind[base + int(forest.parent[node])]) == KIND["AugAssign"]
        repair = OPERATORS[value] + ("=" if augmented else "")
    elif kind == LITERAL:
        repair = forest.tokens[value]
    else:
        one, two = sorted((base + int(whole["place_a"][row]), base + int(whole["place_b"][row])),
                          key=lambda n: int(forest.start[n]))  # fmt: skip
        cut = [
            start,
            int(forest.start[one]),
            int(forest.end[one]),
            int(forest.start[two]),
            int(forest.end[two]),
            end,
        ]
        pieces = [text[low:high] for low, high in itertools.pairwise(cut)]
        repair = b"".join(pieces[i] for i in (0, 3, 2, 1, 4)).decode("utf-8", "replace")
    line, column = place_of(file.source, start)
    end_line, end_column = place_of(file.source, end)
    return Finding(
        path=file.path, line=line, column=column, end_line=end_line, end_column=end_column, kind=PLACES[kind],
        repair=repair, probability=round(probability, 6),
    )  # fmt: skip


def place_of(source: Source, offset: int) -> tuple[int, int]:
    """Line and column, both from 1, of a byte offset; columns count characters."""
    line = bisect_right(source.lines, offset)
    begin = source.lines[line - 1]
    return line, 1 + len(source.text[begin:offset].decode("utf-8", "surrogatepass"))
