"""Rewrites of a Python function that keep its meaning: the positive pairs of the similarity search.

Each takes a statement list and gives another, or nothing where its conditions do not hold:

* for to while: `for t in xs` by an explicit iterator and `next` (any loop without `else`);
* comprehension to loop: `x = [e for t in xs if c]` by an empty list and `append`, where `x` and the names of
  `t` occur nowhere they would clash;
* guard to else, and back: the rest of a block after an `if` that leaves it moves into `else`;
* branches exchanged: `if c: A else: B` becomes `if not c: B else: A`;
* reordered: two neighbouring assignments to different names that read neither, without calls.

Names of locals need no rewrite here: the network does not read them (see `similar`). The work is done on
`ast` and nothing is executed.
"""

from __future__ import annotations

import ast
import copy
import random
from collections.abc import Callable, Iterator

Block = list[ast.stmt]
_LEAVES = (ast.Return, ast.Raise, ast.Continue, ast.Break)
_IMPURE = (
    ast.Call, ast.Await, ast.Yield, ast.YieldFrom, ast.Attribute, ast.Subscript, ast.NamedExpr, ast.BinOp,
    ast.Compare, ast.comprehension, ast.JoinedStr, ast.Starred, ast.UnaryOp,
)  # fmt: skip


class Fresh:
    """Names that occur nowhere in the function."""

    def __init__(self, root: ast.AST) -> None:
        self.taken = {n.id for n in ast.walk(root) if isinstance(n, ast.Name)}
        self.taken |= {n.arg for n in ast.walk(root) if isinstance(n, ast.arg)}

    def __call__(self, stem: str) -> str:
        number = 0
        while f"{stem}{number}" in self.taken:
            number += 1
        self.taken.add(f"{stem}{number}")
        return f"{stem}{number}"


def names(node: ast.AST) -> set[str]:
    return {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}


def for_to_while(block: Block, at: int, fresh: Fresh, root: ast.AST) -> Block | None:
    loop = block[at]
    if not isinstance(loop, ast.For) or loop.orelse:
        return None
    iterator = fresh("iterator")
    step = ast.Assign([loop.target], _call("next", ast.Name(iterator, ast.Load())), lineno=0)
    stop = ast.ExceptHandler(ast.Name("StopIteration", ast.Load()), None, [ast.Break()])
    body = [ast.Try([step], [stop], [], []), *loop.body]
    start = ast.Assign([ast.Name(iterator, ast.Store())], _call("iter", loop.iter), lineno=0)
    return [*block[:at], start, ast.While(ast.Constant(True), body, []), *block[at + 1 :]]


def comprehension_to_loop(block: Block, at: int, fresh: Fresh, root: ast.AST) -> Block | None:
    found = block[at]
    value = found.value if isinstance(found, ast.Assign | ast.Return) else None
    if not isinstance(value, ast.ListComp) or len(value.generators) != 1 or value.generators[0].is_async:
        return None
    part = value.generators[0]
    bound = names(part.target)
    outside = sum(n.id in bound for n in ast.walk(root) if isinstance(n, ast.Name))
    if outside > sum(n.id in bound for n in ast.walk(value) if isinstance(n, ast.Name)) or bound & names(
        part.iter
    ):
        return None
    if isinstance(found, ast.Assign):
        target = found.targets[0]
        if len(found.targets) != 1 or not isinstance(target, ast.Name) or target.id in names(value):
            return None
        name, last = target.id, []
    else:
        name = fresh("result")
        last = [ast.Return(ast.Name(name, ast.Load()))]
    append = _call(ast.Attribute(ast.Name(name, ast.Load()), "append", ast.Load()), value.elt)
    body: Block = [ast.Expr(append)]
    for condition in reversed(part.ifs):
        body = [ast.If(condition, body, [])]
    start = ast.Assign([ast.Name(name, ast.Store())], ast.List([], ast.Load()), lineno=0)
    loop = ast.For(part.target, part.iter, body, [], lineno=0)
    return [*block[:at], start, loop, *last, *block[at + 1 :]]


def guard_to_else(block: Block, at: int, fresh: Fresh, root: ast.AST) -> Block | None:
    found, rest = block[at], block[at + 1 :]
    if not isinstance(found, ast.If) or found.orelse or not rest or not isinstance(found.body[-1], _LEAVES):
        return None
    return [*block[:at], ast.If(found.test, found.body, rest)]


def else_to_guard(block: Block, at: int, fresh: Fresh, root: ast.AST) -> Block | None:
    found = block[at]
    if not isinstance(found, ast.If) or not found.orelse or not isinstance(found.body[-1], _LEAVES):
        return None
    return [*block[:at], ast.If(found.test, found.body, []), *found.orelse, *block[at + 1 :]]


def branches_exchanged(block: Block, at: int, fresh: Fresh, root: ast.AST) -> Block | None:
    found = block[at]
    if not isinstance(found, ast.If) or not found.orelse:
        return None
    test = found.test
    negated = test.operand if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not) else None
    flipped = negated or ast.UnaryOp(ast.Not(), test)
    return [*block[:at], ast.If(flipped, found.orelse, found.body), *block[at + 1 :]]


def reordered(block: Block, at: int, fresh: Fresh, root: ast.AST) -> Block | None:
    pair = block[at : at + 2]
    if len(pair) < 2 or not all(_plain(s) for s in pair):
        return None
    first, second = pair
    if _written(first) & names(second) or _written(second) & names(first):
        return None
    return [*block[:at], second, first, *block[at + 2 :]]


def _plain(statement: ast.stmt) -> bool:
    if not isinstance(statement, ast.Assign) or not all(isinstance(t, ast.Name) for t in statement.targets):
        return False
    return not any(isinstance(n, _IMPURE) for n in ast.walk(statement.value))


def _written(statement: ast.stmt) -> set[str]:
    return {n.id for n in ast.walk(statement) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}


def _call(function: str | ast.expr, *arguments: ast.expr) -> ast.Call:
    called = ast.Name(function, ast.Load()) if isinstance(function, str) else function
    return ast.Call(called, list(arguments), [])


Rewrite = Callable[[Block, int, Fresh, ast.AST], "Block | None"]
REWRITES: tuple[Rewrite, ...] = (
    for_to_while, comprehension_to_loop, guard_to_else, else_to_guard, branches_exchanged, reordered,
)  # fmt: skip


def blocks(root: ast.AST) -> Iterator[tuple[ast.AST, str]]:
    """Every statement list under the function, as (owner, field)."""
    for node in ast.walk(root):
        for field in ("body", "orelse", "finalbody"):
            value = getattr(node, field, None)
            if isinstance(value, list) and value and isinstance(value[0], ast.stmt):
                yield node, field


def rewritten(function: ast.AST, rng: random.Random, most: int = 3) -> tuple[ast.AST, list[str]]:
    """A copy with up to `most` rewrites applied at random places, and the names of those that were."""
    root = copy.deepcopy(function)
    fresh = Fresh(root)
    applied: list[str] = []
    for _ in range(most):
        name = _one(root, fresh, rng)
        if name is None:
            break
        applied.append(name)
    return ast.fix_missing_locations(root), applied


#: The order in which `thoroughly` goes through the families; guards are turned one way only, whichever is drawn.
_SWEEPS = (comprehension_to_loop, for_to_while, reordered, guard_to_else, branches_exchanged)


def thoroughly(function: ast.AST, rng: random.Random) -> tuple[ast.AST, list[str]]:
    """A copy with every family applied at every place where it holds, one on top of the other; and their names.

    Guards go into `else` or, drawn once for the function, out of it; branches are exchanged before or after that; of
    two neighbours that may be reordered, every second pair is.
    """
    root = copy.deepcopy(function)
    fresh = Fresh(root)
    applied: list[str] = []
    sweeps = [else_to_guard if s is guard_to_else and rng.random() < 0.5 else s for s in _SWEEPS]
    if rng.random() < 0.5:
        sweeps[-2:] = sweeps[:-3:-1]
    for rewrite in sweeps:
        pending = list(blocks(root))
        while pending:
            owner, field = pending.pop()
            at = 0
            while at < len(block := getattr(owner, field)):
                changed = rewrite(block, at, fresh, root)
                if changed is not None:
                    setattr(owner, field, changed)
                    applied.append(rewrite.__name__)
                    if rewrite is guard_to_else:
                        pending.append((changed[at], "orelse"))
                        break
                    at += 1 + (len(changed) - len(block) if rewrite is comprehension_to_loop else 0)
                at += 1
    return ast.fix_missing_locations(root), applied


def _one(root: ast.AST, fresh: Fresh, rng: random.Random) -> str | None:
    """Apply the first rewrite that holds somewhere, in random order."""
    choices = [(rewrite, owner, field) for owner, field in blocks(root) for rewrite in REWRITES]
    rng.shuffle(choices)
    for rewrite, owner, field in choices:
        block = getattr(owner, field)
        for at in rng.sample(range(len(block)), len(block)):
            changed = rewrite(block, at, fresh, root)
            if changed is not None:
                setattr(owner, field, changed)
                return rewrite.__name__
    return None
