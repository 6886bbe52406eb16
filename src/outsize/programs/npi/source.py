"""Re-link an ordinary function so that its calls can be heard.

Nothing is asked of the user: functions are found through the names that the program uses, when they are first
called with pointers, and the copies live in a namespace of their own. Their loops become calls (`lifting.py`).
Constants and functions among the arguments of a call make a program of their own, since a call passes pointers
and values only: `apply(xs, square)` is the program `apply_square` on `xs`.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from types import CellType, FunctionType
from typing import Any, Protocol, final

from ...errors import NpiError
from .calls import Places
from .language import check_program, passable
from .lifting import AGAIN, KEEP, Unset, compile_bodies, lift
from .names import Names, builtins_of, digest
from .parsed import place
from .pure import check_data
from .returns import Returns
from .tape import Pointer
from .value import Value

__all__ = ["Linker", "Listener", "Program"]

Program = Callable[..., Any]

#: Programs that one function may become by its constants. A recursion that counts in an argument makes no end of them.
_SPECIAL_LIMIT = 64


class Listener(Protocol):
    """Who hears the calls: a recorder of one execution, or an explorer of all of them."""

    def call(self, name: str, function: Program, arguments: tuple[Pointer | Value, ...]) -> Any: ...

    def again(self, name: str, function: Program, arguments: tuple[Pointer | Value, ...]) -> Any: ...

    def keep(self, value: Value | int, label: str = "") -> Value: ...

    def compute(self, name: str, function: Program, arguments: tuple[Any, ...]) -> Any: ...


@final
class Linker:
    """Copies of a program's functions whose calls go through `listener`.

    A call with pointers among its arguments is a program call; one with values is a data function, hence
    (part of) a primitive; any other call is left alone.

    Attributes:
        name: the entry's.
        functions: programs by name; each takes pointers and values only.
        parameters: names of their parameters.
        places: file and line of each.
    """

    def __init__(self, program: Program, lifts: bool = True) -> None:
        if not isinstance(program, FunctionType):
            raise NpiError(f"a program is a plain Python function over pointers, not {program!r}")
        self._lifts, self.entry = lifts, program
        self.listener: Listener | None = None
        self.functions: dict[str, Program] = {}
        self.parameters: dict[str, tuple[str, ...]] = {}
        self.places: dict[str, str] = {}
        self.returns = Returns()
        self.tails: Places = frozenset()  # known when all ways through the program are
        self.kinds: dict[str, str] = {}
        self._loops: set[FunctionType] = set()
        self._names: dict[FunctionType, str] = {}
        self._wrappers: dict[FunctionType, Program] = {}
        self._raw: dict[Program, FunctionType] = {}
        self._special: dict[tuple[Any, ...], str] = {}
        self._adapted: dict[tuple[Any, ...], Program] = {}
        self._checked: set[FunctionType] = set()
        self.name = self._link(program)

    def digest(self) -> str:
        """SHA-256 of the program's text and of everything that it uses, as it is now."""
        return digest(self.entry)

    def takes(self, name: str, arguments: tuple[Pointer | Value, ...]) -> None:
        """Learn which parameters of a program are pointers and which are values.

        Raises:
            NpiError: another call passes otherwise.
        """
        kinds = "".join("v" if isinstance(a, Value) else "p" for a in arguments)
        if self.kinds.setdefault(name, kinds) != kinds:
            raise NpiError(
                f"{name} is called with pointers and values in different places: write two functions"
            )

    def arity(self, name: str) -> int:
        """Pointers that a program takes."""
        return self.kinds[name].count("p") if name in self.kinds else len(self.parameters[name])

    def _link(self, function: FunctionType) -> str:
        """The program's name; its copies are made at the first call."""
        if function in self._names:
            return self._names[function]
        tree = check_program(function)
        name = self._names[function] = self._fresh(function.__name__)
        names = {**function.__globals__, "__builtins__": builtins_of(function)}
        names.update((n, v) for n, v in Names(function).outer.items() if n in function.__code__.co_freevars)
        lifted = lift(tree) if self._lifts else None
        if lifted is None:
            closure = tuple(CellType(self._relink(n, names[n])) for n in function.__code__.co_freevars)
            bodies = {name: FunctionType(function.__code__, names, name, None, closure)}
        else:
            bodies = compile_bodies(lifted, function, names)
            names[AGAIN], names[KEEP] = self._again, self._keep
        for i, (name_, body) in enumerate(bodies.items()):
            if i:  # a loop of its own: the program calls it by the name that `lift` gave it
                self._names[body] = self._fresh(name_)
                self._loops.add(body)
                names[lifted[i].name] = self._wrap(body, name_)  # type: ignore[index]
            self.places[name_] = place(body)
        bodies[name].__defaults__ = function.__defaults__
        for name_, body in bodies.items():
            for n, found in Names(body).outer.items():
                if n in names and isinstance(found, FunctionType | tuple) and found not in self._raw:
                    names[n] = self._relink(n, found)
            self.functions[name_], self.parameters[name_] = body, tuple(inspect.signature(body).parameters)
        return name

    def _fresh(self, name: str) -> str:
        if name in self.functions or name in self._names.values():
            raise NpiError(f"two functions of the program are called {name}: rename one")
        return name

    def _relink(self, name: str, found: Any) -> Any:
        """Functions are wrapped, those in a tuple too; constants and builtins stay as they are."""
        if type(found) is tuple:
            return tuple(self._relink(name, f) for f in found)
        known = isinstance(found, FunctionType) and found not in self._raw
        return self._wrap(found, name) if known else found

    def _wrap(self, function: FunctionType, alias: str) -> Program:
        if function not in self._wrappers:

            def call(*arguments: Any, **named: Any) -> Any:
                return self._call(function, arguments, named)

            call.__name__ = alias if alias and function.__name__ == "<lambda>" else function.__name__
            self._wrappers[function] = call
            self._raw[call] = function
        return self._wrappers[function]

    def _again(self, wrapper: Program, *arguments: Any) -> Any:
        """A loop's next round: what its function does last."""
        return self._call(self._raw[wrapper], arguments, {}, again=True)

    def _call(
        self,
        function: FunctionType,
        arguments: tuple[Any, ...],
        named: Mapping[str, Any],
        again: bool = False,
    ) -> Any:
        listener, given = self.listener, (*arguments, *named.values())
        if listener is None:
            raise NpiError(f"{function.__name__} is called outside of a recording")
        if not any(isinstance(a, Pointer) for a in given) and function not in self._loops:
            return self._compute(listener, function, arguments, named)
        name = self._link(function)
        body = self.functions[name]
        bound = inspect.signature(body).bind(*arguments, **named)
        bound.apply_defaults()
        passed = bound.args
        constants = {
            i: self._relink("", a) for i, a in enumerate(passed) if not isinstance(a, Pointer | Value)
        }
        if not all(isinstance(c, Unset) or passable(self._bare(c)) for c in constants.values()):
            return body(*passed)
        if constants:
            name = self._specialise(name, constants)
        rest = [a for a in passed if isinstance(a, Pointer | Value)]
        names = self.parameters[name]
        kept = tuple(listener.keep(a, n) if isinstance(a, Value) else a for a, n in zip(rest, names))
        self.takes(name, kept)
        return (listener.again if again else listener.call)(name, self.functions[name], kept)

    def _keep(self, held: Any, name: str) -> Any:
        """What a variable that a loop assigns holds, as a value; pointers stay what they are."""
        if self.listener is not None and isinstance(held, int | Value):
            return self.listener.keep(held, name)
        return held

    def _bare(self, value: Any) -> Any:
        """A function as its user wrote it."""
        return self._raw.get(value, value) if isinstance(value, FunctionType) else value

    def _compute(
        self, listener: Listener, function: FunctionType, arguments: tuple[Any, ...], named: Mapping[str, Any]
    ) -> Any:
        """A data function: part of a primitive where values are among its arguments, else a constant."""
        if function not in self._checked:
            check_data(function)
            self._checked.add(function)
        name, bound = self._wrap(function, "").__name__, inspect.signature(function).bind(*arguments, **named)
        bound.apply_defaults()
        given = tuple(self._bare(a) for a in (*bound.args, *bound.kwargs.values()))
        for a in given:
            if isinstance(a, FunctionType) and a not in self._checked:
                check_data(a)
                self._checked.add(a)
            if not (isinstance(a, Value) or passable(a)):
                raise NpiError(
                    f"{name} ({place(function)}) is given {type(a).__name__} as an argument: a function takes pointers, "
                    "values and constants, each by itself"
                )
        adapted = self._adapt(function, len(bound.args), tuple(bound.kwargs))
        return (
            listener.compute(name, adapted, given)
            if any(isinstance(a, Value) for a in given)
            else adapted(*given)
        )

    def _adapt(self, function: FunctionType, count: int, named: tuple[str, ...]) -> Program:
        """The function with its keyword-only arguments given by position, one object for each way to call it."""
        if not named:
            return function

        def call(*arguments: Any) -> Any:
            return function(*arguments[:count], **dict(zip(named, arguments[count:])))

        call.__wrapped__ = (function, count, named)  # type: ignore[attr-defined]
        return self._adapted.setdefault((function, count, named), call)

    def _specialise(self, name: str, constants: Mapping[int, Any]) -> str:
        """The program that `name` is with these arguments filled in."""
        key = (
            name,
            *((i, type(c), c if isinstance(c, FunctionType) else repr(c)) for i, c in constants.items()),
        )
        if key in self._special:
            return self._special[key]
        if sum(known[0] == name for known in self._special) >= _SPECIAL_LIMIT:
            raise NpiError(
                f"{name} is called with more than {_SPECIAL_LIMIT} different constants; what one call leaves to the "
                "next is a value (in a loop's variable, or read from a tape) or a pointer's position"
            )
        words = (getattr(c, "__name__", str(c)) for c in constants.values())
        special = self._special[key] = self._fresh(re.sub(r"\W+", "_", "_".join([name, *words])))
        body, names = self.functions[name], self.parameters[name]

        def program(*arguments: Any) -> Any:
            rest = iter(arguments)
            return body(*(constants[i] if i in constants else next(rest) for i in range(len(names))))

        self.functions[special], self.places[special] = program, self.places[name]
        self.parameters[special] = tuple(n for i, n in enumerate(names) if i not in constants)
        return special
