"""Builds the one native module. Everything else is declared in pyproject.toml.

The extension is optional: without a C compiler the install succeeds and `outsize.native` reports, once,
that the slower torch paths are used.
"""

import sys
from pathlib import Path

from setuptools import Extension, setup

NATIVE = Path("src/outsize/native")

setup(
    ext_modules=[
        Extension(
            "outsize.native._native",
            sources=sorted(str(p) for p in NATIVE.glob("*.c")),
            depends=sorted(str(p) for p in NATIVE.glob("*.h")),
            # Without errno and traps from arithmetic, loops with a square root become vector code; bits stay.
            extra_compile_args=["-O3", "-std=c11", "-fno-math-errno", "-fno-trapping-math"]
            + ["-fvisibility=hidden", "-pthread", "-Wall", "-Wextra"]
            if sys.platform != "win32"
            else ["/O2", "/std:c11"],
            extra_link_args=["-pthread", "-ldl"] if sys.platform.startswith("linux") else [],
            define_macros=[("Py_LIMITED_API", "0x030B0000"), ("_GNU_SOURCE", "1")],
            py_limited_api=True,
            optional=True,
        )
    ],
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
