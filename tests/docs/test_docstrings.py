"""Every public call says what it takes, what it gives back and what it raises: all of them, counted.

Counted are the callables that a room's `__all__` names, and the public methods and properties of those that are classes.
"""

from __future__ import annotations

import ast
import dataclasses
import enum
import importlib
import inspect
import re
import textwrap
from collections.abc import Iterator
from typing import Any

import pytest

import outsize

ROOMS = (
    "codecs",
    "integrations",
    "measure",
    "parallel",
    "programs.npi",
    "programs.trees",
    "values",
    "zoo",
)
#: Integrations whose library may be missing.
LIBRARIES = {
    "transformers": "OutsizeCallback",
    "lightning": "OutsizeCallback",
    "accelerate": "prepare peaks release",
    "processes": "agree",
    "scalars": "LogScalars scalars tensorboard",
}


def public() -> Iterator[tuple[str, Any]]:
    """The callables that `__all__` names."""
    for room in ("", *ROOMS):
        module = importlib.import_module(f"outsize.{room}".rstrip("."))
        names = [name for name in module.__all__ if callable(getattr(module, name))]
        yield from ((f"{room}.{name}".lstrip("."), getattr(module, name)) for name in names)
    for library, names in LIBRARIES.items():
        try:
            module = importlib.import_module(f"outsize.integrations.{library}")
        except ModuleNotFoundError:
            continue
        for name in names.split():
            yield f"integrations.{library}.{name}", getattr(module, name)


def members(name: str, found: type) -> Iterator[tuple[str, Any]]:
    """The public methods and properties of a class that are ours.

    What a library's class has under the same name (a callback's `on_save`, an optimizer's `step`) is explained there, and
    needs a line here, no more. A `forward` is a call of ours.
    """
    for kind in found.__mro__:
        if not kind.__module__.startswith("outsize"):
            continue
        for member, value in vars(kind).items():
            if member.startswith("_") or not isinstance(value, FUNCTIONS):
                continue
            theirs = any(member in vars(other) for other in found.__mro__ if not _ours(other))
            if theirs and member != "forward":
                value = property(value)
            yield f"{name}.{member}", value if isinstance(value, property) else getattr(found, member)


FUNCTIONS = (type(members), classmethod, staticmethod, property)


def _ours(kind: type) -> bool:
    return kind.__module__.startswith("outsize")


PUBLIC = dict(public())
MEMBERS = {
    name: found
    for owner, kind in PUBLIC.items()
    if inspect.isclass(kind)
    for name, found in members(owner, kind)
}


def parameters(found: Any) -> list[str]:
    """What a caller gives: of a class, its constructor's."""
    if inspect.isclass(found):
        if dataclasses.is_dataclass(found):
            return [f.name for f in dataclasses.fields(found) if f.init and not f.name.startswith("_")]
        if issubclass(found, (Exception, enum.Enum)) or inspect.isabstract(found):
            return []
    return [name for name in inspect.signature(found).parameters if name not in ("self", "cls", "_")]


def entries(text: str) -> set[str]:
    """The names that the sections `Args` and `Attributes` explain."""
    found: set[str] = set()
    for section in re.findall(r"^(?:Args|Attributes):\n((?:[ ].*\n|\n)+)", text + "\n", re.MULTILINE):
        for line in re.findall(r"^ {4}([\w*][\w, *]*): ?", section, re.MULTILINE):
            found |= {name.strip(" *") for name in line.split(",")}
    return found


def undocumented(found: Any) -> list[str]:
    text = inspect.getdoc(found) or ""
    if not text or (inspect.isclass(found) and text.startswith(f"{found.__name__}(")):
        return ["a docstring"]
    if isinstance(found, property):
        return []
    missing = [p for p in parameters(found) if p not in entries(text)]
    if not inspect.isclass(found):
        returns = found.__annotations__.get("return", "None")
        if (
            returns not in ("None", None)
            and parameters(found)
            and not re.search("^(Returns|Yields):", text, re.M)
        ):
            missing.append("Returns")
        if _raises(found) and not re.search("^Raises:", text, re.M):
            missing.append("Raises")
    return missing


def _raises(found: Any) -> bool:
    """Whether there is a `raise` of an error in the function itself."""
    try:
        source = textwrap.dedent(inspect.getsource(found))
    except (OSError, TypeError):
        return False
    return any(isinstance(node, ast.Raise) and node.exc for node in ast.walk(ast.parse(source)))


def test_names_are_found() -> None:
    assert len(PUBLIC) > 130
    assert {"compile", "plan", "codecs.compress", "parallel.distribute"} <= set(PUBLIC)
    assert len(MEMBERS) > 150
    assert {"programs.npi.Head.move", "values.Plan.to_json", "codecs.Compressed.decompress"} <= set(MEMBERS)


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_a_public_call_is_documented(name: str) -> None:
    assert undocumented(PUBLIC[name]) == []


@pytest.mark.parametrize("name", sorted(MEMBERS))
def test_a_public_method_is_documented(name: str) -> None:
    assert undocumented(MEMBERS[name]) == []


def test_what_is_missing_is_found() -> None:
    def bare(size: int, name: str = "") -> int:
        """What `size` and name give.

        Args:
            size: in bytes.
        """
        if not size:
            raise ValueError(name)
        return size

    assert undocumented(bare) == ["name", "Returns", "Raises"]


def test_dir_shows_the_public_names() -> None:
    shown = dir(outsize)
    assert {"compile", "plan", "report", "meter", "record", "release", "BudgetError", "integrations"} <= set(
        shown
    )
    assert all(hasattr(outsize, name) for name in shown)
    assert not [name for name in shown if name.startswith("_") and not name.startswith("__")]


def test_help_teaches() -> None:
    """`help(outsize.compile)` has a loop that runs, and says what each argument is."""
    text = inspect.getdoc(outsize.compile) or ""
    code = "\n".join(line[4:] for line in text.splitlines() if line.startswith((">>> ", "... ")))
    assert "outsize.compile(" in code
    exec(compile(code, "help(outsize.compile)", "exec"), {})
