"""A controller as an automaton: its decisions read off once, for all observations, and merged.

Because a call starts from the zero state and sees only answers, a controller is a finite tree of decisions
per program. Reading the network's own decisions (not the reference program's) gives tables that act as the
network does; equal subtrees are shared. The same tree prints as Python source that a person can read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
import torch

from ...errors import NpiError
from .calls import NOTHING, Action, Row
from .controller import Controller
from .record import CALL_LIMIT

__all__ = ["Tables", "compile_tables", "to_python"]

_RETURNS = {"return": 0, "return no": 1, "return yes": 2}
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
_Tree = tuple[Action, tuple[tuple[int, "_Tree"], ...]]


@torch.no_grad()
def _grow(controller: Controller, program: int, returns: dict[str, set[int]], found: set[int]) -> _Tree:
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
    trees: dict[tuple[int, ...], _Tree] = {}
    for path in sorted(decided, key=len, reverse=True):
        trees[path] = decided[path], tuple((a, trees[*path, a]) for a in range(3) if (*path, a) in trees)
    return trees[(NOTHING,)]


def _answers(action: Action, returns: dict[str, set[int]], found: set[int]) -> Sequence[int]:
    verb, _, called = action.key.partition(" ")
    if action.key in _RETURNS:
        found.add(_RETURNS[action.key])
        return ()
    if verb == "tail":
        found |= returns.get(called, set())
        return ()
    if verb == "call":
        return sorted(returns.get(called, set()))
    return (1, 2) if action.key in _ASKS else (NOTHING,)


def _forest(controller: Controller) -> dict[str, _Tree]:
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

    def place(root: _Tree) -> int:
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

    start = [place(tree) for tree in _forest(controller).values()]
    return Tables(
        controller.vocabulary.programs,
        tuple(actions),
        np.array(start, dtype=np.int32),
        np.array([a for a, _ in index], dtype=np.int32),
        np.array([f for _, f in index], dtype=np.int32).reshape(-1, 3),
    )


def to_python(controller: Controller) -> str:
    """The controller's decisions as Python source: readable, and runnable on `Head` pointers with `slots`
    filled.

    The functions call `slots["name"](values)` for primitives, so a module made of this text needs a
    dictionary `slots`.
    """
    arity = _arities(controller)
    out = ['"""Read off a trained controller. Needs `slots`: primitives by name."""', "", "slots = {}", ""]
    for name, tree in _forest(controller).items():
        names = ", ".join(f"p{i}" for i in range(arity.get(name, 0)))
        out += ["", f"def {name}({names}):"]
        _emit(tree, out, 1, arity.get(name, 0), 0)
        out.append("")
    return "\n".join(out)


def _arities(controller: Controller) -> dict[str, int]:
    v = controller.vocabulary
    found: dict[str, int] = {v.programs[0]: _least_arity(controller)}
    for tree in _forest(controller).values():
        stack = [tree]
        while stack:
            action, branches = stack.pop()
            verb, _, called = action.key.partition(" ")
            if verb in ("call", "tail"):
                found[called] = len(action.operands)
            stack += [branch for _, branch in branches]
    return found


def _least_arity(controller: Controller) -> int:
    """Pointers that the entry uses and does not make itself (it may never be called by name)."""
    most, stack = 0, [(_forest(controller)[controller.vocabulary.programs[0]], 0)]
    while stack:
        (action, branches), made = stack.pop()
        used = [int(o[1:]) for o in action.operands if o[0] == "p"]
        most = max([most, *(u + 1 - made for u in used)])
        made += action.key in ("copy", "middle")
        stack += [(branch, made) for _, branch in branches]
    return most


def _emit(tree: _Tree, out: list[str], depth: int, pointers: int, values: int) -> None:
    action, branches = tree
    pad, (key, operands, slot) = "    " * depth, action
    inputs = ", ".join(operands if slot and key == "test" else operands[1:])
    if key in _RETURNS:
        out.append(pad + ("return", "return False", "return True")[_RETURNS[key]])
        return
    verb, _, called = key.partition(" ")
    match verb:
        case "tail":
            out.append(f"{pad}return {called}({', '.join(operands)})")
            return
        case "read":
            out += [f"{pad}v{values + i} = {p}.read()" for i, p in enumerate(operands)]
            values += len(operands)
        case "left" | "right":
            out += [f"{pad}{p}.move({1 if verb == 'right' else -1})" for p in operands]
        case "copy" | "middle":
            out.append(f"{pad}p{pointers} = {operands[0]}.{verb}({inputs})")
            pointers += 1
        case "write":
            datum = inputs if slot == "copy" else f'slots["{slot}"]({inputs})'
            out.append(f"{pad}{operands[0]}.write({datum})")
        case "goto" | "seek":
            out.append(f"{pad}{operands[0]}.{verb}({inputs})")
    question = {
        "test": f'slots["{slot}"]({inputs})',
        "call": f"{called}({', '.join(operands)})",
    }.get(verb, f"{operands[0]}.{key.replace(' ', '_')}({inputs})" if operands else "")
    if len(branches) == 1:
        if verb == "call":
            out.append(pad + question)
        _emit(branches[0][1], out, depth, pointers, values)
    elif branches:
        (_, no), (_, yes) = branches[0], branches[-1]
        out.append(f"{pad}if {question}:")
        _emit(yes, out, depth + 1, pointers, values)
        _emit(no, out, depth, pointers, values)
