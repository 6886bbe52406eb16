"""Functions that do the same: the second task through the same layers.

A function's vector is pooled over the pivot vectors of all its nodes: each describes a subtree in its
context, and one rerooted pass gives them all. Names of local variables are not read, so renaming changes
nothing at all; names of called functions, attributes and literals are. The network learns from pairs of a
function and a rewritten copy (`same_meaning`) that the two are nearer to each other than to the other
functions of the batch (InfoNCE).
"""

from __future__ import annotations

import ast
import dataclasses
import json
import random
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import xxhash
from torch import Tensor, nn
from torch.nn import functional as F

from ...errors import TreesError
from ...files import Door, open_sealed
from ...values import build
from ...values.ranges import Range
from .forest import Ints
from .functions import Functions, concatenate
from .grammar import FIELDS, KINDS, RESERVED
from .localized import LocalizedTreeConv
from .python_front import Source, outermost_functions, python_functions, syntax_tree
from .same_meaning import rewritten, thoroughly
from .topology import Topology
from .weights import load_weights, save_weights
from .words import WordEmbedding, WordTable, unique_tokens

FORMAT = "outsize-trees-matcher"
VERSION = 1
DOOR = Door(
    kind="a matcher",
    remedy="train one with benchmarks/trees-similar/run.py --model, or leave --model away for the one that ships",
    error=TreesError,
    most_bytes=2**30,
)
SHIPPED = Path(__file__).with_name("matcher.safetensors")


@dataclasses.dataclass(frozen=True, kw_only=True)
class MatcherConfig:
    """Sizes: small, because thousands of functions are embedded for one question.

    Attributes:
        names: read the names of callees and attributes; off, identifiers are stripped altogether.
    """

    width: Annotated[int, Range(1, 4096)] = 64
    layers: Annotated[int, Range(2, 64)] = 3
    rows: Annotated[int, Range(1, 2**22)] = 8192
    inner: Annotated[int, Range(1, 4096)] = 32
    out: Annotated[int, Range(1, 4096)] = 128
    names: bool = True


class Matcher(nn.Module):
    """Functions to unit vectors."""

    def __init__(self, config: MatcherConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or MatcherConfig()
        self.kinds = nn.Embedding(len(KINDS), config.width)
        self.fields = nn.Embedding(len(FIELDS), config.width)
        self.words = WordEmbedding(config.rows, config.inner, config.width)
        self.tree = LocalizedTreeConv(config.width, layers=config.layers, residual=True, norm=True)
        self.out = nn.Linear(2 * config.width, config.out)
        self.log_scale = nn.Parameter(torch.tensor(2.3))
        for table in (self.kinds, self.fields):
            nn.init.normal_(table.weight, std=0.5)

    def forward(self, functions: Functions) -> Tensor:
        """`[functions, out]`, rows of length 1."""
        forest = functions.forest
        token = read_tokens(functions, names=self.config.names)
        distinct, (token,) = unique_tokens(token)
        # Only the distinct tokens of this batch are spelled.
        table = WordTable([forest.tokens[i] for i in distinct.tolist()], self.config.rows)
        spelled = self.words(*table.bags(np.arange(len(distinct))))
        x = self.kinds(torch.from_numpy(forest.kind.astype(np.int64)))
        x = x + self.fields(torch.from_numpy(forest.field.astype(np.int64)))
        x = x + spelled.index_select(0, torch.from_numpy(token))
        states = self.tree.edge_states(x, Topology.of(forest), x).pivot
        tree = torch.from_numpy(forest.tree_of)
        size = torch.from_numpy(np.diff(forest.ptr))[:, None]
        mean = states.new_zeros(functions.count, states.shape[1]).index_add(0, tree, states) / size
        lowest = torch.full_like(mean, -1e4)
        top = lowest.scatter_reduce(0, tree[:, None].expand_as(states), states, "amax")
        return F.normalize(self.out(torch.cat([mean, top], -1)), dim=-1)


def read_tokens(functions: Functions, *, names: bool) -> Ints:
    """`[nodes]` the tokens that may be read: no local names; without `names`, only operators and numbers."""
    token = np.array(functions.forest.token)
    owner = functions.owner("occurrence")
    symbol = np.asarray(functions["symbol_ptr"])[owner] + functions["occurrence_symbol"]
    local = functions["symbol_group"][symbol] == 0
    node = np.asarray(functions.forest.ptr)[owner] + functions["occurrence_node"]
    token[node[local]] = 0
    token[np.asarray(functions.forest.ptr[:-1])] = 0  # the function's own name
    return token if names else np.where(token < len(RESERVED), token, 0)


def pairs(
    texts: Iterable[bytes], seed: int, *,
    nodes: tuple[int, int] = (20, 512), most: int | None = 3, every: bool = False,
) -> Iterator[tuple[str, str, list[str]]]:  # fmt: skip
    """`(function, rewritten function, rewrites)` for every function of the texts that a rewrite applies to.

    Args:
        nodes: sizes that are taken.
        most: rewrites applied to one function, at random places; None applies each wherever it holds (`thoroughly`).
        every: also give those that none applies to, unchanged.
    """
    rng = random.Random(seed)
    for text in texts:
        try:
            tree = syntax_tree(Source(text))
        except TreesError:
            continue
        for function in outermost_functions(tree):
            count = sum(1 for _ in ast.walk(function))
            if not nodes[0] <= count <= nodes[1]:
                continue
            changed, applied = thoroughly(function, rng) if most is None else rewritten(function, rng, most)
            if applied or every:
                yield ast.unparse(function), ast.unparse(changed), applied


def packed_pairs(found: Iterable[tuple[str, str, list[str]]]) -> tuple[Functions, Functions]:
    """Both sides as packed functions, row by row.

    Raises:
        TreesError: there are no pairs.
    """
    left, right = [], []
    for one, other, _ in found:
        a, b = python_functions(one), python_functions(other)
        if a.count == b.count == 1:
            left.append(a)
            right.append(b)
    return concatenate(left), concatenate(right)


def train_matcher(
    model: Matcher, left: Functions, right: Functions, *, steps: int, batch: int = 128, rate: float = 2e-3,
    seed: int = 0, said: Callable[[int, float], None] = lambda step, loss: None,
) -> Matcher:  # fmt: skip
    """Contrastive training; the others of the batch are the negatives."""
    rng = np.random.default_rng(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, steps, pct_start=0.1)
    model.train()
    for step in range(steps):
        chosen = np.sort(rng.choice(left.count, min(batch, left.count), replace=False))
        a, b = model(left.select(chosen)), model(right.select(chosen))
        logits = a @ b.T * model.log_scale.clamp(max=4.6).exp()
        right_one = torch.arange(len(chosen))
        loss = (F.cross_entropy(logits, right_one) + F.cross_entropy(logits.T, right_one)) / 2
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        said(step, float(loss.detach()))
    return model.eval()


@torch.no_grad()
def embed(model: Matcher, functions: Functions, size: int = 128) -> np.ndarray[Any, Any]:
    """`[functions, out]` float32, in portions of `size` functions."""
    parts = [
        model(functions.select(range(start, min(start + size, functions.count)))).numpy()
        for start in range(0, functions.count, size)
    ]
    return np.concatenate([*parts, np.zeros((0, model.config.out), np.float32)])


def recall_at_1(queries: np.ndarray[Any, Any], gallery: np.ndarray[Any, Any], right: Ints) -> float:
    """Share of queries whose most similar gallery row is the right one; ties count as wrong."""
    hits = 0
    for start in range(0, len(queries), 512):
        score = queries[start : start + 512] @ gallery.T
        want = right[start : start + 512]
        own = score[np.arange(len(want)), want].copy()
        score[np.arange(len(want)), want] = -np.inf
        hits += int((own > score.max(1)).sum())
    return hits / len(queries)


def save_matcher(model: Matcher, path: Path, history: dict[str, Any] | None = None) -> None:
    """Write the weights in half precision, whole or not at all."""
    about = {"config": dataclasses.asdict(model.config), "lists": _lists(), "history": history or {}}
    save_weights(path, model, format=FORMAT, version=VERSION, about=about)


def load_matcher(path: Path = SHIPPED) -> Matcher:
    """Raises:
    TreesError: missing, damaged, or another kind of file.
    """
    if not path.exists():
        raise TreesError(f"no trained matcher at {path}; benchmarks/trees-similar/run.py --model trains one")
    found = open_sealed(path, DOOR, format=FORMAT, version=VERSION)
    try:
        about = build(_About, found.about)
        if about.lists != _lists():
            raise ValueError("it was trained with other lists of kinds")
    except ValueError as error:
        raise DOOR.fail(path, error) from error
    return load_weights(found, DOOR, lambda: Matcher(about.config))


@dataclasses.dataclass(frozen=True, kw_only=True)
class _About:
    """What a file says of its weights."""

    config: MatcherConfig
    lists: str
    history: dict[str, Any]


def _lists() -> str:
    return xxhash.xxh64_hexdigest(json.dumps([KINDS, FIELDS]).encode())
