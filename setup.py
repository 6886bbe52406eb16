"""Builds the one native module. Everything else is declared in pyproject.toml.

The extension is optional: without a C compiler the install succeeds and `outsize.native` reports, once,
that the slower torch paths are used. `OUTSIZE_PURE=1 pip wheel .` leaves it out, for a wheel of any platform.
"""

import os
import sys
from pathlib import Path

from setuptools import Extension, setup

NATIVE = Path("src/outsize/native")

PURE = os.environ.get("OUTSIZE_PURE", "") not in ("", "0")
WINDOWS = sys.platform == "win32"

# Without errno and traps from arithmetic, loops with a square root become vector code; bits stay.
UNIX = [
    "-O3",
    "-std=c11",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fvisibility=hidden",
    "-pthread",
    "-Wall",
    "-Wextra",
]

MODULE = Extension(
    "outsize.native._native",
    sources=sorted(str(p) for p in NATIVE.glob("*.c")),
    depends=sorted(str(p) for p in NATIVE.glob("*.h")),
    extra_compile_args=["/O2", "/std:c11"] if WINDOWS else UNIX,
    extra_link_args=["-pthread", "-ldl"] if sys.platform.startswith("linux") else [],
    define_macros=[("Py_LIMITED_API", "0x030B0000"), ("_GNU_SOURCE", "1")],
    py_limited_api=True,
    optional=True,
)

setup(
    ext_modules=[] if PURE else [MODULE],
    options={} if PURE else {"bdist_wheel": {"py_limited_api": "cp311"}},
)
