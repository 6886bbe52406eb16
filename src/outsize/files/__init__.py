"""The door for everything that comes from a file: sizes are bounded, bytes are checked, errors name the file.

A reader says once, in a `Door`, what it reads, how large that may be and what to do where it cannot be used. It then
gets bytes, text, a JSON value or the arrays of a sealed file; whatever is wrong with them is one error of that door.
What the values *mean* is checked by the reader itself: by type hints (`values.build`) or array by array.
"""

from .door import AnyPath, Door, parse_json, parse_toml, reason, shown
from .sealed import Array, Sealed, open_sealed, save_sealed, seal, seal_text

__all__ = [
    "AnyPath",
    "Array",
    "Door",
    "Sealed",
    "open_sealed",
    "parse_json",
    "parse_toml",
    "reason",
    "save_sealed",
    "seal",
    "seal_text",
    "shown",
]
