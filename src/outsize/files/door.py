"""Reading what a user, a network or a crash may have damaged.

A reader that trusts its file fails in its own words (`KeyError: 'texts'`), or not at all, or only after it has asked
for the memory that a damaged length names. Three things help, and they are the same for every kind of file: the size
is known before anything is read, what a parser can be made to do is bounded by the size of its text, and there is one
error, which names the file, what is wrong with it, and what to do.
"""

from __future__ import annotations

import json
import os
import reprlib
import stat
import tomllib
from dataclasses import dataclass
from typing import Any

from ..errors import OutsizeError

AnyPath = str | os.PathLike[str]

#: Values of one JSON text. Each takes up to 100 bytes once it is parsed, so 4 million stay well under half a GiB; the
#: records of the largest step measured (9,000 operators, three timelines) have 150 thousand.
MOST_VALUES = 4_000_000
_SHOWN = 80
_BRIEF = reprlib.Repr()
_BRIEF.maxstring = _BRIEF.maxother = _BRIEF.maxlong = _SHOWN
_BRIEF.maxlevel = 3


@dataclass(frozen=True, kw_only=True)
class Door:
    """What one kind of file is, and what to say where it is not.

    Attributes:
        kind: what it holds, with an article: `a run record`.
        remedy: what to do where it cannot be used: `write it again with ...`.
        error: the class of the error.
        most_bytes: a larger file is refused unread.
    """

    kind: str
    remedy: str
    error: type[OutsizeError] = OutsizeError
    most_bytes: int = 64 * 2**20

    def fail(self, path: AnyPath, problem: object) -> OutsizeError:
        """The error for that file; `problem` completes the sentence."""
        return self.error(f"cannot read {self.kind} from {os.fspath(path)}: {problem}; {self.remedy}")

    def bytes(self, path: AnyPath) -> bytes:
        """The whole file.

        Raises:
            OutsizeError: of class `error`: missing, not a regular file, too large, unreadable.
        """
        try:
            self.check_size(path)
            with open(path, "rb") as file:
                data = file.read(self.most_bytes + 1)
        except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
            raise self.fail(path, reason(error)) from error
        if len(data) > self.most_bytes:
            raise self.fail(path, f"it grew beyond {self.most_bytes:,} bytes while it was read")
        return data

    def check_size(self, path: AnyPath) -> int:
        """The size of a regular file within the bound; raises as `bytes`, and `OSError`."""
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            raise self.fail(path, "it is not a regular file")
        if status.st_size > self.most_bytes:
            raise self.fail(path, f"it has {status.st_size:,} bytes, at most {self.most_bytes:,} are read")
        return status.st_size

    def text(self, path: AnyPath) -> str:
        """The whole file as UTF-8; raises as `bytes`."""
        try:
            return self.bytes(path).decode("utf-8")
        except UnicodeDecodeError as error:
            raise self.fail(path, f"byte {error.start} is not UTF-8 text") from error

    def json(self, path: AnyPath) -> Any:
        """The value of a JSON file; raises as `bytes`."""
        try:
            return parse_json(self.text(path))
        except ValueError as error:
            raise self.fail(path, error) from error


def check_count(text: str) -> None:
    """Raises ValueError where a JSON text may hold more than `MOST_VALUES` values."""
    count = text.count(",") + text.count("[") + text.count("{")
    if count > MOST_VALUES:
        raise ValueError(f"it holds some {count:,} values, at most {MOST_VALUES:,} are read")


def parse_json(text: str) -> Any:
    """`json.loads` for a text from outside.

    Raises:
        ValueError: not JSON, one key twice in an object, nested too deeply, more than `MOST_VALUES` values.
    """
    check_count(text)
    try:
        return json.loads(text, object_pairs_hook=_distinct)
    except json.JSONDecodeError as error:
        raise ValueError(f"it is not JSON: {error}") from error
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def parse_toml(text: str) -> dict[str, Any]:
    """`tomllib.loads` for a text from outside.

    Raises:
        ValueError: not TOML, or nested too deeply.
    """
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"it is not TOML: {error}") from error
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {shown(twice)} stands twice in one object")
    return found


def shown(value: object) -> str:
    """A value of a file as an error shows it: escaped, and cut."""
    if isinstance(value, int) and abs(value) >= 10**_SHOWN:
        return f"a whole number of more than {_SHOWN} digits"
    text = _BRIEF.repr(value).encode("ascii", "backslashreplace").decode()
    return text if len(text) <= 3 * _SHOWN else f"{text[: 3 * _SHOWN]}..."


def reason(error: Exception) -> str:
    """What an error of the operating system or a parser says, without the path."""
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
