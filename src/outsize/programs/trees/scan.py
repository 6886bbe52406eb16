"""Files in, ranked suspicions out.

Files are read one after the other and their functions packed until a batch is full, so memory depends on the
batch and not on the number of files. What was found in a file goes into a cache once all of it is scored; a file with
the same content is not scored again. Nothing that is scanned is imported or executed. A file that cannot be read is one
warning, and the scan goes on.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

from ...errors import TreesError
from .cache import Cache
from .calibrate import apply, at_prior
from .evidence import Signatures, evidence, settled
from .finding import Finding
from .functions import Functions, concatenate
from .grammar import ATTRIBUTE, KIND, LITERAL, OPERATION, OPERATORS, PLACES, VARIABLE
from .known import fingerprint, ignored, lines_of
from .model import Detector
from .parsing import ENDINGS, language_of
from .python_front import Source, python_file, python_functions
from .scoring import Scored, score
from .store import Calibration

#: Folders that hold no code of the project itself.
_PASSED_OVER = frozenset({"__pycache__", "node_modules", "site-packages", "build", "dist"})
#: The odds of a place in a class body, against what the network says. It is calibrated on functions, which have 22.0
#: places on average, a class body 4.1: as many bugs per place are this many fewer per unit. Without it a quarter of the
#: sound class bodies was flagged (`benchmarks/trees-scan/outside.py`).
CLASS_ODDS = 0.19
#: What `--all` reports from: below it, 54 in 55 places of the standard library lie.
LOWEST = 0.001


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScanConfig:
    """What to report and how much to take at once.

    Attributes:
        min_probability: report places from this calibrated probability; None takes the detector's own threshold of each
            kind.
        least_places: by the detector's own thresholds, functions with fewer places to suspect are left alone: of one or
            two places nothing can be learned from the others.
        prior: share of functions believed to have a bug; None takes the calibration's own (a half).
        batch_nodes: nodes in one pass of the network. 6,000 nodes keep a layer near the size of the
            second-level cache and the process at a few hundred MB.
        max_bytes: a larger file is a warning; Python's own parser needs about 100 times a file's size in
            memory.
        kinds: which kinds to look for.
    """

    min_probability: float | None = None
    least_places: int = 3
    prior: float | None = None
    batch_nodes: int = 6000
    max_bytes: int = 1_500_000
    kinds: tuple[int, ...] = (0, 1, 2, 3, 4)


@dataclasses.dataclass(kw_only=True)
class _Text:
    """A file that is being scored.

    Attributes:
        source: kept until all of it is scored.
        calls: what is defined in it, with its parameters.
        left: portions that still wait for a batch.
        key: of the cache, empty without one.
        functions, found: so far.
    """

    path: str
    source: Source
    calls: Signatures
    left: int = 0
    key: str = ""
    functions: int = 0
    found: list[Finding] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(kw_only=True)
class _Portion:
    """Some of a file's functions, or of its code outside of them, waiting for a batch."""

    text: _Text
    functions: Functions
    outside: bool = False


Warn = Callable[[str], None]
#: Given the path and a first and last line: whether to look at the function or statement there.
Wanted = Callable[[str, int, int], bool]


def fails(finding: Finding, calibration: Calibration, limit: float | None) -> bool:
    """Whether a finding is one to stop for: from `limit` on, or by default what would be reported by default."""
    own = calibration.by_kind()[PLACES.index(finding.kind)]
    return finding.probability >= (own if limit is None else limit)


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
    wanted: Wanted | None = None, cache: Cache | None = None, seen: Callable[[int], None] = lambda functions: None,
) -> Iterator[Finding]:  # fmt: skip
    """Findings file by file, in the order of the batches; the caller sorts.

    Args:
        files: what to read.
        warn: told once for each file that cannot be read.
        wanted: see `Wanted`; None looks at everything.
        cache: asked for each file, and told of each that is done; not used with `wanted`.
        seen: told after each batch how many functions it had.
    """
    cache = cache if wanted is None else None
    waiting: list[_Portion] = []
    nodes = 0
    for path in files:
        try:
            source = read_source(path, config)
            key = cache.key(source.text) if cache else ""
            before = cache.get(key, str(path)) if cache else None
            if before is not None:
                seen(before[0])
                yield from before[1]
                continue
            parts = _parts(path, source, config, wanted, key)
        except (TreesError, OSError) as error:
            warn(str(error) if str(path) in str(error) else f"{path}: {error}")
            continue
        if cache and not parts:
            cache.put(key, 0, [])
        for part in parts:
            waiting.append(part)
            nodes += part.functions.forest.nodes
            if nodes >= config.batch_nodes:
                yield from _scored(waiting, detector, calibration, config, cache, seen)
                waiting, nodes = [], 0
    if waiting:
        yield from _scored(waiting, detector, calibration, config, cache, seen)


def _parts(path: Path, source: Source, config: ScanConfig, wanted: Wanted | None, key: str) -> list[_Portion]:
    """A file's functions and its code outside of them, in portions."""
    found = python_file(source)
    functions, outside = found.functions, found.outside
    if wanted is not None:
        functions = functions.select(_wanted(functions, source, str(path), wanted))
        chosen = [i for i, own in enumerate(found.lines) if any(wanted(str(path), *span) for span in own)]
        outside = outside.select(chosen)
    text = _Text(path=str(path), source=source, calls=found.signatures, key=key)
    parts = [
        _Portion(text=text, functions=part, outside=given is outside)
        for given in (functions, outside)
        for part in _portions(given, config.batch_nodes)
    ]
    text.left = len(parts)
    return parts


def _scored(
    batch: list[_Portion], detector: Detector, calibration: Calibration, config: ScanConfig, cache: Cache | None,
    seen: Callable[[int], None],
) -> list[Finding]:  # fmt: skip
    """The findings of a batch; the cache learns of the files whose last portion was in it."""
    found = list(_score(batch, detector, calibration, config))
    seen(sum(part.functions.count for part in batch if not part.outside))
    if cache is None:
        return found
    texts = {part.text.path: part.text for part in batch}
    for finding in found:
        texts[finding.path].found.append(finding)
    for part in batch:
        text = part.text
        text.left -= 1
        text.functions += 0 if part.outside else part.functions.count
        if not text.left:
            cache.put(text.key, text.functions, text.found)
    return found


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


def _score(
    batch: list[_Portion], detector: Detector, calibration: Calibration, config: ScanConfig
) -> Iterator[Finding]:
    whole = concatenate([part.functions for part in batch])
    fine = np.concatenate([settled(part.functions, part.text.calls) for part in batch])
    scored = score(whole, detector, config.kinds, settled=fine)
    portion = np.repeat(np.arange(len(batch)), [part.functions.count for part in batch])
    for row, value, probability in _places(whole, scored, calibration, config):
        part = batch[int(portion[whole.owner_of("place", row)])]
        finding = _finding(whole, part.text, row, value, probability)
        if finding is not None:
            yield finding


def _places(
    whole: Functions, scored: Scored, calibration: Calibration, config: ScanConfig
) -> Iterator[tuple[int, int, float]]:
    """Row, proposed value and probability of each place that is to be reported."""
    node = np.asarray(whole.forest.ptr)[scored.function] + whole["place_node"][scored.place]
    spots, first, spot = np.unique(node, return_index=True, return_inverse=True)
    function = scored.function[first]
    probability = apply(calibration, np.bincount(spot, scored.share, minlength=len(spots)))
    of_class = whole.forest.kind[whole.forest.ptr[function]] == KIND["ClassDef"]
    probability[of_class] = at_prior(probability[of_class], 0.5, CLASS_ODDS / (1 + CLASS_ODDS))
    best = np.zeros(len(spots), np.int64)
    order = np.argsort(scored.share, kind="stable")
    best[spot[order]] = order
    row = scored.place[best]
    limit = np.asarray(calibration.by_kind())[whole["place_kind"][row]]
    enough = np.bincount(function, minlength=whole.count)[function] >= config.least_places
    chosen = enough & (probability >= limit)
    if config.prior is not None:
        probability = at_prior(probability, calibration.prior, config.prior)
    if config.min_probability is not None:
        chosen = probability >= config.min_probability
    for index in np.flatnonzero(chosen).tolist():
        yield int(row[index]), int(scored.value[best[index]]), float(probability[index])


def _finding(whole: Functions, text: _Text, row: int, value: int, probability: float) -> Finding | None:
    """The place in the text; None where the text says that it is not wanted."""
    start, end, repair = _change(whole, text.source.text, row, value)
    line, column = place_of(text.source, start)
    end_line, end_column = place_of(text.source, end)
    kind = PLACES[int(whole["place_kind"][row])]
    lines = list(lines_of(text.source.text, text.source.lines, line, end_line))
    if ignored(lines, kind):
        return None
    root = int(whole.forest.ptr[whole.owner_of("place", row)])
    function = whole.forest.tokens[int(whole.forest.token[root])]
    mark = fingerprint(function, kind, lines[0], start - text.source.lines[line - 1])
    return Finding(
        path=text.path, line=line, column=column, end_line=end_line, end_column=end_column, kind=kind,
        repair=repair, probability=round(probability, 6), function=function, fingerprint=mark,
        evidence=evidence(whole, row, value, text.calls),
    )  # fmt: skip


def _change(whole: Functions, text: bytes, row: int, value: int) -> tuple[int, int, str]:
    """First and last byte of what is to be replaced, and what to put there."""
    forest = whole.forest
    base = int(forest.ptr[whole.owner_of("place", row)])
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
        cut = [start, int(forest.start[one]), int(forest.end[one]),
               int(forest.start[two]), int(forest.end[two]), end]  # fmt: skip
        pieces = [text[low:high] for low, high in itertools.pairwise(cut)]
        repair = b"".join(pieces[i] for i in (0, 3, 2, 1, 4)).decode("utf-8", "replace")
    return start, end, repair


def place_of(source: Source, offset: int) -> tuple[int, int]:
    """Line and column, both from 1, of a byte offset; columns count characters."""
    line = bisect_right(source.lines, offset)
    begin = source.lines[line - 1]
    return line, 1 + len(source.text[begin:offset].decode("utf-8", "surrogatepass"))
