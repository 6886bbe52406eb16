"""A batch of functions as the tensors that the detector reads.

Everything that depends on integers only (which candidate belongs to which place, which occurrences speak for
which name, how far they are) is spelled out here in numpy; the network then consists of gathers, matrix
products and segment sums.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from torch import Tensor

from .forest import Ints, expand
from .functions import Functions
from .grammar import ATTRIBUTE, LITERAL, LOAD, OPERATION, PARAMETER, ROLES, STORE, SWAP, VARIABLE
from .inject import Bugs
from .rewrites import Candidates, candidates
from .topology import Topology
from .words import WordTable, unique_tokens

#: Distances in reading order, before and after: powers of two up to 2^8.
DISTANCES = 18
#: Descriptions of a candidate name: how often it is read and set elsewhere, what it is, whether it is set
#: before.
TRAITS = 4 * 3 * 2 * 2 * 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Names:
    """Candidate names and the occurrences that speak for them.

    Attributes:
        node: `[pairs]` the place's node.
        token: `[pairs]` the candidate's token, an index into the batch's tokens.
        trait: `[pairs]` an index below `TRAITS`.
        pair: `[votes]` which pair an occurrence speaks for.
        voter: `[votes]` the occurrence's node.
        relation: `[votes]` role x distance, below `ROLES * DISTANCES`.
    """

    node: Tensor
    token: Tensor
    trait: Tensor
    pair: Tensor
    voter: Tensor
    relation: Tensor


@dataclasses.dataclass(frozen=True, kw_only=True)
class Batch:
    """See the module. Candidates are in the order names, operators, literals, swaps.

    Attributes:
        topology: shape of the forest.
        kind, field, token: `[nodes]`; tokens are indices into the batch's distinct ones.
        local: `[nodes]` 1 where a local name stands.
        words, offsets: the rows of the distinct tokens (`WordTable.bags`).
        names: see `Names`.
        operator_node, operator: node and number of each operator candidate.
        literal_node, literal: node and token of each literal candidate.
        call, first, second: nodes of each pair of arguments.
        candidate_place: `[candidates]` index into the batch's active places.
        candidate_current: `[candidates]` bool.
        place_node, place_kind, place_function: `[places]`, node in the batch.
        truth: `[places]` index of the right candidate.
        functions: how many.
        repair: `[functions]` index of the candidate that repairs the bug, -1 without a bug.
        table: the candidates in numpy.
        place_row: `[places]` row of the place table.
    """

    topology: Topology
    kind: Tensor
    field: Tensor
    token: Tensor
    local: Tensor
    words: Tensor
    offsets: Tensor
    names: Names
    operator_node: Tensor
    operator: Tensor
    literal_node: Tensor
    literal: Tensor
    call: Tensor
    first: Tensor
    second: Tensor
    candidate_place: Tensor
    candidate_current: Tensor
    place_node: Tensor
    place_kind: Tensor
    place_function: Tensor
    truth: Tensor
    functions: int
    repair: Tensor
    table: Candidates
    place_row: Ints


def collate(
    functions: Functions, table: WordTable, bugs: Bugs | None = None, kinds: tuple[int, ...] = (0, 1, 2, 3, 4)
) -> Batch:
    """The tensors of some functions, after bugs were injected into them."""
    found = candidates(functions, kinds)
    forest = functions.forest
    base = np.asarray(forest.ptr)[functions.owner("place")]
    node = base + functions["place_node"]
    distinct, (token, symbol_token) = unique_tokens(forest.token, functions["symbol_token"])
    rows, active = np.unique(found.place, return_inverse=True)
    words, offsets = table.bags(distinct)
    operators, literals = found.kind == OPERATION, found.kind == LITERAL
    swaps = np.flatnonzero(found.kind == SWAP)
    exchanged = found.place[swaps[found.value[swaps] == 1]]
    # First and second as they stand in the text now: their memory order would tell an exchange apart.
    pair = np.stack([(base + functions["place_a"])[exchanged], (base + functions["place_b"])[exchanged]])
    first, second = np.take_along_axis(pair, np.argsort(forest.pos[pair], axis=0), axis=0)
    local = np.zeros(forest.nodes, np.int64)
    occurrence = np.asarray(forest.ptr)[functions.owner("occurrence")] + functions["occurrence_node"]
    local[occurrence[_occurring_group(functions) == 0]] = 1
    truth, repair = _truth(functions, found, rows, active, bugs)
    tensor = torch.from_numpy
    return Batch(
        topology=Topology.of(forest), kind=tensor(forest.kind.astype(np.int64)),
        field=tensor(forest.field.astype(np.int64)), token=tensor(token), local=tensor(local), words=words,
        offsets=offsets, names=_names(functions, found, node, occurrence, symbol_token),
        operator_node=tensor(node[found.place[operators]]),
        operator=tensor(found.value[operators].astype(np.int64)),
        literal_node=tensor(node[found.place[literals]]),
        literal=tensor(found.value[literals].astype(np.int64)),
        call=tensor(node[exchanged]), first=tensor(first), second=tensor(second),
        candidate_place=tensor(active), candidate_current=tensor(found.current),
        place_node=tensor(node[rows]),
        place_kind=tensor(functions["place_kind"][rows].astype(np.int64)),
        place_function=tensor(functions.owner("place")[rows]), truth=tensor(truth), functions=functions.count,
        repair=tensor(repair), table=found, place_row=rows,
    )  # fmt: skip


def _occurring_group(functions: Functions) -> Ints:
    symbol = (
        np.asarray(functions["symbol_ptr"])[functions.owner("occurrence")] + functions["occurrence_symbol"]
    )
    return np.take(functions["symbol_group"], symbol)


def _truth(
    functions: Functions, found: Candidates, rows: Ints, active: Ints, bugs: Bugs | None
) -> tuple[Ints, Ints]:
    """The right candidate of each place, and the repairing candidate of each function."""
    truth = np.zeros(len(rows), np.int64)
    truth[active[found.current]] = np.flatnonzero(found.current)
    repair = np.full(functions.count, -1)
    if bugs is not None:
        owner = functions.owner("place")[found.place]
        here = (found.place == bugs.place[owner]) & (found.value == bugs.right[owner])
        repair[owner[here]] = np.flatnonzero(here)
        truth[active[here]] = np.flatnonzero(here)
    return truth, repair


def _names(
    functions: Functions, found: Candidates, node: Ints, occurrence: Ints, symbol_token: Ints
) -> Names:
    pairs = np.flatnonzero((found.kind == VARIABLE) | (found.kind == ATTRIBUTE))
    symbol, place = found.value[pairs], node[found.place[pairs]]
    owner = (
        np.asarray(functions["symbol_ptr"])[functions.owner("occurrence")] + functions["occurrence_symbol"]
    )
    by_symbol = np.argsort(owner, kind="stable")
    count = np.bincount(owner, minlength=len(functions["symbol_token"]))
    first = np.cumsum(count) - count
    vote = by_symbol[expand(first[symbol], count[symbol])]
    pair = np.repeat(np.arange(len(pairs)), count[symbol])
    other = occurrence[vote] != place[pair]
    vote, pair = vote[other], pair[other]
    role = functions["occurrence_role"][vote].astype(np.int64)
    ahead = functions.order[occurrence[vote]].astype(np.int64) - functions.order[place[pair]]
    step = np.minimum(np.log2(np.maximum(np.abs(ahead), 1)).astype(np.int64), DISTANCES // 2 - 1)
    distance = step + np.where(ahead > 0, DISTANCES // 2, 0)
    tensor = torch.from_numpy
    return Names(
        node=tensor(place), token=tensor(symbol_token[symbol]),
        trait=tensor(_traits(len(pairs), pair, role, ahead, found.kind[pairs])), pair=tensor(pair),
        voter=tensor(occurrence[vote]), relation=tensor(role * DISTANCES + distance),
    )  # fmt: skip


def _traits(pairs: int, pair: Ints, role: Ints, ahead: Ints, kind: Ints) -> Ints:
    reads = np.minimum(np.bincount(pair[role >= LOAD], minlength=pairs), 3)
    sets = np.minimum(np.bincount(pair[role == STORE], minlength=pairs), 2)
    parameter = np.bincount(pair[role == PARAMETER], minlength=pairs) > 0
    before = np.bincount(pair[(role <= STORE) & (ahead < 0)], minlength=pairs) > 0
    return np.asarray((((reads * 3 + sets) * 2 + parameter) * 2 + before) * 2 + (kind == ATTRIBUTE))


RELATIONS = ROLES * DISTANCES
