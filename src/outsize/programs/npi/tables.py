"""A controller as an automaton: its decisions read off once, for all observations, and merged.

Because a call starts from the zero state and sees only answers, a controller is a finite tree of decisions
per program. Reading the network's own decisions (not the reference program's) gives tables that act as the
network does; equal subtrees are shared. `listing.py` prints the same trees as Python source.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
import torch

from ...errors import NpiError
from .calls import NOTHING, RETURNS, Action, Row
from .controller import Controller
from .session import CALL_LIMIT

__all__ = ["Tables", "Tree", "compile_tables", "forest"]

_ASKS = ("test", "at end", "at start", "before", "meets")


@final
@dataclass(frozen=True)
class Tables:
    """The automaton. A state is the action it emits; `follow` says where each observation leads (-1: never).

    Attributes:
        programs: names, as in the controller's vocabulary.
        actions: distinct actions.
        start: int32 [programs], first state of each.
        act: int32 [states], index into `actions`.
        follow: int32 [states, 3].
    """

    programs: tuple[str, ...]
    actions: tuple[Action, ...]
    start: np.ndarray
    act: np.ndarray
    follow: np.ndarray

    def walk(self, row: Row) -> list[Action]:
        """The actions that the tables answer to a row's observations."""
        out, state = [], -1
        for seen, _ in row.steps:
            state = (
                int(self.start[self.programs.index(row.program)])
                if state < 0
                else int(self.follow[state, seen])
            )
            if state < 0:
                break
            out.append(self.actions[self.act[state]])
        return out


#: A decision tree: the action and, per observation that can follow it, the next tree.
Tree = tuple[Action, tuple[tuple[int, "Tree"], ...]]


@torch.no_grad()
def _grow(controller: Controller, program: int, returns: dict[str, set[int]], found: set[int]) -> Tree:
    """The controller's decision tree for one program, level by level in batches."""
    v = controller.vocabulary
    paths: list[tuple[int, ...]] = [(NOTHING,)]
    state = controller.start(1)
    decided: dict[tuple[int, ...], Action] = {}
    while paths:
        if len(paths[0]) > CALL_LIMIT or len(decided) > 1 << 16:
            raise NpiError(
                f"the controller does not leave {v.programs[program]}: it is not trained; run verify"
            )
        seen = torch.tensor([p[-1] for p in paths])
        logits, (h, c) = controller(torch.full((len(paths),), program), seen, state)
        picks = torch.stack([head.argmax(1) for head in logits.split(controller.widths, 1)], 1).tolist()
        parents, grown = [], []
        for i, path in enumerate(paths):
            action = decided[path] = v.decode(*picks[i])
            for answer in _answers(action, returns, found):
                parents.append(i)
                grown.append((*path, answer))
        state, paths = (h[parents], c[parents]), grown

    # Longest paths first, so that what follows a path is there when it is made: a call may have hundreds of actions.
    trees: dict[tuple[int, ...], Tree] = {}
    for path in sorted(decided, key=len, reverse=True):
        trees[path] = decided[path], tuple((a, trees[*path, a]) for a in range(3) if (*path, a) in trees)
    return trees[(NOTHING,)]


def _answers(action: Action, returns: dict[str, set[int]], found: set[int]) -> Sequence[int]:
    verb, _, called = action.key.partition(" ")
    if action.key in RETURNS:
        found.add(RETURNS[action.key])
        return ()
    if verb == "tail":
        found |= returns.get(called, set())
        return ()
    if verb == "call":
        return sorted(returns.get(called, set()))
    return (1, 2) if action.key in _ASKS else (NOTHING,)


def forest(controller: Controller) -> dict[str, Tree]:
    """Every program's tree, to a fixed point over what the programs return."""
    programs = controller.vocabulary.programs
    returns: dict[str, set[int]] = {name: set() for name in programs}
    while True:
        before = {name: set(found) for name, found in returns.items()}
        forest = {p: _grow(controller, i, returns, returns[p]) for i, p in enumerate(programs)}
        if returns == before:
            return forest


def compile_tables(controller: Controller) -> Tables:
    """Read a controller's decisions off into tables.

    Raises:
        NpiError: the controller never returns from some program.
    """
    index: dict[tuple[int, tuple[int, int, int]], int] = {}
    actions: dict[Action, int] = {}

    def place(root: Tree) -> int:
        placed: dict[int, int] = {}
        stack = [root]
        while stack:
            action, branches = tree = stack[-1]
            if waiting := [branch for _, branch in branches if id(branch) not in placed]:
                stack += waiting
                continue
            follow = [-1, -1, -1]
            for answer, branch in branches:
                follow[answer] = placed[id(branch)]
            key = (actions.setdefault(action, len(actions)), (follow[0], follow[1], follow[2]))
            placed[id(tree)] = index.setdefault(key, len(index))
            stack.pop()
        return placed[id(root)]

    start = [place(tree) for tree in forest(controller).values()]
    return Tables(
        controller.vocabulary.programs,
        tuple(actions),
        np.array(start, dtype=np.int32),
        np.array([a for a, _ in index], dtype=np.int32),
        np.array([f for _, f in index], dtype=np.int32).reshape(-1, 3),
    )
