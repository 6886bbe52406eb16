"""A controller's decisions as Python source: what a person reads to see what was learned."""

from __future__ import annotations

from collections.abc import Mapping

from .calls import RETURNS
from .controller import Controller
from .tables import Tree, forest

__all__ = ["to_python"]


def to_python(controller: Controller) -> str:
    """The controller's decisions as Python source, runnable on `Head` pointers with `slots` filled.

    The functions call `slots["name"](values)` for primitives, so a module made of this text needs a
    dictionary `slots`.

    Args:
        controller: of a trained template (`Trained.controller`).

    Returns:
        the text of a module.
    """
    trees = forest(controller)
    takes, valued = _parameters(trees, controller.vocabulary.programs[0]), _valued(trees)
    out = ['"""Read off a trained controller. Needs `slots`: primitives by name."""', "", "slots = {}", ""]
    for name, tree in trees.items():
        parameters = takes.get(name, [])
        out += ["", f"def {name}({', '.join(parameters)}):"]
        counts = {kind: sum(p[0] == kind for p in parameters) for kind in "pv"}
        _emit(tree, out, 1, counts["p"], counts["v"], valued)
        out.append("")
    return "\n".join(out)


def _parameters(trees: Mapping[str, Tree], entry: str) -> dict[str, list[str]]:
    found = {entry: [f"p{i}" for i in range(_least_arity(trees[entry]))]}
    for tree in trees.values():
        stack = [tree]
        while stack:
            action, branches = stack.pop()
            verb, _, called = action.key.partition(" ")
            if verb in ("call", "tail"):
                kinds = [o[0] for o in action.operands]
                found[called] = [f"{k}{i - kinds.index(k)}" for i, k in enumerate(kinds)]
            stack += [branch for _, branch in branches]
    return found


def _valued(trees: Mapping[str, Tree]) -> set[str]:
    """The programs that return a value."""
    found: set[str] = set()
    while True:
        before = len(found)
        for name, tree in trees.items():
            stack = [tree]
            while stack:
                action, branches = stack.pop()
                tail = action.key.startswith("tail ") and action.key.removeprefix("tail ") in found
                if action.key == "return value" or tail:
                    found.add(name)
                stack += [branch for _, branch in branches]
        if len(found) == before:
            return found


def _least_arity(tree: Tree) -> int:
    """Pointers that the entry uses and does not make itself (it may never be called by name)."""
    most, stack = 0, [(tree, 0)]
    while stack:
        (action, branches), made = stack.pop()
        used = [int(o[1:]) for o in action.operands if o[0] == "p"]
        most = max([most, *(u + 1 - made for u in used)])
        made += action.key in ("copy", "middle")
        stack += [(branch, made) for _, branch in branches]
    return most


def _emit(tree: Tree, out: list[str], depth: int, pointers: int, values: int, valued: set[str]) -> None:
    action, branches = tree
    pad, (key, operands, slot) = "    " * depth, action
    inputs = ", ".join(operands if key in ("test", "compute") else operands[1:])
    if key in RETURNS:
        answer = operands[0] if operands else ("", "False", "True")[RETURNS[key]]
        out.append(f"{pad}return {answer}".rstrip())
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
        case "compute":
            out.append(f'{pad}v{values} = slots["{slot}"]({inputs})')
            values += 1
        case "goto" | "seek":
            out.append(f"{pad}{operands[0]}.{verb}({inputs})")
    question = {
        "test": f'slots["{slot}"]({inputs})',
        "call": f"{called}({', '.join(operands)})",
    }.get(verb, f"{operands[0]}.{key.replace(' ', '_')}({inputs})" if operands else "")
    if len(branches) == 1:
        if verb == "call" and called in valued:
            out.append(f"{pad}v{values} = {question}")
            values += 1
        elif verb == "call":
            out.append(pad + question)
        _emit(branches[0][1], out, depth, pointers, values, valued)
    elif branches:
        (_, no), (_, yes) = branches[0], branches[-1]
        out.append(f"{pad}if {question}:")
        _emit(yes, out, depth + 1, pointers, values, valued)
        _emit(no, out, depth, pointers, values, valued)
