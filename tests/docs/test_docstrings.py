"""Every public call says what it takes, what it gives back and what it raises: all of them, counted."""

from __future__ import annotations

import dataclasses
import enum
import importlib
import inspect
import re
from collections.abc import Iterator
from typing import Any

import pytest

import outsize

ROOMS = ("codecs", "integrations", "measure", "parallel", "programs.trees", "zoo")
#: Integrations whose library may be missing.
LIBRARIES = {
    "transformers": "OutsizeCallback",
    "lightning": "OutsizeCallback",
    "accelerate": "prepare peaks release",
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


PUBLIC = dict(public())


def parameters(found: Any) -> list[str]:
    """What a caller gives: of a class, its constructor's."""
    if inspect.isclass(found):
        if dataclasses.is_dataclass(found):
            return [field.name for field in dataclasses.fields(found) if field.init]
        if issubclass(found, (Exception, enum.Enum)) or inspect.isabstract(found):
            return []
    return [name for name in inspect.signature(found).parameters if name not in ("self", "cls", "_")]


def undocumented(name: str, found: Any) -> list[str]:
    text = inspect.getdoc(found) or ""
    if not text or (inspect.isclass(found) and text.startswith(f"{found.__name__}(")):
        return ["a docstring"]
    missing = [p for p in parameters(found) if not re.search(rf"(^|[\s,`*]){re.escape(p)}\b", text)]
    if not inspect.isclass(found):
        gives = found.__annotations__.get("return", "None")
        if (
            gives not in ("None", None)
            and not re.search(r"Returns|returned|Yields", text)
            and len(parameters(found))
        ):
            missing.append("Returns")
        if "raise " in _source(found) and not re.search(r"Raises|refuse|error", text):
            missing.append("Raises")
    return missing


def _source(found: Any) -> str:
    try:
        return inspect.getsource(found)
    except (OSError, TypeError):
        return ""


def test_names_are_found() -> None:
    assert len(PUBLIC) > 60
    assert {"compile", "plan", "codecs.compress", "parallel.distribute"} <= set(PUBLIC)


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_a_public_call_is_documented(name: str) -> None:
    assert undocumented(name, PUBLIC[name]) == []


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
