"""Turn the loops of an ordinary function into calls.

The controller starts every call with an empty state, and that is what makes its decisions finitely many (Cai
et al., ICLR 2017). A loop has no such boundary. So each loop is lifted, in the syntax tree, to a function of
its own that ends by calling itself; the machine runs that call in the same frame. What a round leaves to the
next is an argument of that call.

A loop that leaves a name behind or holds a `return` takes along what follows it, so that leaving it early needs
no flag and its names are still there; where that is long it becomes a function too (`…_then1`).
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from types import CodeType, FunctionType
from typing import Any, NoReturn, final

from ...errors import NpiError
from .liveness import Exits, Names, live_in, loads, stores

__all__ = ["AGAIN", "KEEP", "Unset", "compile_bodies", "lift"]

#: Names in lifted code: `return again(loop, p, q)` goes on to a loop or to what follows it; `keep(x, "x")` puts what a
#: variable holds into a register; `unset` is no value yet.
AGAIN, KEEP, _UNSET = "__outsize_again__", "__outsize_keep__", "__outsize_unset__"
#: Statements that a loop takes along as they are; more become a function.
_INLINE = 4


def compile_bodies(
    lifted: list[ast.FunctionDef], function: FunctionType, names: dict[str, Any]
) -> dict[str, FunctionType]:
    """The lifted functions by name, over the globals `names`; line numbers stay those of the user's file."""
    module = ast.fix_missing_locations(ast.Module(body=list(lifted), type_ignores=[]))
    names[_UNSET] = Unset
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
    """The function and its loops' helpers, or None when there is no loop.

    Raises:
        NpiError: a loop that cannot be a call of its own.
    """
    tree = copy.deepcopy(function)
    tree.decorator_list, tree.returns = [], None
    tree.args.defaults = [
        ast.Constant(None) for _ in tree.args.defaults
    ]  # the linker gives it the user's own
    for argument in tree.args.args:
        argument.annotation = None
    lifter = _Lifter(tree)
    return lifter.run() if any(lifter.is_loop(n) for n in ast.walk(tree)) else None


@final
class Unset:
    """What a name holds before the program assigns it: nothing that one may use."""

    __name__ = "unset"

    def __init__(self, name: str) -> None:
        self._unset = name

    def __repr__(self) -> str:
        return f"unset {self._unset}"

    def _refuse(self, *_: object) -> NoReturn:
        raise ValueError(f"the program uses {self._unset} before it is assigned")

    __bool__ = __int__ = __index__ = __call__ = __getattr__ = _refuse
    __lt__ = __le__ = __gt__ = __ge__ = __neg__ = __abs__ = __invert__ = _refuse
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __floordiv__ = __rfloordiv__ = _refuse
    __mod__ = __rmod__ = __and__ = __rand__ = __or__ = __ror__ = __xor__ = __rxor__ = _refuse


@dataclass(frozen=True)
class _Next:
    """What follows a block.

    Attributes:
        code: statements that lead there and do not come back; empty at the end of a function or where the
            block runs on into the statements after it.
        live: names needed there.
        end: whether the function ends there.
    """

    code: list[ast.stmt]
    live: Names
    end: bool = False


@dataclass(frozen=True)
class _Loop:
    """Where `break` and `continue` lead; None in a loop that is not lifted, where Python's own serve."""

    leave: list[ast.stmt] | None = None
    again: list[ast.stmt] | None = None
    exits: Exits = field(default_factory=Exits)


@final
class _Lifter:
    def __init__(self, tree: ast.FunctionDef) -> None:
        self.tree, self.name = tree, tree.name
        self.given = [a.arg for a in tree.args.args]
        self.order = list(dict.fromkeys([*self.given, *stores(tree.body)]))
        self.static = self._static_names()
        self.helpers: list[ast.FunctionDef] = []
        self.loops = self.rests = self.hidden = 0

    def _static_names(self) -> set[str]:
        """Local names that only ever hold a tuple, a list or a range."""
        kinds: dict[str, set[bool]] = {}
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Assign):
                for target in node.targets:
                    if isinstance(target, ast.Name):
                        kinds.setdefault(target.id, set()).add(_collection(node.value))
                    else:
                        for name in stores([target]):
                            kinds.setdefault(name, set()).add(False)
        return {name for name, found in kinds.items() if found == {True}}

    def is_loop(self, node: ast.AST) -> bool:
        """Whether a node is a loop that becomes a function: `while`, or `for` over a pointer."""
        if isinstance(node, ast.For):
            over = node.iter
            if isinstance(over, ast.Name):
                return over.id in self.order and over.id not in self.static
            return isinstance(over, ast.Call) and isinstance(over.func, ast.Attribute)
        return isinstance(node, ast.While)

    def run(self) -> list[ast.FunctionDef]:
        body = self.tree.body
        unset = live_in(body, frozenset(), Exits()) & (set(self.order) - set(self.given))
        self.tree.body = self._block(body, _Next([], frozenset(), end=True), _Loop())
        for name in sorted(unset):
            unknown = ast.Call(ast.Name(_UNSET, ast.Load()), [ast.Constant(name)], [])
            assign = ast.Assign([ast.Name(name, ast.Store())], unknown)
            self.tree.body.insert(0, ast.copy_location(assign, self.tree.body[0]))
        return [self.tree, *self.helpers]

    def _block(self, body: Sequence[ast.stmt], after: _Next, loop: _Loop) -> list[ast.stmt]:
        """A block with its loops lifted, and the way to what follows it."""
        done: list[ast.stmt] = []
        for i, s in enumerate(body):
            rest = list(body[i + 1 :])
            live = live_in(rest, after.live, loop.exits)
            last = not rest and after.end
            if self.is_loop(s):
                s, before = self._plain(s)
                done += before
                if self._takes_along(s, live):
                    return [*done, _again(self._loop(s, self._goto(rest, after, loop, s), loop))]
                call = self._loop(s, _Next([], frozenset(), end=True), loop)
                done.append(_again(call) if last else ast.copy_location(ast.Expr(call), s))
            elif isinstance(s, ast.If | ast.Match):
                if self._inside(s, live, loop.exits):
                    onward = self._goto(rest, after, loop, s)
                    for block in self._branches(s):
                        block[:] = self._block(block, onward, loop)
                    return [*done, s]
                for block in self._branches(s):
                    block[:] = self._block(block, after if last else _Next([], live), loop)
                done.append(s)
            elif isinstance(s, ast.For):
                done.append(self._unrolled(s, live, loop))
            elif isinstance(s, ast.Break) and loop.leave is not None:
                return [*done, *copy.deepcopy(loop.leave), ast.copy_location(ast.Return(None), s)]
            elif isinstance(s, ast.Continue) and loop.again is not None:
                return [*done, *copy.deepcopy(loop.again)]
            else:
                done.append(s)
        return [*done, *copy.deepcopy(after.code)]

    def _unrolled(self, s: ast.For, live: Names, outer: _Loop) -> ast.For:
        """A `for` over a tuple or a range: done as it stands, its statements one after the other."""
        if self._inside(s, live, Exits()):
            raise NpiError(
                f"{self.name}: the loop inside of the `for` at line {s.lineno} holds a `return` or leaves a value "
                "behind; move it to a function of its own"
            )
        s.body = self._block(s.body, _Next([], live | loads(s)), _Loop())
        s.orelse = self._block(s.orelse, _Next([], live), outer)
        return s

    def _takes_along(self, loop: ast.stmt, live: Names) -> bool:
        assert isinstance(loop, ast.While | ast.For)
        leaves = any(isinstance(n, ast.Return) for n in ast.walk(loop)) or _jumps(loop.orelse)
        return leaves or bool(live & set(stores([loop])))

    def _branches(self, s: ast.stmt) -> Iterator[list[ast.stmt]]:
        """The blocks of a branching statement, one for each way through it."""
        if isinstance(s, ast.Match):
            last = s.cases[-1]
            if last.guard is not None or not (
                isinstance(last.pattern, ast.MatchAs) and last.pattern.pattern is None
            ):
                s.cases.append(ast.match_case(ast.MatchAs(), None, [ast.copy_location(ast.Pass(), s)]))
            yield from (case.body for case in s.cases)
        elif isinstance(s, ast.If | ast.For):
            yield from (s.body, s.orelse)

    def _inside(self, s: ast.stmt, live: Names, exits: Exits) -> bool:
        """Whether a loop in there has to take along what follows."""
        if isinstance(s, ast.For):
            live, exits = live | loads(s), Exits(live, live | loads(s))
        for body in self._branches(s):
            for i, inner in enumerate(body):
                after = live_in(body[i + 1 :], live, exits)
                if (
                    self._takes_along(inner, after)
                    if self.is_loop(inner)
                    else self._inside(inner, after, exits)
                ):
                    return True
        return False

    def _goto(self, rest: list[ast.stmt], after: _Next, loop: _Loop, at: ast.stmt) -> _Next:
        """The way to `rest` and to what follows it, from a function of its own."""
        if not rest:
            return after
        live = live_in(rest, after.live, loop.exits)
        if sum(isinstance(n, ast.stmt) for s in rest for n in ast.walk(s)) <= _INLINE:
            code = self._block(copy.deepcopy(rest), after, loop)
        else:
            self.rests += 1
            name = f"{self.name}_then{self.rests}"
            code = [_again(self._call(name, live, frozenset(), at))]
            self._add(name, live, at).body = self._block(rest, after, loop)
        return _Next(code, live, end=after.end and not code)

    def _loop(self, s: ast.While, after: _Next, outer: _Loop) -> ast.Call:
        """Make the loop's function; returns the call of its first round. Jumps in its `else` are `outer`'s."""
        self.loops += 1
        name = f"{self.name}_while{self.loops}"
        around = ast.While(s.test, s.body, s.orelse)
        live = live_in([around], after.live, outer.exits)
        changed = live & set(stores([s]))
        call = self._call(name, live, changed, s)
        again: list[ast.stmt] = [_again(call)]
        helper = self._add(name, live, s)
        exits = Exits(leave=after.live, again=live)
        body = self._block(s.body, _Next(again, live), _Loop(after.code, again, exits))
        otherwise = self._block(s.orelse, after, outer)
        helper.body = [ast.copy_location(ast.If(s.test, body, otherwise), s)]
        return copy.deepcopy(call)

    def _plain(self, s: ast.stmt) -> tuple[ast.While, list[ast.stmt]]:
        """A `for` over a pointer as a `while`, and what goes before it."""
        if isinstance(s, ast.While):
            return s, []
        assert isinstance(s, ast.For)
        if not isinstance(s.target, ast.Name):
            raise NpiError(
                f"{self.name}: the `for` over a pointer at line {s.lineno} takes one value a round"
            )
        before, pointer = "", ast.unparse(s.iter)
        if not isinstance(s.iter, ast.Name) or pointer in stores(s.body):
            self.hidden += 1
            before, pointer = f"_over{self.hidden} = {pointer}", f"_over{self.hidden}"
            self.order.append(pointer)
        text = f"{before}\nwhile not {pointer}.at_end():\n    {s.target.id} = {pointer}.read()\n    {pointer}.move(1)"
        *first, loop = ast.parse(text).body
        for node in ast.walk(ast.Module([*first, loop], [])):
            if isinstance(node, ast.expr | ast.stmt):
                ast.copy_location(node, s)
        assert isinstance(loop, ast.While)
        read, move = loop.body
        body = _Continues(move).rewrite(s.body)
        loop.body, loop.orelse = [read, *body, move], s.orelse
        return loop, first

    def _call(self, name: str, live: Names, changed: Names, at: ast.stmt) -> ast.Call:
        """A call of a helper. What the loop assigns goes along as a value, whatever it holds at first."""
        arguments: list[ast.expr] = []
        for n in self._parameters(live):
            argument: ast.expr = ast.Name(n, ast.Load())
            if n in changed:
                argument = ast.Call(ast.Name(KEEP, ast.Load()), [argument, ast.Constant(n)], [])
            arguments.append(argument)
        call = ast.Call(ast.Name(_bound(name), ast.Load()), arguments, [])
        return ast.fix_missing_locations(ast.copy_location(call, at))

    def _parameters(self, live: Names) -> list[str]:
        return [n for n in self.order if n in live]

    def _add(self, name: str, live: Names, at: ast.stmt) -> ast.FunctionDef:
        """A new helper, its body still to come."""
        helper = ast.FunctionDef(
            name=_bound(name),
            args=ast.arguments(
                posonlyargs=[],
                args=[ast.arg(a) for a in self._parameters(live)],
                kwonlyargs=[],
                kw_defaults=[],
                defaults=[],
            ),
            body=[ast.copy_location(ast.Pass(), at)],
            decorator_list=[],
        )
        ast.fix_missing_locations(ast.copy_location(helper, at))
        self.helpers.append(helper)
        return helper


def _jumps(body: Sequence[ast.stmt]) -> bool:
    """Whether statements hold a `break` or `continue` of the loop around them."""
    for s in body:
        if isinstance(s, ast.Break | ast.Continue):
            return True
        inner = [s.orelse] if isinstance(s, ast.For | ast.While) else []
        inner += [s.body, s.orelse] if isinstance(s, ast.If) else []
        inner += [case.body for case in s.cases] if isinstance(s, ast.Match) else []
        if any(map(_jumps, inner)):
            return True
    return False


def _again(call: ast.Call) -> ast.Return:
    """The statement that ends a call with another one."""
    onward = ast.Call(ast.Name(AGAIN, ast.Load()), [copy.deepcopy(call.func), *copy.deepcopy(call.args)], [])
    return ast.fix_missing_locations(ast.copy_location(ast.Return(ast.copy_location(onward, call)), call))


@final
class _Continues(ast.NodeTransformer):
    """The pointer of a `for` moves on before each `continue`, too."""

    def __init__(self, move: ast.stmt) -> None:
        self.move = move

    def rewrite(self, body: list[ast.stmt]) -> list[ast.stmt]:
        out: list[ast.stmt] = []
        for statement in body:
            result = self.visit(statement)
            out.extend(result if isinstance(result, list) else [result])
        return out

    def visit_Continue(self, node: ast.Continue) -> list[ast.stmt]:
        return [copy.deepcopy(self.move), node]

    def visit_While(self, node: ast.While) -> ast.While:
        return node

    def visit_For(self, node: ast.For) -> ast.For:
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        return node


def _collection(value: ast.expr) -> bool:
    called = isinstance(value, ast.Call) and isinstance(value.func, ast.Name)
    return isinstance(value, ast.Tuple | ast.List | ast.Set) or (
        called and value.func.id in ("range", "tuple", "list", "reversed")  # type: ignore[attr-defined]
    )
