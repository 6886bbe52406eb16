"""Logits of all rewrites of some functions, in memory that does not depend on the functions.

What a name is judged by are the occurrences of all names that could stand there: places times occurrences, so a
function of some thousand nodes has millions of such votes, and one file of 126 KB took 3 GB. So the tree convolution
runs once, and the places of names are scored in portions of bounded votes; the softmax is over all of them.

Two things are known without the network, and filter it: a rewrite that would compare or combine a name with itself,
or assign it to itself; and an exchange of arguments that stand in the order of the parameters of what is called.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch

from .batch import collate
from .forest import Ints
from .functions import Functions
from .grammar import ATTRIBUTE, KIND, OPERATOR, OPERATOR_TOKEN, VARIABLE
from .model import Detector
from .words import WordTable

#: Votes in one portion: 64 channels of three single-precision arrays each, 92 MB. An ordinary batch of 6,000 nodes has
#: about 40,000.
MOST_VOTES = 120_000
_BOTH_SIDES = (KIND["Compare"], KIND["BinOp"], KIND["BoolOp"])
#: `x + x`, `x * x` and shifts mean something.
_REPEATABLE = [OPERATOR_TOKEN + OPERATOR[op] for op in ("+", "*", "<<", ">>")]
Mask = npt.NDArray[np.bool_]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scored:
    """Rewrites that could be meant, of all functions.

    Attributes:
        place: `[rewrites]` row of the place table.
        value: `[rewrites]` what would stand there, as in `Candidates`.
        logit: `[rewrites]` against "nothing is wrong", which has 0.
        function: `[rewrites]` which function.
        share: `[rewrites]` probability within the function.
        wrong: `[functions]` probability that anything is wrong.
    """

    place: Ints
    value: Ints
    logit: npt.NDArray[np.float64]
    function: Ints
    share: npt.NDArray[np.float64]
    wrong: npt.NDArray[np.float64]


@torch.no_grad()
def score(
    functions: Functions, detector: Detector, kinds: tuple[int, ...], *, settled: Mask | None = None,
    most_votes: int = MOST_VOTES,
) -> Scored:  # fmt: skip
    """Every rewrite's probability.

    Args:
        functions: of any number and size.
        detector: in single precision, for evaluation.
        kinds: of the places to judge.
        settled: `[place rows]` rows that are known to be right; none of their rewrites is meant.
        most_votes: see `MOST_VOTES`.
    """
    table = WordTable(functions.forest.tokens, detector.config.rows)
    rows, values, logits = [], [], []
    described = None
    for kept in _portions(functions, most_votes):
        part = with_places(functions, kept)
        batch = collate(part, table, kinds=kinds)
        if not batch.table.count:
            continue
        described = described or detector.describe(batch)
        found = detector.judge(batch, *described)[1].double().numpy()
        changed = ~batch.table.current & ~pointless(part, batch.table.place, batch.table.value)
        rows.append(kept[batch.table.place[changed]])
        values.append(batch.table.value[changed])
        logits.append(found[changed])
    empty = np.zeros(0, np.int64)
    place, value = (np.concatenate(parts or [empty]) for parts in (rows, values))
    logit = np.concatenate(logits or [np.zeros(0)])
    if settled is not None:
        fine = ~settled[place]
        place, value, logit = place[fine], value[fine], logit[fine]
    function = functions.owner("place")[place]
    share, wrong = _softmax(logit, function, functions.count)
    return Scored(place=place, value=value, logit=logit, function=function, share=share, wrong=wrong)


def _softmax(logit: npt.NDArray[np.float64], function: Ints, functions: int) -> tuple[Ints, Ints]:
    top = np.zeros(functions)
    np.maximum.at(top, function, logit)
    raised = np.exp(logit - top[function])
    total = np.exp(-top) + np.bincount(function, raised, minlength=functions)
    share = raised / total[function]
    return share, np.bincount(function, share, minlength=functions)


def _portions(functions: Functions, most: int) -> Iterator[Ints]:
    """Rows of the place table: all in one where the votes are few, else names in portions, the rest with the first."""
    cost = votes(functions)
    portion = np.where(cost > 0, (np.cumsum(cost) - 1) // most, 0)
    for number in np.unique(portion):
        yield np.flatnonzero(portion == number)


def votes(functions: Functions) -> Ints:
    """`[place rows]` occurrences and names that a place of a name is compared with; 0 for other places."""
    kind = functions["place_kind"]
    named = (kind == VARIABLE) | (kind == ATTRIBUTE)
    if not named.any():
        return np.zeros(len(kind), np.int64)
    base = np.asarray(functions["symbol_ptr"])
    wide = int(functions["symbol_group"].max(initial=0)) + 1
    group = functions.owner("symbol") * wide + functions["symbol_group"]
    symbol = base[functions.owner("occurrence")] + functions["occurrence_symbol"]
    size = np.bincount(group, minlength=functions.count * wide)
    size = size + np.bincount(group[symbol], minlength=len(size))
    own = base[functions.owner("place")] + np.where(named, functions["place_a"], 0)
    return np.where(named, size[group[np.where(named, own, 0)]], 0)


def with_places(functions: Functions, rows: Ints) -> Functions:
    """The same functions with some rows of the place table only, which must be ascending."""
    if len(rows) == len(functions["place_kind"]):
        return functions
    owner = functions.owner("place")[rows]
    ptr = np.searchsorted(owner, np.arange(functions.count + 1))
    columns = {
        n: v[rows] for n, v in functions.columns.items() if n.startswith("place_") and n != "place_ptr"
    }
    return dataclasses.replace(
        functions, columns={**functions.columns, **columns, "place_ptr": ptr.astype(np.int64)}
    )


def pointless(functions: Functions, place: Ints, value: Ints) -> Mask:
    """`[candidates]`: a name that would be compared, combined with, or assigned to itself."""
    forest = functions.forest
    named = functions["place_kind"][place] == VARIABLE
    node = np.asarray(forest.ptr)[functions.owner("place")[place]] + functions["place_node"][place]
    above = np.maximum(forest.absolute_parent[node], 0)
    kind = forest.kind[above]
    # Two operands with an operator between them; a target and its value.
    spread = np.where(np.isin(kind, _BOTH_SIDES), 2, np.where(kind == KIND["Assign"], 1, 0))
    parent = forest.absolute_parent
    children = np.bincount(parent[parent >= 0], minlength=forest.nodes)
    fits = named & (spread > 0) & (children[above] == spread + 1)
    between = np.minimum(node - forest.pos[node] + 1, forest.nodes - 1)
    fits &= (kind != KIND["BinOp"]) | ~np.isin(forest.token[between], _REPEATABLE)
    other = np.where(forest.pos[node] == 0, node + spread, node - spread)
    other = np.clip(np.where(fits, other, 0), 0, max(forest.nodes - 1, 0))
    plain = np.isin(forest.kind[other], (KIND["Name"], KIND["NameStore"]))
    symbols = functions["symbol_token"]
    token = symbols[np.where(named, value, 0)] if len(symbols) else np.zeros(len(place), np.int64)
    return np.asarray(fits & plain & (forest.token[other] == token))
