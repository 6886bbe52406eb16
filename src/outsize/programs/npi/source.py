"""Re-link an ordinary function so that its calls can be heard.

Nothing is asked of the user: functions are found through the names that the program uses, when they are first
called with pointers, and the copies live in a namespace of their own. Their `while` loops become calls
(`lifting.py`). Constants and functions among the arguments of a call make a program of their own, since a
call passes pointers only: `apply(xs, square)` is the program `apply_square` on `xs`.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from types import CellType, CodeType, FunctionType
from typing import Any, Protocol, final

from ...errors import NpiError
from .lifting import compile_bodies, lift
from .tape import Pointer
from .value import Value

__all__ = ["Linker", "Listener", "Program"]

Program = Callable[..., Any]

#: Programs that one function may become by its constants. A recursion that counts in an argument makes no end of them.
_SPECIAL_LIMIT = 64


class Listener(Protocol):
    """Who hears the calls: a recorder of one execution, or an explorer of all of them."""

    def call(self, name: str, function: Program, arguments: tuple[Pointer, ...]) -> bool | None: ...

    def compute(self, name: str, function: Program, arguments: tuple[Any, ...]) -> Any: ...


@final
class Linker:
    """Copies of a program's functions whose calls go through `listener`.

    A call with pointers among its arguments is a program call; one with values is a data function, hence
    (part of) a primitive; any other call is left alone.

    Attributes:
        name: the entry's.
        functions: programs by name; each takes pointers only.
        parameters: names of their pointers.
    """

    def __init__(self, program: Program, lifts: bool = True) -> None:
        if not isinstance(program, FunctionType):
            raise NpiError(f"a program is a plain Python function over pointers, not {program!r}")
        self._lifts = lifts
        self.listener: Listener | None = None
        self.functions: dict[str, Program] = {}
        self.parameters: dict[str, tuple[str, ...]] = {}
        self._names: dict[FunctionType, str] = {}
        self._wrappers: dict[FunctionType, Program] = {}
        self._special: dict[tuple[Any, ...], str] = {}
        self.name = self._link(program)

    def _link(self, function: FunctionType) -> str:
        """The program's name; its copies are made at the first call."""
        if function in self._names:
            return self._names[function]
        name = self._names[function] = function.__name__
        names = dict(function.__globals__)
        cells = zip(function.__code__.co_freevars, function.__closure__ or ())
        names.update((name, cell.cell_contents) for name, cell in cells)
        lifted = lift(function) if self._lifts else None
        bodies = {name: function} if lifted is None else compile_bodies(lifted, function, names)
        for body in bodies.values():
            self._names[body] = self._fresh(body.__name__)
        links = {n: names[n] for body in bodies.values() for n in _used(body.__code__) if n in names}
        links = {n: bodies[n] if lifted is not None and n in bodies else f for n, f in links.items()}
        names.update((n, self._relink(found)) for n, found in links.items())
        if lifted is None:
            closure = tuple(CellType(names[name]) for name in function.__code__.co_freevars)
            body = FunctionType(function.__code__, names, name, function.__defaults__, closure)
            body.__kwdefaults__ = function.__kwdefaults__
            bodies = {name: body}
        for name_, body in bodies.items():
            self.functions[name_], self.parameters[name_] = body, tuple(inspect.signature(body).parameters)
        return name

    def _fresh(self, name: str) -> str:
        if name in self.functions:
            raise NpiError(f"two functions of the program are called {name}: rename one")
        return name

    def _relink(self, found: Any) -> Any:
        """Functions of the program are wrapped; ours, builtins, classes and modules stay as they are."""
        module = found.__module__ or "" if isinstance(found, FunctionType) else ""
        ours = module.startswith(f"{__package__}.") and not module.startswith(f"{__package__}.library")
        return self._wrap(found) if isinstance(found, FunctionType) and not ours else found

    def _wrap(self, function: FunctionType) -> Program:
        if function not in self._wrappers:

            def call(*arguments: Any, **named: Any) -> Any:
                return self._call(function, arguments, named)

            call.__name__ = function.__name__
            self._wrappers[function] = call
        return self._wrappers[function]

    def _call(self, function: FunctionType, arguments: tuple[Any, ...], named: Mapping[str, Any]) -> Any:
        listener = self.listener
        if listener is None:
            raise NpiError(f"{function.__name__} is called outside of a recording")
        given = (*arguments, *named.values())
        if not any(isinstance(a, Pointer) for a in given):
            if any(isinstance(a, Value) for a in given):
                return listener.compute(
                    function.__name__, function, _positional(function, arguments, named)[0]
                )
            return function(*arguments, **named)
        name = self._link(function)
        body = self.functions[name]
        passed, plain = _positional(body, arguments, named)
        if crossing := [a for a in passed if isinstance(a, Value)]:
            _refuse_crossing(name, crossing[0])
        constants = {i: a for i, a in enumerate(passed) if not isinstance(a, Pointer)}
        if not plain or not all(_constant(c) for c in constants.values()):
            return body(*passed)
        if constants:
            name = self._specialise(name, constants)
        return listener.call(name, self.functions[name], tuple(a for a in passed if isinstance(a, Pointer)))

    def _specialise(self, name: str, constants: Mapping[int, Any]) -> str:
        """The program that `name` is with these arguments filled in."""
        key = (name, *((i, type(c), c) for i, c in constants.items()))
        if key in self._special:
            return self._special[key]
        if sum(known[0] == name for known in self._special) >= _SPECIAL_LIMIT:
            raise NpiError(
                f"{name} is called with more than {_SPECIAL_LIMIT} different constants; what one call leaves to the "
                "next lives on a tape (`write`) or in a pointer's position (`move`, `goto`)"
            )
        words = (getattr(c, "__name__", str(c)) for c in constants.values())
        special = self._special[key] = self._fresh(re.sub(r"\W+", "_", "_".join([name, *words])))
        body, names = self.functions[name], self.parameters[name]

        def program(*pointers: Pointer) -> Any:
            rest = iter(pointers)
            return body(*(constants[i] if i in constants else next(rest) for i in range(len(names))))

        self.functions[special] = program
        self.parameters[special] = tuple(n for i, n in enumerate(names) if i not in constants)
        return special


def _used(code: CodeType) -> Iterator[str]:
    """Global and free names of a code object and of those inside of it (comprehensions, lambdas)."""
    yield from code.co_names
    yield from code.co_freevars
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from _used(inner)


def _positional(
    function: Program, arguments: tuple[Any, ...], named: Mapping[str, Any]
) -> tuple[tuple[Any, ...], bool]:
    """All arguments in the order of the parameters, and whether each parameter has just one."""
    signature = inspect.signature(function)
    bound = signature.bind(*arguments, **named)
    bound.apply_defaults()
    plain = all(p.kind is p.POSITIONAL_OR_KEYWORD for p in signature.parameters.values())
    return (bound.args if plain or not bound.kwargs else (*arguments, *named.values())), plain


def _constant(value: Any) -> bool:
    return value is None or isinstance(value, int | str | FunctionType)


def _refuse_crossing(name: str, value: Value) -> None:
    if "_while" in name:
        raise NpiError(
            f"a loop of {name.partition('_while')[0]} uses a value {value.line}, before it: a value lives in one round; "
            "read it again inside, or write it to a tape cell and read that"
        )
    raise NpiError(
        f"{name} is called with a pointer and a value ({value.line}): a call passes pointers only; write the value to "
        "a tape cell and pass a pointer to it"
    )
