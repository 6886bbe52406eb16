"""Turn the loops of an ordinary function into calls.

The controller starts every call with an empty state, and that is what makes its decisions finitely many (Cai
et al., ICLR 2017). A `while` loop has no such boundary. So each loop is lifted, in the syntax tree, to a
function of its own that ends by calling itself; the machine runs that call in the same frame.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator, Sequence
from types import CodeType, FunctionType
from typing import Any, NoReturn, final

from ...errors import NpiError

__all__ = ["AGAIN", "compile_bodies", "lift"]

_LOST = "__outsize_lost__"
#: What a loop's next round is called through: `return __outsize_again__(loop, p, q)`.
AGAIN = "__outsize_again__"


def compile_bodies(
    lifted: list[ast.FunctionDef], function: FunctionType, names: dict[str, Any]
) -> dict[str, FunctionType]:
    """The lifted functions by name, over the globals `names`; line numbers stay those of the user's file."""
    module = ast.fix_missing_locations(ast.Module(body=list(lifted), type_ignores=[]))
    names[_LOST] = Lost
    code = compile(module, function.__code__.co_filename, "exec", dont_inherit=True)
    codes = [c for c in code.co_consts if isinstance(c, CodeType)]
    called = [function.__name__, *(_plain(c.co_name) for c in codes[1:])]
    return {name: FunctionType(c, names, name) for name, c in zip(called, codes)}


def _bound(name: str) -> str:
    """The name that a loop's function has in the compiled text; no name of the user's can be the same."""
    return f"{name} (loop)"


def _plain(name: str) -> str:
    return name.removesuffix(" (loop)")


def lift(function: ast.FunctionDef) -> list[ast.FunctionDef] | None:
    """The function and its loops' helpers, or None when there is no `while`.

    Raises:
        NpiError: a loop that cannot be a call of its own.
    """
    if not any(isinstance(n, ast.While) for n in ast.walk(function)):
        return None
    tree = copy.deepcopy(function)
    tree.decorator_list, tree.returns = [], None
    tree.args.defaults = [
        ast.Constant(None) for _ in tree.args.defaults
    ]  # the linker gives it the user's own
    for argument in tree.args.args:
        argument.annotation = None
    return _Lifter(tree).run(tree)


@final
class _Lifter:
    def __init__(self, tree: ast.FunctionDef) -> None:
        self.name = tree.name
        #: Every name that is the function's own, wherever it is assigned.
        self.local = {a.arg for a in tree.args.args} | {n for n, _ in _stores(tree.body, into_loops=True)}
        self.helpers: list[ast.FunctionDef] = []
        self.count = 0

    def run(self, tree: ast.FunctionDef) -> list[ast.FunctionDef]:
        tree.body = self._block(tree.body, tree, tail=True)
        return [tree, *self.helpers]

    def _block(self, body: list[ast.stmt], scope: ast.FunctionDef, tail: bool) -> list[ast.stmt]:
        done: list[ast.stmt] = []
        for i, statement in enumerate(body):
            last = tail and i == len(body) - 1
            if isinstance(statement, ast.While):
                leaves = any(isinstance(n, ast.Return) for n in ast.walk(statement))
                if leaves and not tail:
                    raise NpiError(
                        f"{self.name}: the loop at line {statement.lineno} holds a `return` and is followed "
                        f"by "
                        "other statements of an enclosing block; move the loop to a function of its own"
                    )
                # A loop that returns takes what follows it along, so that leaving it early needs no flag.
                rest = body[i + 1 :] if leaves else []
                call = self._helper(statement, rest, scope)
                if leaves or last:
                    return [*done, ast.copy_location(ast.Return(call), statement)]
                done += [ast.copy_location(ast.Expr(call), statement), *_lose(statement)]
                continue
            for inner in _blocks(statement):
                inner[:] = self._block(inner, scope, last and not isinstance(statement, ast.For))
            done.append(statement)
        return done

    def _helper(self, loop: ast.While, rest: list[ast.stmt], scope: ast.FunctionDef) -> ast.Call:
        if loop.orelse:
            raise NpiError(f"{self.name}: `while … else` at line {loop.lineno} is not supported; use a test")
        self.count += 1
        name = f"{self.name}_while{self.count}"
        bound = [a.arg for a in scope.args.args] + [
            n for n, line in _stores(scope.body, into_loops=False) if line < loop.lineno
        ]
        inside: list[ast.stmt] = [loop, *rest]
        stored: dict[str, int] = {}
        for n, line in _stores(inside, into_loops=True):
            stored[n] = min(line, stored.get(n, line))
        # A name that the loop sets before it uses it is the loop's own; the others come from outside.
        needed = {n for n, line in _loads(inside) if n not in stored or line <= stored[n]}
        if rebound := {n for n in needed & set(stored) if n in bound}:
            raise NpiError(
                f"{self.name}: the loop at line {loop.lineno} assigns {sorted(rebound)} again; what one "
                f"iteration "
                "leaves to the next lives on a tape (`write`) or in a pointer's position (`move`, `goto`)"
            )
        if unset := sorted((needed & self.local) - set(bound)):
            raise NpiError(
                f"{self.name}: the loop at line {loop.lineno} uses {unset[0]} before it assigns it, and no statement "
                "above it does on every way: assign it before the loop, or first thing inside"
            )
        arguments = [n for n in dict.fromkeys(bound) if n in needed]
        names = [ast.Name(a, ast.Load()) for a in arguments]
        target = ast.Name(_bound(name), ast.Load())
        call = ast.copy_location(ast.Call(target, list(names), []), loop)
        next_round = ast.Call(ast.Name(AGAIN, ast.Load()), [target, *names], [])
        again = ast.copy_location(ast.Return(next_round), loop)
        body = _Jumps(again, rest).rewrite(loop.body)
        after = [*_lose(loop), *rest] if rest else []
        branch = ast.copy_location(ast.If(loop.test, [*body, again], after), loop)
        helper = ast.FunctionDef(
            name=_bound(name),
            args=ast.arguments(
                posonlyargs=[],
                args=[ast.arg(a) for a in arguments],
                kwonlyargs=[],
                kw_defaults=[],
                defaults=[],
            ),
            body=[branch],
            decorator_list=[],
        )
        ast.fix_missing_locations(ast.copy_location(helper, loop))
        self.helpers.append(helper)
        helper.body = self._block(helper.body, helper, tail=True)
        return copy.deepcopy(call)


@final
class Lost:
    """What a name holds that a loop assigned, after the loop: nothing that one may use."""

    def __init__(self, name: str, line: int) -> None:
        self.name, self.line = name, line

    def _refuse(self, *_: object) -> NoReturn:
        raise NpiError(
            f"{self.name} is used after the loop at line {self.line} that assigns it: what a loop leaves behind lives on "
            "a tape (`write`) or in a pointer's position (`move`, `goto`)"
        )

    __bool__ = __int__ = __index__ = __hash__ = __call__ = __getattr__ = __eq__ = __ne__ = _refuse
    __lt__ = __le__ = __gt__ = __ge__ = __neg__ = __abs__ = __invert__ = _refuse
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __floordiv__ = __rfloordiv__ = _refuse
    __mod__ = __rmod__ = __and__ = __rand__ = __or__ = __ror__ = __xor__ = __rxor__ = _refuse


def _lose(loop: ast.While) -> list[ast.stmt]:
    """Assignments that spoil every name that the loop assigns."""
    names = dict.fromkeys(n for n, _ in _stores([loop], into_loops=True))
    code = "\n".join(f"{n} = {_LOST}({n!r}, {loop.lineno})" for n in names)
    return [ast.copy_location(s, loop) for s in ast.parse(code).body]


@final
class _Jumps(ast.NodeTransformer):
    """`break` becomes what follows the loop and a return; `continue` the next iteration's call."""

    def __init__(self, again: ast.Return, rest: list[ast.stmt]) -> None:
        self.again, self.rest = again, rest

    def rewrite(self, body: list[ast.stmt]) -> list[ast.stmt]:
        out: list[ast.stmt] = []
        for statement in body:
            result = self.visit(statement)
            out.extend(result if isinstance(result, list) else [result])
        return out

    def visit_Break(self, node: ast.Break) -> list[ast.stmt]:
        return [*copy.deepcopy(self.rest), ast.copy_location(ast.Return(None), node)]

    def visit_Continue(self, node: ast.Continue) -> ast.stmt:
        return copy.deepcopy(self.again)

    def visit_While(self, node: ast.While) -> ast.While:
        return node

    def visit_For(self, node: ast.For) -> ast.For:
        node.orelse = self.rewrite(node.orelse)  # a jump in there is one of the loop around
        return node


def _blocks(statement: ast.stmt) -> Iterator[list[ast.stmt]]:
    """The statement lists inside of a statement."""
    if isinstance(statement, ast.Match):
        yield from (case.body for case in statement.cases)
    elif isinstance(statement, ast.If | ast.For | ast.While):
        yield from (statement.body, statement.orelse)


def _stores(body: Sequence[ast.stmt], into_loops: bool) -> list[tuple[str, int]]:
    """Names that statements assign, each with the line after which it holds."""
    found: list[tuple[str, int]] = []
    for statement in body:
        if isinstance(statement, ast.While) and not into_loops:
            continue
        for inner in _blocks(statement):
            found += _stores(inner, into_loops)
        targets = (
            statement.targets
            if isinstance(statement, ast.Assign)
            else [statement.target]
            if isinstance(statement, ast.AnnAssign | ast.AugAssign | ast.For)
            else []
        )
        names = [n for t in targets for n in ast.walk(t) if isinstance(n, ast.Name)]
        found += [(n.id, statement.lineno) for n in names if isinstance(n.ctx, ast.Store)]
    return found


def _loads(body: Sequence[ast.stmt]) -> list[tuple[str, int]]:
    """Names that statements use, each with its line; `x += 1` uses x as well."""
    nodes = [n for s in body for n in ast.walk(s)]
    inner = {id(n) for comp in nodes for n in _own_loads(comp)}
    names = [
        n for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load) and id(n) not in inner
    ]
    found = [(n.id, n.lineno) for n in names]
    for node in nodes:
        if isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name):
            found.append((node.target.id, node.lineno))
    return found


def _own_loads(node: ast.AST) -> Iterator[ast.Name]:
    """Uses of a comprehension's own names inside of it; its first iterable is looked up around it."""
    if isinstance(node, ast.ListComp | ast.GeneratorExp):
        targets = [n for part in node.generators for n in ast.walk(part.target)]
        own = {n.id for n in targets if isinstance(n, ast.Name)}
        outer = {id(n) for n in ast.walk(node.generators[0].iter)}
        for n in ast.walk(node):
            if isinstance(n, ast.Name) and n.id in own and id(n) not in outer:
                yield n
