"""Re-link an ordinary function so that its calls can be heard, and turn its loops into calls.

The controller starts every call with an empty state, and that is what makes its decisions finitely many (Cai
et al., ICLR 2017). A `while` loop has no such boundary. So each loop is lifted, in the syntax tree, to a
function of its own that ends by calling itself; the machine runs that call in the same frame. Nothing is
asked of the user: functions are found through the names that the program uses, and the copies live in a
namespace of their own.
"""

from __future__ import annotations

import ast
import copy
import inspect
import textwrap
from collections.abc import Callable, Sequence
from types import CellType, FunctionType
from typing import Any, Protocol, final

from ...errors import NpiError
from .tape import Pointer
from .value import Value

__all__ = ["Linker", "Listener", "Program"]

Program = Callable[..., Any]


class Listener(Protocol):
    """Who hears the calls: a recorder of one execution, or an explorer of all of them."""

    def call(self, name: str, function: Program, arguments: tuple[Pointer, ...]) -> bool | None: ...

    def compute(self, name: str, function: Program, arguments: tuple[Any, ...]) -> Any: ...


@final
class Linker:
    """Copies of a program's functions whose calls go through `listener`.

    A call whose arguments are pointers is a program call; one whose arguments are values is a data function,
    hence (part of) a primitive; any other call is left alone.
    """

    def __init__(self, program: Program, lift: bool = True) -> None:
        if not isinstance(program, FunctionType):
            raise NpiError(f"a program is a plain Python function over pointers, not {program!r}")
        self._lifts = lift
        self.listener: Listener | None = None
        self.functions: dict[str, FunctionType] = {}
        self._originals: dict[str, FunctionType] = {}
        self._linked: dict[FunctionType, Program] = {}
        self._link(program)
        self.name = program.__name__

    def _link(self, function: FunctionType) -> Program:
        if function in self._linked:
            return self._linked[function]
        self._linked[function] = wrapper = self._wrap(function.__name__)
        self._originals[function.__name__] = function
        names = dict(function.__globals__)
        cells = zip(function.__code__.co_freevars, function.__closure__ or ())
        names.update((name, cell.cell_contents) for name, cell in cells)
        lifted = _lift(function) if self._lifts else None
        bodies = {function.__name__: function} if lifted is None else _compile(lifted, function, names)
        for name in bodies:
            if name in self.functions:
                raise NpiError(f"two functions of the program are called {name}: rename one")
            self.functions[name] = bodies[name]
        links = {
            name: self._wrap(name) if name in bodies and lifted is not None else self._relink(names.get(name))
            for body in bodies.values()
            for name in body.__code__.co_names + body.__code__.co_freevars
            if name in names
        }
        names.update(links)
        if lifted is None:
            code = function.__code__
            closure = tuple(CellType(names[name]) for name in code.co_freevars)
            body = FunctionType(code, names, function.__name__, function.__defaults__, closure)
            self.functions[function.__name__] = body
        return wrapper

    def _relink(self, found: Any) -> Any:
        """Functions of the program are linked; ours, builtins, classes and modules stay as they are."""
        ours = isinstance(found, FunctionType) and found.__module__.startswith(__package__ + ".")
        library = isinstance(found, FunctionType) and found.__module__.startswith(f"{__package__}.library")
        return self._link(found) if isinstance(found, FunctionType) and (library or not ours) else found

    def _wrap(self, name: str) -> Program:
        def call(*arguments: Any) -> Any:
            listener, function = self.listener, self.functions[name]
            if listener is None:
                raise NpiError(f"{name} is called outside of a recording")
            if arguments and all(isinstance(a, Pointer) for a in arguments):
                return listener.call(name, function, arguments)
            if any(isinstance(a, Value) for a in arguments):
                if any(isinstance(a, Pointer) for a in arguments):
                    raise NpiError(
                        f"{name} is called with a pointer and a value: a call passes pointers only; write "
                        f"the "
                        "value to a tape cell and pass a pointer to it"
                    )
                return listener.compute(name, self._originals[name], arguments)
            return function(*arguments)

        return call


def _compile(
    lifted: list[ast.FunctionDef], function: FunctionType, names: dict[str, Any]
) -> dict[str, FunctionType]:
    """The lifted functions, compiled into `names`; line numbers stay those of the user's file."""
    module = ast.fix_missing_locations(ast.Module(body=list(lifted), type_ignores=[]))
    exec(compile(module, function.__code__.co_filename, "exec"), names)
    return {tree.name: names[tree.name] for tree in lifted}


def _lift(function: FunctionType) -> list[ast.FunctionDef] | None:
    """The function and its loops' helpers, or None when there is no `while` (or no source to look at)."""
    try:
        source = textwrap.dedent(inspect.getsource(function))
    except (OSError, TypeError):
        return None
    try:
        tree = ast.parse(source).body[0]
    except SyntaxError:
        return None
    if not isinstance(tree, ast.FunctionDef) or not any(isinstance(n, ast.While) for n in ast.walk(tree)):
        return None
    ast.increment_lineno(tree, function.__code__.co_firstlineno - 1)
    tree.decorator_list = []
    tree.returns = None
    for argument in tree.args.args:
        argument.annotation = None
    return _Lifter(tree.name).run(tree)


@final
class _Lifter:
    def __init__(self, name: str) -> None:
        self.name = name
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
                done.append(ast.copy_location(ast.Expr(call), statement))
                continue
            for field in ("body", "orelse"):
                if isinstance(statement, ast.If | ast.For):
                    inner = getattr(statement, field)
                    setattr(
                        statement, field, self._block(inner, scope, last and isinstance(statement, ast.If))
                    )
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
        arguments = [n for n in dict.fromkeys(bound) if n in needed]
        call = ast.Call(ast.Name(name, ast.Load()), [ast.Name(a, ast.Load()) for a in arguments], [])
        ast.copy_location(call, loop)
        again = ast.copy_location(ast.Return(call), loop)
        body = _Jumps(again, rest).rewrite(loop.body)
        branch = ast.copy_location(ast.If(loop.test, [*body, again], rest), loop)
        helper = ast.FunctionDef(
            name=name,
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
        return node


def _stores(body: Sequence[ast.stmt], into_loops: bool) -> list[tuple[str, int]]:
    """Names that statements assign, each with the line after which it holds."""
    found: list[tuple[str, int]] = []
    for statement in body:
        if isinstance(statement, ast.While) and not into_loops:
            continue
        for field in ("body", "orelse"):
            inner = getattr(statement, field, None)
            if isinstance(inner, list):
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
    found = [(n.id, n.lineno) for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)]
    for node in nodes:
        if isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name):
            found.append((node.target.id, node.lineno))
    return found
